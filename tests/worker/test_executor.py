"""One attempt as steps: nothing that a task does, raises or returns reaches the worker itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import pytest

from fastworker import Retry, current_task
from fastworker.context import CurrentTask
from fastworker.errors import FastWorkerError, InvalidArguments, TaskCancelled, TaskFailed, TaskTimeout
from fastworker.function import AnyTaskFunction, TaskFunction
from fastworker.middleware import Middleware, RunNext
from fastworker.protocol import MAX_PAYLOAD_BYTES, Frame, Order, Outcome, Outcomes, decode, encode
from fastworker_worker.executor import (
    LONGEST_MESSAGE,
    LONGEST_TRACEBACK,
    Execution,
    UnknownHere,
    call_blocking,
    describe,
    run_async,
    run_blocking,
)


def as_task(function: Callable[..., Any], **options: Any) -> AnyTaskFunction:
    return TaskFunction(function, function.__name__, **options)


def attempt(function: Callable[..., Any] | None, args: str = "{}", **order: Any) -> Execution:
    made = None if function is None else as_task(function)
    name = function.__name__ if function is not None else "unknown"
    return Execution(Order("id-1", 2, name, args, 2, **order), made, 1)


async def in_thread(execution: Execution, function: AnyTaskFunction) -> Any:
    return await asyncio.to_thread(call_blocking, execution, function)


def run(function: Callable[..., Any] | None, args: str = "{}", **order: Any) -> Outcome:
    """Run one attempt, the way that the function needs it."""
    execution = attempt(function, args, **order)
    if execution.blocks:
        return run_blocking(execution)
    return asyncio.run(run_async(execution, [], in_thread))


def travels(outcome: Outcome) -> Outcome:
    """The outcome as the control plane gets it."""
    [message] = decode(encode(Frame("s", 1, 0, [Outcomes(1, [outcome])]))).items
    assert isinstance(message, Outcomes)
    return message.items[0]


# ---- steps, one at a time ------------------------------------------------------------------------------------


def add(a: int, b: Decimal = Decimal(1)) -> Decimal:
    return a + b


async def add_async(a: int, b: Decimal = Decimal(1)) -> Decimal:
    return a + b


def test_the_function_is_resolved_or_unknown_here() -> None:
    execution = attempt(add)
    assert execution.resolve() is execution.function
    with pytest.raises(UnknownHere, match="this worker has no task 'unknown': was it renamed or removed"):
        attempt(None).resolve()


def test_arguments_are_decoded_as_the_annotated_types() -> None:
    execution = attempt(add, '{"a":1,"b":"2.5"}')
    assert execution.decode(execution.resolve().signature) == ([], {"a": 1, "b": Decimal("2.5")})
    with pytest.raises(InvalidArguments):
        attempt(add, '{"a":"x"}').decode(execution.resolve().signature)


def test_an_outcome_carries_the_token_and_the_times() -> None:
    execution = attempt(add)
    execution.begin()
    outcome = execution.succeeded(execution.resolve(), Decimal("2.50"))
    assert (outcome.id, outcome.attempt, outcome.status, outcome.result) == ("id-1", 2, "succeeded", '"2.50"')
    assert abs(outcome.started - time.time()) < 5
    assert 0 <= outcome.ran < 5


def test_what_never_started_was_cancelled() -> None:
    outcome = attempt(add).never_started()
    assert (outcome.status, outcome.result, outcome.error) == ("cancelled", None, None)
    assert outcome.ran < 5


def test_coroutine_functions_do_not_need_a_thread() -> None:
    assert attempt(add).blocks
    assert not attempt(add_async).blocks
    assert attempt(None).blocks


# ---- the whole way -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [add, add_async])
def test_a_task_succeeds(function: Callable[..., Any]) -> None:
    outcome = run(function, '{"a":1,"b":"2.5"}')
    assert (outcome.status, outcome.result, outcome.error) == ("succeeded", '"3.5"', None)


@pytest.mark.parametrize("function", [add, add_async])
def test_bad_arguments_fail_the_attempt_and_say_which(function: Callable[..., Any]) -> None:
    outcome = run(function, '{"a":"x"}')
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.type == "fastworker.errors.InvalidArguments"
    assert (outcome.error.traceback, outcome.error.place) == ("", ""), "the message says it all"
    assert "a: Input should be a valid integer" in outcome.error.message


def test_an_unknown_task_fails_visibly_and_may_be_tried_elsewhere() -> None:
    outcome = run(None)
    assert (outcome.status, outcome.retryable) == ("failed", True)
    assert outcome.error is not None
    assert outcome.error.message.startswith("this worker has no task 'unknown'")


def explode() -> None:
    inner()


async def explode_async() -> None:
    inner()


def inner() -> None:
    raise ValueError("no luck")


@pytest.mark.parametrize("function", [explode, explode_async])
def test_a_failure_shows_the_tasks_own_frames_and_none_of_ours(function: Callable[..., Any]) -> None:
    error = run(function).error
    assert error is not None
    assert (error.type, error.message) == ("builtins.ValueError", "no luck")
    frames = [line.strip() for line in error.traceback.splitlines() if line.startswith("  File")]
    assert [line.rpartition(" in ")[2] for line in frames] == [function.__name__, "inner"]
    assert error.traceback.endswith("ValueError: no luck\n")
    assert error.place.startswith(__file__)
    assert error.place.endswith(" in inner")


async def test_middleware_leaves_no_frames_in_a_traceback_either() -> None:
    execution = attempt(explode_async)
    outcome = await run_async(execution, [Middleware()], in_thread)
    assert outcome.error is not None
    assert "fastworker_worker" not in outcome.error.traceback
    assert "middleware.py" not in outcome.error.traceback


def test_a_cause_is_part_of_the_traceback() -> None:
    def caused() -> None:
        try:
            inner()
        except ValueError as error:
            raise RuntimeError("outer") from error

    error = run(caused).error
    assert error is not None
    assert "ValueError: no luck" in error.traceback
    assert "The above exception was the direct cause" in error.traceback


# ---- exceptions of every kind --------------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")

    __repr__ = __str__


class Suicidal(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Unpicklable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("needs two")
        self.handle = open  # and holds what can't be copied

    def __reduce__(self) -> Any:
        raise TypeError("never")


class HalfACharacter(Exception):
    def __str__(self) -> str:
        return "caf\udce9"


class Endless(Exception):
    def __str__(self) -> str:
        return "x" * 1_000_000


class NotText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Unprintable(), "<its __str__ raised RuntimeError>"),
        (Suicidal(), "<its __str__ raised SystemExit>"),
        (Unpicklable(1, 2), "needs two"),
        (HalfACharacter(), "caf?"),
        (Endless(), "x" * LONGEST_MESSAGE),
        (NotText(), "<its __str__ raised TypeError>"),
        (SystemExit(2), "2"),
        (KeyboardInterrupt(), ""),
        (GeneratorExit(), ""),
        (StopIteration(5), "5"),
        (StopAsyncIteration(), ""),
        (ExceptionGroup("many", [ValueError("a"), Unprintable()]), "many (2 sub-exceptions)"),
        (BaseExceptionGroup("all", [SystemExit(1)]), "all (1 sub-exception)"),
        (RecursionError("deep"), "deep"),
        (MemoryError(), ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_is_raised_is_told_and_nothing_else_happens(error: BaseException, message: str) -> None:
    def raises() -> None:
        raise error

    async def raises_async() -> None:
        raise error

    outcome = run(raises)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.message == message
    assert len(outcome.error.traceback) <= LONGEST_TRACEBACK
    assert travels(outcome) == outcome
    if not isinstance(error, StopIteration | StopAsyncIteration | GeneratorExit):  # Python's own rules for coroutines
        outcome = run(raises_async)
        assert outcome.status == "failed"
        assert outcome.error is not None
        assert outcome.error.message == message


def test_endless_recursion_is_cut_short() -> None:
    def deeper(n: int = 0) -> int:
        return deeper(n + 1)

    outcome = run(deeper)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.type == "builtins.RecursionError"
    assert len(outcome.error.traceback) <= LONGEST_TRACEBACK


def test_an_exception_class_that_breaks_isinstance_is_survived() -> None:
    class Broken(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            raise RuntimeError("broken")

    class Picky(Exception, metaclass=Broken): ...

    execution = Execution(Order("id-1", 1, "explode", "{}", 2), as_task(explode, retry_on=(Picky,)), 1)
    outcome = run_blocking(execution)
    assert (outcome.status, outcome.retryable) == ("failed", True)


def test_describing_needs_no_traceback() -> None:
    info = describe(ValueError("never raised"))
    assert (info.type, info.message, info.place) == ("builtins.ValueError", "never raised", "")


# ---- results that can't travel -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (object(), "NotSerializable"),
        ({1: object()}, "NotSerializable"),
        ("\ud800", "NotSerializable"),
        ("x" * MAX_PAYLOAD_BYTES, "PayloadTooLarge"),
    ],
    ids=["object", "nested", "surrogate", "large"],
)
def test_a_result_that_cannot_travel_fails_the_attempt_and_says_why(value: Any, error: str) -> None:
    def work() -> Any:
        return value

    async def work_async() -> Any:
        return value

    for function in (work, work_async):
        outcome = run(function)
        assert (outcome.status, outcome.result) == ("failed", None)
        assert outcome.error is not None
        assert outcome.error.type == f"fastworker.errors.{error}"
        assert outcome.error.message.startswith(f"the result of {function.__name__}")


# ---- ends that are no failures -------------------------------------------------------------------------------


def test_a_task_asks_to_be_run_again() -> None:
    def again() -> None:
        raise Retry(after=2.5)

    async def again_async() -> None:
        raise Retry

    outcome = run(again)
    assert (outcome.status, outcome.after, outcome.error) == ("retry", 2.5, None)
    outcome = run(again_async)
    assert (outcome.status, outcome.after) == ("retry", 0.0)


def test_a_task_that_notices_its_cancellation_may_say_so() -> None:
    def polite() -> None:
        raise TaskCancelled

    assert run(polite).status == "cancelled"


async def test_a_coroutine_that_was_stopped_was_cancelled() -> None:
    started = asyncio.Event()

    async def waits() -> None:
        started.set()
        await asyncio.Event().wait()

    execution = attempt(waits)
    running = asyncio.ensure_future(run_async(execution, [], in_thread))
    await started.wait()
    execution.stopping = True
    running.cancel()
    assert (await running).status == "cancelled"


def test_a_cancellation_that_nobody_asked_for_is_a_failure() -> None:
    """The task awaited something that was cancelled; the task itself was not."""

    async def careless() -> None:
        inside = asyncio.ensure_future(asyncio.sleep(60))
        inside.cancel()
        await inside

    outcome = run(careless)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.type == "asyncio.exceptions.CancelledError"


@pytest.mark.parametrize(
    "end", [TaskCancelled("child", "id-2"), TaskTimeout("child", "id-2"), TaskFailed("child", "id-2")]
)
def test_how_another_task_ended_is_not_how_this_one_ends(end: Exception) -> None:
    """`await child` raises the child's end; the parent has failed."""

    async def parent() -> None:
        raise end

    outcome = run(parent)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.message == "child"


