"""One attempt of one task, as steps: resolve → decode → run (inside the middleware) → encode → outcome.

Each step is a small function of its own. A failure of any step becomes the outcome of the attempt: nothing that a
task does, raises or returns can reach the worker itself.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from typing import Any, Final

from fastworker.codec import Signature, described
from fastworker.context import CurrentTask, enter_task
from fastworker.errors import FastWorkerError, InvalidArguments, TaskCancelled, TaskCrashed, TaskError, TaskTimeout
from fastworker.function import AnyTaskFunction
from fastworker.middleware import Middleware, around_run
from fastworker.protocol import Order, Outcome, Outcome_
from fastworker.resources import running
from fastworker.retry import Retry
from fastworker.tasks import ErrorInfo
from fastworker.upstream import fill_in

LONGEST_MESSAGE: Final = 10_000
LONGEST_TRACEBACK: Final = 60_000
PARTS_IN_A_ROW: Final = 100


class UnknownHere(FastWorkerError):
    """This worker has no task function of that name."""


class Execution:
    """One attempt while it is in this worker."""

    __slots__ = (
        "coroutine", "current", "function", "interrupted", "number", "order", "overdue", "started", "stopping",
        "thread", "ticking", "told", "unfit",
    )  # fmt: skip

    def __init__(
        self,
        order: Order,
        function: AnyTaskFunction | None,
        number: int,
        on_note: Callable[[CurrentTask], None] | None = None,
    ) -> None:
        self.order = order
        self.function = function
        self.number = number
        self.current = CurrentTask(order.id, order.name, order.attempt, order.headers, on_note)
        self.current.wants_prints = function is not None and function.log_prints
        self.started = 0.0
        self.ticking = time.monotonic()  # when it came; once it runs, when it was started
        self.stopping = False
        self.overdue = False  # it ran past its hard limit, and is being ended
        self.told = False  # its outcome is on its way; if its code still runs, nobody listens any more
        self.interrupted = False  # `TaskTimeout` was raised in its thread
        self.unfit = False  # the arguments are not those of this version of the function
        self.thread: int | None = None  # the identity of the thread that runs it, while its function runs
        self.coroutine: asyncio.Task[None] | None = None

    @property
    def blocks(self) -> bool:
        """Whether the function needs a thread."""
        return self.function is None or not (self.function.is_async or self.in_process)

    @property
    def in_process(self) -> bool:
        """Whether the function runs in a process slot."""
        return self.function is not None and self.function.run_in == "process"

    # ---- steps ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Note the start."""
        self.started = time.time()
        self.ticking = time.monotonic()

    def resolve(self) -> AnyTaskFunction:
        """The task function."""
        if self.function is None:
            raise UnknownHere(f"this worker has no task {self.order.name!r}: was it renamed or removed?")
        return self.function

    def decode(self, signature: Signature) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as the annotated types, with resources and the results of other tasks in their places.

        What doesn't fit will not fit at the next attempt either.
        """
        order = self.order
        payload = fill_in(order.args, order.inputs, f"the arguments of {order.name}") if order.inputs else order.args
        try:
            args, kwargs = signature.decode(payload)
        except InvalidArguments as error:
            self.unfit = True
            said = described(order.name, payload)
            raise InvalidArguments(f"{error}\nsubmitted as {said}: do client and worker have the same code?") from None
        kwargs |= {name: running[kind] for name, kind in signature.resources.items()}
        return args, kwargs

    def succeeded(self, function: AnyTaskFunction, value: Any) -> Outcome:
        """The outcome with the encoded result."""
        return self._outcome("succeeded", result=function.signature.encode_result(value))

    def failed(self, error: BaseException) -> Outcome:
        """The outcome for what was raised, by the task or by a step."""
        if isinstance(error, Retry):
            return self._outcome("retry", after=error.after, hold=error.hold or None)
        if isinstance(error, TaskTimeout) and self._is_own(error):
            return self._outcome("timeout", error=describe(error), retryable=self._retryable(error))
        if isinstance(error, TaskCancelled) and self._is_own(error):
            return self._outcome("cancelled", error=describe(error))
        if isinstance(error, asyncio.CancelledError) and self.stopping:
            return self._outcome("cancelled", error=describe(error))
        return self._outcome("failed", error=describe(error), retryable=self._retryable(error))

    def never_started(self) -> Outcome:
        """The outcome of an attempt that was stopped before it began."""
        self.begin()
        self.started = 0.0
        return self._outcome("cancelled")

    def killed(self) -> Outcome:
        """The outcome of an attempt whose process was ended to cancel it."""
        return self._outcome("killed")

    def crashed(self, error: ErrorInfo) -> Outcome:
        """The outcome of an attempt whose process died."""
        retryable = self._retryable(TaskCrashed(error.message, self.order.id))
        return self._outcome("crashed", error=error, retryable=retryable)

    def failed_with(self, error: ErrorInfo) -> Outcome:
        """The outcome of an attempt whose process could not be made ready."""
        return self._outcome("failed", error=error)

    def overran(self, what: str) -> Outcome:
        """The outcome at the hard time limit; `what` became of the code that ran."""
        limit = self.order.hard_timeout or 0.0
        late = TaskTimeout(f"{self.order.name} ran longer than its hard_timeout of {limit:g} s: {what}", self.order.id)
        return self._outcome("timeout", error=describe(late), retryable=self._retryable(late))

    def _is_own(self, end: TaskError) -> bool:
        """Whether it is the end of this task, and not of another one that this one waited for."""
        return end.task_id in ("", self.order.id)

    def _retryable(self, error: BaseException) -> bool:
        try:
            if self.unfit:
                return False
            return self.function is None or self.function.is_retryable(error)
        except Exception:  # an exception class with a broken __instancecheck__
            return True

    def _outcome(
        self,
        status: Outcome_,
        *,
        result: str | None = None,
        error: ErrorInfo | None = None,
        retryable: bool = True,
        after: float | None = None,
        hold: bool | None = None,
    ) -> Outcome:
        ran = time.monotonic() - self.ticking
        order = self.order
        return Outcome(order.id, order.attempt, status, self.started, ran, result, error, retryable, after, hold)


def run_blocking(execution: Execution, middleware: Sequence[Middleware] = ()) -> Outcome:
    """All steps in this thread: for functions that block, when no middleware suspends."""
    execution.begin()
    enter_task(execution.current)

    async def innermost(_: CurrentTask) -> Any:
        return call_blocking(execution, execution.resolve())

    try:
        function = execution.resolve()
        if middleware:
            value = _at_once(around_run(middleware, innermost)(execution.current))
        else:
            value = call_blocking(execution, function)
        return execution.succeeded(function, value)
    except BaseException as error:
        return execution.failed(error)
    finally:
        enter_task(None)


def _at_once(work: Awaitable[Any]) -> Any:
    """The result of a coroutine that never suspends, without an event loop."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as end:
        return end.value
    raise FastWorkerError("a middleware has suspended though it says `suspends = False`")


