"""`@task`: turns a function into a task function, which still is the function."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Concatenate, Literal, Protocol, Unpack, cast, overload

from fastworker.after_response import put_off
from fastworker.codec import Signature
from fastworker.current import on_current_client, on_default_client, started_here
from fastworker.errors import ConfigurationError, DuplicateTask, InvalidArguments, TaskDefinitionError
from fastworker.handle import TaskHandle
from fastworker.limits import UNLIMITED, TaskLimits, make_limits
from fastworker.options import SubmitOptions, check_names, make_options
from fastworker.portal import wait_for
from fastworker.protocol import Submission
from fastworker.schedule import Timing
from fastworker.schedule_options import TaskOptions, check_runs_without_arguments, make_timing, split_options
from fastworker.sizes import bytes_of
from fastworker.submission import make_submission
from fastworker.tasks import UNSAID, Definition, Options
from fastworker.ties import NO_RULES, TieRules
from fastworker.upstream import encode_call
from fastworker.workflow import Call

Errors = tuple[type[BaseException], ...]
Upstream = TaskHandle[Any] | Sequence[TaskHandle[Any]] | Mapping[str, TaskHandle[Any]]
"""What stands for results in a call: it goes where the value is wanted, which type checkers have to be told."""
RunIn = Literal["process"]


class TaskFunction[**P, C, R]:
    """A function that can be submitted as a task. Calling it calls the function.

    `P` are its parameters, `C` is what a call returns (a coroutine for `async def`), `R` is the task's result.
    """

    def __init__(
        self,
        function: Callable[P, C],
        name: str,
        options: Options = UNSAID,
        retry_on: Errors = (Exception,),
        give_up_on: Errors = (),
        rules: TieRules = NO_RULES,
        limits: TaskLimits = UNLIMITED,
        schedule: Timing | None = None,
        run_in: RunIn | None = None,
        memory_limit: int | None = None,
        log_prints: bool = False,
    ) -> None:
        self.function = function
        self.name = name
        self.said = options
        self.rules = rules
        self.limits = limits
        self.retry_on = retry_on
        self.give_up_on = give_up_on
        self.schedule = schedule
        self.run_in = run_in
        self.memory_limit = memory_limit
        self.log_prints = log_prints
        self.after_response = False
        self.is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self.yields = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        functools.update_wrapper(self, function)
        if self.is_async and not self.yields:
            inspect.markcoroutinefunction(self)  # frameworks ask before they call

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task function {self.name}>"

    @functools.cached_property
    def signature(self) -> Signature:
        """How arguments and results become JSON. Made at first use, when all annotations can be resolved."""
        return Signature(self.function, self.name)

    def options(self, *, after_response: bool = False, **said: Unpack[SubmitOptions]) -> TaskFunction[P, C, R]:
        """The same task function with other options.

        Args:
            after_response: in a web application, submit only once the request has been answered. The answer does not
                wait for it; if the process dies in between, the task is lost.
            said: see `Options`.

        Raises:
            ConfigurationError: names the option and what it may be.
        """
        options, rules = make_options(self.name, **said)
        _ = self.signature  # made once, for all copies
        other = copy.copy(self)
        other.said, other.rules, other.after_response = options.over(self.said), rules.over(self.rules), after_response
        return other

    def submission(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Submission:
        """The task as it is sent. Raises what `submit` raises for bad arguments."""
        call = encode_call(self.signature, args, kwargs)
        said = None if self.said is UNSAID else self.said
        return make_submission(self.name, call, args, kwargs, said, self.rules)

    def s(self, *args: Any, **kwargs: Any) -> Call[R]:
        """A call for a workflow: with these arguments, behind the result of the step before it."""
        return Call(self, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Call[R]:
        """A call for a workflow that waits for the step before it, but does not get its result."""
        return Call(self, args, kwargs, takes_result=False)

    @overload
    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]: ...
    @overload
    async def submit(self, first: Upstream, /, *args: Any, **kwargs: Any) -> TaskHandle[R]: ...
    @overload
    async def submit(self, first: Any, second: Upstream, /, *args: Any, **kwargs: Any) -> TaskHandle[R]: ...
    async def submit(self, *args: Any, **kwargs: Any) -> TaskHandle[R]:
        """Queue a task; returns once the control plane has stored it. In place of a value, `Upstream` may stand.

        Raises:
            InvalidArguments: the arguments don't fit the signature.
            NotSerializable: a value has no JSON form.
            PayloadTooLarge: the arguments are too large.
            ConnectionFailed: no control plane was found.
        """
        submission = self.submission(args, kwargs)
        if self.after_response:
            return put_off(self.signature, submission)
        here = started_here()
        if here is not None:  # as `on_current_client` does, without a coroutine in between
            return await here.submit_function(self.signature, submission)
        return await on_default_client(lambda client: client.submit_function(self.signature, submission))

    async def map[T](self: Callable[Concatenate[T, ...], Any], items: Iterable[T]) -> list[TaskHandle[R]]:
        """Queue one task per item, with the item as first argument, in one request."""
        function = cast("TaskFunction[..., Any, R]", self)
        submissions = [function.submission((item,), {}) for item in items]
        return await on_current_client(lambda client: client.submit_functions(repeat(function.signature), submissions))

    @overload
    def submit_sync(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[R]: ...
    @overload
    def submit_sync(self, first: Upstream, /, *args: Any, **kwargs: Any) -> TaskHandle[R]: ...
    @overload
    def submit_sync(self, first: Any, second: Upstream, /, *args: Any, **kwargs: Any) -> TaskHandle[R]: ...
    def submit_sync(self, *args: Any, **kwargs: Any) -> TaskHandle[R]:
        """`submit` for blocking code."""
        _refuse_in_event_loop(f"{self.name}.submit_sync()", f"await {self.name}.submit()")
        return wait_for(self.submit(*args, **kwargs))

    def map_sync[T](self: Callable[Concatenate[T, ...], Any], items: Iterable[T]) -> list[TaskHandle[R]]:
        """`map` for blocking code."""
        function = cast("TaskFunction[..., Any, R]", self)
        _refuse_in_event_loop(f"{function.name}.map_sync()", f"await {function.name}.map()")
        return wait_for(function.map(items))

    delay = submit
    send = submit_sync

    def definition(self) -> Definition:
        """What a worker tells the control plane of this task function.

        Raises:
            TaskDefinitionError: its key can't be made for the runs of its schedule.
        """
        doc = (inspect.getdoc(self.function) or "").split("\n\n")[0]
        schema = self.signature.json_schema()
        if self.schedule is None:
            return Definition(self.name, self.said, schema, doc, self.limits)
        return Definition(self.name, self.said, schema, doc, self.limits, self.schedule, *self._keys_of_schedule())

    def _keys_of_schedule(self) -> tuple[str | None, str | None]:
        try:
            return self.rules.keys(self.name, (), {})
        except InvalidArguments as error:
            raise TaskDefinitionError(
                f"{error}. It has a schedule, which runs it without arguments: let the key function do without them, "
                "or make the schedule with client.add_schedule()"
            ) from error

    def is_retryable(self, error: BaseException) -> bool:
        """Whether another attempt makes sense after this exception."""
        return isinstance(error, self.retry_on) and not isinstance(error, self.give_up_on)


def _refuse_in_event_loop(call: str, instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(f"{call} would block the event loop that runs here: use `{instead}`")


AnyTaskFunction = TaskFunction[..., Any, Any]


class Registry:
    """The task functions of a process, by name."""

    def __init__(self) -> None:
        self._functions: dict[str, AnyTaskFunction] = {}

    def add(self, function: AnyTaskFunction) -> None:
        """Add a task function. The same source again (a reload, `__main__` and its module) replaces the old one.

        Raises:
            DuplicateTask: another function has the name already.
        """
        other = self._functions.get(function.name)
        if other is not None and _source(other) != _source(function):
            raise DuplicateTask(
                f"two task functions are called {function.name!r}: {_source(other)} and {_source(function)}. "
                "Give one of them another name: @task(name=…)"
            )
        self._functions[function.name] = function

    def get(self, name: str) -> AnyTaskFunction | None:
        """The task function of this name, if there is one."""
        return self._functions.get(name)

    def clear(self) -> None:
        """Forget all."""
        self._functions.clear()

    def __iter__(self) -> Iterator[AnyTaskFunction]:
        return iter(list(self._functions.values()))

    def __len__(self) -> int:
        return len(self._functions)


def _source(function: AnyTaskFunction) -> str:
    code = getattr(inspect.unwrap(function.function), "__code__", None)
    if code is None:
        return repr(function.function)
    return f"{code.co_qualname} in {code.co_filename}"


registry = Registry()


class TaskDecorator(Protocol):
    """What `@task(…)` returns."""

    @overload
    def __call__[**P, R](
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> TaskFunction[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__[**P, R](self, function: Callable[P, R], /) -> TaskFunction[P, R, R]: ...


@overload
def task[**P, R](function: Callable[P, Coroutine[Any, Any, R]], /) -> TaskFunction[P, Coroutine[Any, Any, R], R]: ...
@overload
def task[**P, R](function: Callable[P, R], /) -> TaskFunction[P, R, R]: ...
@overload
def task(
    task_name: str | None = None,
    /,
    *,
    name: str | None = None,
    retry_on: type[BaseException] | Errors = (Exception,),
    give_up_on: type[BaseException] | Errors = (),
    rate_limit: str | Sequence[str] | None = None,
    max_concurrency: int | None = None,
    run_in: RunIn | None = None,
    memory_limit: int | str | None = None,
    log_prints: bool = False,
    **options: Unpack[TaskOptions],
) -> TaskDecorator: ...
def task(
    function: Callable[..., Any] | str | None = None,
    /,
    *,
    name: str | None = None,
    retry_on: type[BaseException] | Errors = (Exception,),
    give_up_on: type[BaseException] | Errors = (),
    rate_limit: str | Sequence[str] | None = None,
    max_concurrency: int | None = None,
    run_in: RunIn | None = None,
    memory_limit: int | str | None = None,
    log_prints: bool = False,
    **options: Unpack[TaskOptions],
) -> Any:
    """Make a function a task function.

    Args:
        function: the function, when used without parentheses; or the task name.
        name: the task name; default: the function's name. Two functions can't share one.
        retry_on: exceptions after which another attempt makes sense.
        give_up_on: exceptions after which it doesn't, though `retry_on` has them.
        rate_limit: how many may start, over all workers: `"10/s"`, `"100k/d"`, or several that all hold.
        max_concurrency: how many may run at once, over all workers. With `key`, both hold for each key.
        run_in: `"process"`: in a process of its own, so that a crash, or a `hard_timeout`, costs this attempt only.
        memory_limit: bytes, or a text such as `"512 MB"`, that its process may use; needs `run_in="process"`.
        log_prints: what it prints is in its log, too.
        options: priority, queue, retries, backoff, timeout, hard_timeout, expires, result_ttl, acks, tags (see
            `Options`); key, fair_key, unique, unique_key, on_duplicate, on_upstream_failure (see `TieRules`). To run it
            by itself: every or cron, tz, start, end, count, misfire, overlap (see `Timing`).

    Raises:
        TaskDefinitionError: the function can't be a task as written.
        DuplicateTask: another function has the name already.
        ConfigurationError: names the option and what it may be.
    """
    if isinstance(function, str):
        name, function = function, None

    def decorate(target: Callable[..., Any]) -> AnyTaskFunction:
        _check_definition(target)
        task_name = name or target.__name__
        _check_process(target, task_name, run_in, memory_limit)
        check_names(task_name, options, TaskOptions.__annotations__)
        how, when = split_options(options)
        said, rules = make_options(task_name, **how)
        limits = make_limits(rate_limit, max_concurrency)
        schedule = make_timing(task_name, **when) if when else None
        if schedule is not None:
            check_runs_without_arguments(target, task_name)
        made = AnyTaskFunction(
            target,
            task_name,
            said,
            _errors(retry_on),
            _errors(give_up_on),
            rules,
            limits,
            schedule,
            run_in,
            None if memory_limit is None else bytes_of(memory_limit),
            log_prints,
        )
        made.said = UNSAID if made.said == UNSAID else made.said
        registry.add(made)
        return made

    return decorate if function is None else decorate(function)


def _check_definition(target: Any) -> None:
    if isinstance(target, TaskFunction):
        raise TaskDefinitionError(f"{target.name} is a task function already: remove one @task")
    if isinstance(target, staticmethod | classmethod) or not inspect.isroutine(target):
        raise TaskDefinitionError(f"{target!r} is not a function: @task goes on functions and async functions only")


def _check_process(target: Any, name: str, run_in: object, memory_limit: object) -> None:
    if run_in not in (None, "process"):
        raise ConfigurationError(f"{name}: run_in={run_in!r}: use 'process', or leave it out")
    if run_in is None and memory_limit is not None:
        raise ConfigurationError(f"{name}: memory_limit needs run_in='process': only a process's memory can be limited")
    if run_in is not None and "<locals>" in target.__qualname__:
        raise TaskDefinitionError(
            f"{name}: run_in='process' needs a function that another process can import, and this one is defined "
            f"inside {target.__qualname__.partition('.<locals>')[0]}: move it to the top level of its module"
        )


def _errors(value: type[BaseException] | Errors) -> Errors:
    errors: tuple[object, ...] = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not all(isinstance(error, type) and issubclass(error, BaseException) for error in errors):
        raise TaskDefinitionError(f"{value!r}: use an exception class or a tuple of them")
    return cast(Errors, errors)