# ---- time limits of coroutines -------------------------------------------------------------------------------


def test_a_coroutine_over_its_limit_is_interrupted() -> None:
    async def slow() -> None:
        await asyncio.sleep(60)

    outcome = run(slow, timeout=0.02)
    assert outcome.status == "timeout"
    assert outcome.error is not None
    assert outcome.error.message == "slow ran longer than 0.02 s"
    assert outcome.error.type == "fastworker.errors.TaskTimeout"


def test_a_coroutine_can_clean_up_or_even_answer_when_its_time_is_over() -> None:
    async def tidy() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "half of it"
        return "all of it"

    outcome = run(tidy, timeout=0.02)
    assert outcome.status in ("succeeded", "timeout")
    assert outcome.status == "timeout" or json.loads(outcome.result or "") == "half of it"


def test_a_timeout_of_the_tasks_own_is_an_ordinary_failure() -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    outcome = run(impatient, timeout=30.0)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.type == "builtins.TimeoutError"


# ---- the task that runs here ---------------------------------------------------------------------------------


def test_a_task_knows_which_task_it_is() -> None:
    def who() -> Any:
        task = current_task()
        return [task.id, task.name, task.attempt, task.headers, task.cancelled]

    async def who_async() -> Any:
        await asyncio.sleep(0)
        return who()

    headers = {"traceparent": "00"}
    assert json.loads(run(who, headers=headers).result or "") == ["id-1", "who", 2, headers, False]
    assert json.loads(run(who_async, headers=headers).result or "") == ["id-1", "who_async", 2, headers, False]