def call_blocking(execution: Execution, function: AnyTaskFunction) -> Any:
    """Decode and run in this thread."""
    args, kwargs = execution.decode(function.signature)
    value = function.function(*args, **kwargs)
    return _read_parts(execution, function, value) if function.yields else value


def _read_parts(execution: Execution, function: AnyTaskFunction, parts: Generator[Any, None, Any]) -> Any:
    """Pass on what a function yields; what it returns."""
    execution.current.open_stream()
    while True:
        try:
            part = next(parts)
        except StopIteration as end:
            return end.value
        execution.current.part(function.signature.encode_part(part))


async def _read_parts_async(execution: Execution, function: AnyTaskFunction, parts: AsyncIterator[Any]) -> None:
    execution.current.open_stream()
    async for part in parts:
        execution.current.part(function.signature.encode_part(part))
        if execution.current.waiting_parts % PARTS_IN_A_ROW == 0:
            await asyncio.sleep(0)  # one that never waits would keep the event loop from passing them on


async def run_async(execution: Execution, middleware: Sequence[Middleware], in_thread: Any) -> Outcome:
    """All steps in the event loop; a function that blocks is run by `in_thread` (an async callable)."""
    execution.begin()
    enter_task(execution.current)

    async def innermost(_: CurrentTask) -> Any:
        function = execution.resolve()
        if not function.is_async:
            return await in_thread(execution, function)
        args, kwargs = execution.decode(function.signature)
        work = function.function(*args, **kwargs)
        if function.yields:
            work = _read_parts_async(execution, function, work)
        return await _within(execution.order.timeout, execution, work)

    try:
        value = await around_run(middleware, innermost)(execution.current)
        return execution.succeeded(execution.resolve(), value)
    except BaseException as error:
        return execution.failed(error)


async def _within(timeout: float | None, execution: Execution, work: Any) -> Any:
    """Await the work for at most `timeout` seconds; the coroutine can catch the cancellation to clean up."""
    if timeout is None:
        return await work
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if limit.expired():
            raise TaskTimeout(f"{execution.order.name} ran longer than {timeout:g} s", execution.order.id) from error
        raise


def describe(error: BaseException) -> ErrorInfo:
    """An exception as text, whatever its methods do."""
    kind = type(error)
    try:
        message = str(error)
    except BaseException as broken:
        message = f"<its __str__ raised {type(broken).__name__}>"
    return ErrorInfo(
        f"{kind.__module__}.{kind.__qualname__}",
        _utf8(message)[:LONGEST_MESSAGE],
        _utf8(_traceback(error))[-LONGEST_TRACEBACK:],
        _place(error),
    )


def _utf8(text: str) -> str:
    """Text that can be encoded: lone surrogates are replaced."""
    return text.encode("utf-8", "replace").decode()


def _traceback(error: BaseException) -> str:
    """As Python prints it, without our own frames; nothing, if there are no others: then the message says it all."""
    try:
        formatted = traceback.TracebackException.from_exception(error, limit=-60, compact=True)
        theirs = [frame for frame in formatted.stack if not _is_ours(frame.filename)]
        if theirs:
            formatted.stack = traceback.StackSummary.from_list(theirs)
        elif formatted.__cause__ is None and formatted.__context__ is None:
            return ""
        return "".join(formatted.format())
    except BaseException as broken:
        return f"<the traceback can't be printed: {type(broken).__name__}>"


def _place(error: BaseException) -> str:
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    theirs = [frame for frame in frames if not _is_ours(frame.filename)]
    return f"{theirs[-1].filename}:{theirs[-1].lineno} in {theirs[-1].name}" if theirs else ""


def _is_ours(filename: str) -> bool:
    return filename in _OUR_FILES


_OUR_FILES: Final = (
    __file__,
    *(__file__.replace("executor.py", f) for f in ("pool.py", "slot.py")),
    around_run.__code__.co_filename,
)