def test_outside_of_a_task_there_is_none() -> None:
    run(add, '{"a":1}')
    with pytest.raises(FastWorkerError, match="no task runs here"):
        current_task()


def test_what_a_task_says_is_noted_once() -> None:
    told: list[CurrentTask] = []
    task = CurrentTask("id-1", "add", 1, on_note=told.append)
    assert task.take_note() is None
    task.progress(7.5, "far")
    task.progress(float("nan"))
    task.progress(-1, "back")
    task.log("one")
    task.log(2)  # type: ignore[arg-type]
    note = task.take_note()
    assert note is not None
    assert (note.id, note.attempt, note.progress, note.log) == ("id-1", 1, (0.0, "back"), ["one", "2"])
    assert task.take_note() is None
    assert set(told) == {task}


def test_a_talkative_task_is_cut_short() -> None:
    task = CurrentTask("id-1", "add", 1)
    for n in range(1_000):
        task.log(f"{n} " + "x" * 10_000)
    task.progress(0.5, "y" * 10_000)
    note = task.take_note()
    assert note is not None
    assert note.progress is not None
    assert (len(note.log), len(note.log[1]), len(note.progress[1])) == (200, 2000, 2000)
    assert note.log[-1].startswith("999 ")
    assert note.log[0] == "… 801 lines left out"


def test_progress_in_both_forms() -> None:
    task = CurrentTask("id-1", "add", 1)
    said = []
    forms: list[Any] = [(3, 10, "resizing"), (0.3, "resizing"), (0.5,), (12, 10), (1, 0), (-1, 5, "back")]
    for words in forms:
        task.progress(*words)
        note = task.take_note()
        assert note is not None
        said.append(note.progress)
    assert said == [(0.3, "resizing"), (0.3, "resizing"), (0.5, ""), (1.0, ""), (1.0, ""), (0.0, "back")]


def test_printed_lines_are_whole_lines() -> None:
    task = CurrentTask("id-1", "add", 1)
    for text in ("one", " line", "\n", "two\nthree\nfo", "ur"):
        task.printed(text)
    note = task.take_note()
    assert note is not None
    assert note.log == ["one line", "two", "three"]


def test_parts_that_nobody_takes_are_bounded_and_counted() -> None:
    task = CurrentTask("id-1", "add", 1)
    task.open_stream()
    for number in range(10_050):
        task.part(str(number))
    note = task.take_note()
    assert note is not None
    assert (note.first, note.parts[0]) == (50, "50")


# ---- middleware ----------------------------------------------------------------------------------------------


class Shout(Middleware):
    async def run(self, task: CurrentTask, call_next: RunNext) -> Any:
        return str(await call_next(task)).upper()


class Refuse(Middleware):
    async def run(self, task: CurrentTask, call_next: RunNext) -> Any:
        raise PermissionError("not today")


@pytest.mark.parametrize("kind", ["blocking", "coroutine"])
async def test_middleware_goes_round_both_kinds_of_functions(kind: str) -> None:
    def say() -> str:
        return "hello"

    async def say_async() -> str:
        return "hello"

    function = say if kind == "blocking" else say_async
    outcome = await run_async(attempt(function), [Shout()], in_thread)
    assert outcome.result == '"HELLO"'
    outcome = await run_async(attempt(function), [Refuse()], in_thread)
    assert outcome.error is not None
    assert (outcome.status, outcome.error.message) == ("failed", "not today")


async def test_an_unknown_task_and_bad_arguments_are_seen_by_middleware() -> None:
    seen: list[str] = []

    class Watch(Middleware):
        async def run(self, task: CurrentTask, call_next: RunNext) -> Any:
            try:
                return await call_next(task)
            except Exception as error:
                seen.append(type(error).__name__)
                raise

    ways: list[Awaitable[Outcome]] = [
        run_async(attempt(None), [Watch()], in_thread),
        run_async(attempt(add, '{"a":"x"}'), [Watch()], in_thread),
    ]
    assert [(await way).status for way in ways] == ["failed", "failed"]
    assert seen == ["UnknownHere", "InvalidArguments"]
