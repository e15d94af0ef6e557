"""Where attempts run: never more than the slots, the best first, coroutines and threads side by side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from fastworker import current_task
from fastworker.context import CurrentTask
from fastworker.errors import TaskTimeout
from fastworker.function import AnyTaskFunction, TaskFunction
from fastworker.middleware import Middleware, RunNext
from fastworker.protocol import Order, Outcome, Token
from fastworker_worker.executor import Execution
from fastworker_worker.pool import Pool
from tests.core.eventually import eventually, for_a_while
from tests.support.waiting import Promised


class Bench:
    """A pool, and what came out of it."""

    def __init__(self, slots: int, middleware: Sequence[Middleware] = ()) -> None:
        self.outcomes: list[Outcome] = []
        self.tasks: dict[Callable[..., Any], AnyTaskFunction] = {}
        self.calls = 0
        self.count = 0
        self.pool = Pool(slots, middleware, self._arrived)

    def _arrived(self, outcomes: Sequence[Outcome]) -> None:
        self.calls += 1
        self.outcomes.extend(outcomes)

    def add(self, function: Callable[..., Any] | None, rank: int = 2, **order: Any) -> str:
        """One more attempt, known by the number that is its id."""
        [task_id] = self.add_many([function], rank, **order)
        return task_id

    def add_many(self, functions: Sequence[Callable[..., Any] | None], rank: int = 2, **order: Any) -> list[str]:
        executions = []
        for function in functions:
            self.count += 1
            made = Order(str(self.count), 1, "work", "{}", rank, **order)
            executions.append(Execution(made, self._as_task(function), self.count))
        self.pool.add(executions)
        return [execution.order.id for execution in executions]

    def _as_task(self, function: Callable[..., Any] | None) -> AnyTaskFunction | None:
        if function is not None and function not in self.tasks:
            self.tasks[function] = TaskFunction(function, function.__name__)
        return None if function is None else self.tasks[function]

    async def ended(self, count: int = 1) -> list[Outcome]:
        """The outcomes, once there are so many."""
        await eventually(lambda: len(self.outcomes) >= count)
        return self.outcomes

    def status_of(self, task_id: str) -> str:
        return next((outcome.status for outcome in self.outcomes if outcome.id == task_id), "none yet")


class Gate:
    """Tasks wait at it until it opens; tells how many are there."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.inside = 0
        self.most = 0
        self.order: list[str] = []
        self._lock = threading.Lock()

    def _enter(self) -> None:
        with self._lock:
            self.order.append(current_task().id)
            self.inside += 1
            self.most = max(self.most, self.inside)

    def _leave(self) -> None:
        with self._lock:
            self.inside -= 1

    def blocking(self) -> None:
        self._enter()
        assert self.opened.wait(20)
        self._leave()

    async def coroutine(self) -> None:
        self._enter()
        while not self.opened.is_set():  # noqa: ASYNC110 - the event is of threads
            await asyncio.sleep(0.002)
        self._leave()


@pytest.fixture
async def benches() -> AsyncIterator[Callable[..., Bench]]:
    """Makes pools; in the end all their threads have ended."""
    made: list[Bench] = []

    def make(slots: int, middleware: Sequence[Middleware] = ()) -> Bench:
        made.append(Bench(slots, middleware))
        return made[-1]

    yield make
    for bench in made:
        bench.pool.close()
    await eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "fastworker-task"])


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


Benches = Callable[..., Bench]


def quick() -> str:
    return "done"


async def quick_async() -> str:
    return "done"


# ---- slots ---------------------------------------------------------------------------------------------------


async def test_blocking_functions_run_in_threads_and_coroutines_in_the_event_loop(benches: Benches) -> None:
    bench = benches(2)
    seen: dict[str, int] = {}

    def in_thread() -> None:
        seen["thread"] = threading.get_ident()

    async def in_loop() -> None:
        seen["loop"] = threading.get_ident()

    bench.add_many([in_thread, in_loop])
    await bench.ended(2)
    assert seen["loop"] == threading.get_ident() != seen["thread"]


@pytest.mark.parametrize("slots", [1, 3])
async def test_never_more_than_the_slots_run_whatever_they_are(slots: int, benches: Benches, gate: Gate) -> None:
    bench = benches(slots)
    bench.add_many([gate.blocking, gate.coroutine] * 10)
    await eventually(lambda: gate.inside == slots)
    assert bench.pool.waiting == 20 - slots
    assert len(bench.pool.held()) == 20
    gate.opened.set()
    outcomes = await bench.ended(20)
    assert gate.most == slots
    assert {outcome.status for outcome in outcomes} == {"succeeded"}
    assert bench.pool.held() == []
    assert bench.pool.waiting == 0


async def test_a_slot_is_free_again_however_an_attempt_ended(benches: Benches) -> None:
    bench = benches(1)

    def fails() -> None:
        raise ValueError

    async def fails_async() -> None:
        raise SystemExit

    bench.add_many([fails, fails_async, None, quick, quick_async] * 4)
    outcomes = await bench.ended(20)
    assert sorted(outcome.status for outcome in outcomes) == ["failed"] * 12 + ["succeeded"] * 8


async def test_short_tasks_stream_through_one_thread(benches: Benches) -> None:
    bench = benches(1)
    threads: set[int] = set()
    bench.add_many([lambda: threads.add(threading.get_ident())] * 500)
    await bench.ended(500)
    assert len(threads) == 1
    assert bench.calls < 500  # outcomes come many at a time


async def test_threads_are_used_again(benches: Benches) -> None:
    bench = benches(4)
    threads: set[int] = set()
    for n in range(50):
        bench.add(lambda: threads.add(threading.get_ident()))
        await bench.ended(n + 1)
    assert len(threads) <= 4


async def test_many_short_coroutines_do_not_starve_the_event_loop(benches: Benches) -> None:
    bench = benches(8)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while len(bench.outcomes) < 5_000:
            turns += 1
            await asyncio.sleep(0)

    bench.add_many([quick_async] * 5_000)
    await asyncio.wait_for(turn(), 60)
    assert turns > 3


# ---- priorities ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blocking", "coroutine"])
async def test_the_best_priority_in_the_backlog_runs_next_and_equal_ones_in_order(
    kind: str, benches: Benches, gate: Gate
) -> None:
    bench = benches(1)
    work = gate.blocking if kind == "blocking" else gate.coroutine
    first = bench.add(work, rank=3)
    await eventually(lambda: gate.inside == 1)
    low = [bench.add(work, rank=3) for _ in range(2)]
    normal = [bench.add(work, rank=2) for _ in range(2)]
    critical = [bench.add(work, rank=0) for _ in range(2)]
    gate.opened.set()
    await bench.ended(7)
    assert gate.order == [first, *critical, *normal, *low]


async def test_priorities_hold_between_coroutines_and_threads(benches: Benches, gate: Gate) -> None:
    bench = benches(1)
    first = bench.add(gate.blocking)
    await eventually(lambda: gate.inside == 1)
    low, high = bench.add(gate.blocking, rank=3), bench.add(gate.coroutine, rank=1)
    lowest, highest = bench.add(gate.coroutine, rank=3), bench.add(gate.blocking, rank=0)
    gate.opened.set()
    await bench.ended(5)
    assert gate.order == [first, highest, high, low, lowest]


# ---- time limits ---------------------------------------------------------------------------------------------


def busy() -> str:
    """Python code that can be interrupted, as long as nobody interrupts it."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        pass
    return "never interrupted"


async def test_a_thread_over_its_limit_is_interrupted(benches: Benches) -> None:
    bench = benches(1)
    bench.add(busy, timeout=0.05)
    [outcome] = await bench.ended()
    assert outcome.status == "timeout"
    assert outcome.ran < 10
    assert outcome.error is not None
    assert outcome.error.place.endswith(" in busy")


async def test_a_thread_can_catch_the_end_of_its_time(benches: Benches) -> None:
    bench = benches(1)

    def tidy() -> str:
        try:
            return busy()
        except TaskTimeout:
            return "cleaned up"

    bench.add(tidy, timeout=0.05)
    [outcome] = await bench.ended()
    assert (outcome.status, outcome.result) == ("succeeded", '"cleaned up"')


async def test_a_coroutine_can_catch_the_end_of_its_time(benches: Benches) -> None:
    bench = benches(1)
    cleaned: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            cleaned.append("up")
            raise

    bench.add(tidy, timeout=0.05)
    [outcome] = await bench.ended()
    assert outcome.status == "timeout"
    assert cleaned == ["up"]


async def test_the_limit_counts_from_the_start_and_not_from_the_backlog(benches: Benches, gate: Gate) -> None:
    bench = benches(1)
    bench.add(gate.blocking)
    await eventually(lambda: gate.inside)
    patient = bench.add(quick, timeout=0.02)
    await for_a_while(0.1)
    gate.opened.set()
    await bench.ended(2)
    assert bench.status_of(patient) == "succeeded"


async def test_only_the_attempt_that_is_late_is_interrupted(benches: Benches, gate: Gate) -> None:
    bench = benches(3)
    patient, late, unlimited = (
        bench.add(gate.blocking, timeout=60),
        bench.add(busy, timeout=0.05),
        bench.add(gate.blocking),
    )
    await eventually(lambda: bench.status_of(late) == "timeout")
    gate.opened.set()
    await bench.ended(3)
    assert bench.status_of(patient) == bench.status_of(unlimited) == "succeeded"


async def test_a_thread_that_cannot_be_stopped_is_given_up_and_its_slot_works_again(
    benches: Benches, gate: Gate, caplog: pytest.LogCaptureFixture, promised: Promised
) -> None:
    bench = benches(1)

    def deaf() -> None:
        while not gate.opened.is_set():
            try:
                time.sleep(0.01)
            except TaskTimeout:
                continue

    began = time.monotonic()
    stuck = bench.add(deaf, timeout=0.05, hard_timeout=0.2)
    [outcome] = await bench.ended()
    assert time.monotonic() - began < promised(0.7)
    assert outcome.error is not None
    assert (outcome.id, outcome.status) == (stuck, "timeout")
    assert "hard_timeout of 0.2 s: its thread could not be stopped and goes on beside" in outcome.error.message
    assert "test_pool.py" in caplog.text, "where it is stuck"
    bench.add(quick)
    await bench.ended(2)
    gate.opened.set()
    await eventually(lambda: "has ended by itself" in caplog.text)
    bench.add_many([quick, quick])
    assert [outcome.status for outcome in await bench.ended(4)][1:] == ["succeeded"] * 3


async def test_a_coroutine_that_swallows_its_cancellation_is_given_up_too(benches: Benches, gate: Gate) -> None:
    bench = benches(1)

    async def deaf() -> None:
        while not gate.opened.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    bench.add(deaf, timeout=0.05, hard_timeout=0.2)
    [outcome] = await bench.ended()
    assert outcome.status == "timeout"
    bench.add(quick_async)
    assert [outcome.status for outcome in await bench.ended(2)] == ["timeout", "succeeded"]
    gate.opened.set()
    await for_a_while(0.1)
    assert len(bench.outcomes) == 2


async def test_the_hard_limit_does_not_touch_what_ends_in_time(benches: Benches) -> None:
    bench = benches(2)
    bench.add_many([quick, quick_async], hard_timeout=0.05)
    await bench.ended(2)
    await for_a_while(0.15)
    assert [outcome.status for outcome in bench.outcomes] == ["succeeded"] * 2


async def test_a_task_in_a_thread_that_forks_is_told_once(benches: Benches) -> None:
    bench = benches(1)

    def fork() -> int:
        return os.fork()

    bench.add(fork)
    [outcome] = await bench.ended()
    child = int(outcome.result or 0)
    assert child > 0
    assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0


async def test_an_interrupt_never_hits_the_next_attempt_in_the_thread(benches: Benches) -> None:
    """Attempts that end in the very moment in which their time is over."""
    bench = benches(1)

    def just_in_time() -> None:
        ends = time.monotonic() + 0.03
        while time.monotonic() < ends:
            pass

    for _ in range(12):
        bench.add(just_in_time, timeout=0.03)
        bench.add(quick)
    outcomes = await bench.ended(24)
    assert {outcome.status for outcome in outcomes if int(outcome.id) % 2 == 0} == {"succeeded"}
    assert {outcome.status for outcome in outcomes} <= {"succeeded", "timeout"}


# ---- stop ----------------------------------------------------------------------------------------------------


async def test_what_waits_is_stopped_before_it_starts(benches: Benches, gate: Gate) -> None:
    bench = benches(1)
    running = bench.add(gate.blocking)
    await eventually(lambda: gate.inside)
    waiting = bench.add(gate.blocking)
    assert bench.pool.stop(Token(waiting, 1)) is False
    await eventually(lambda: bench.status_of(waiting) == "cancelled")
    gate.opened.set()
    await bench.ended(2)
    assert gate.order == [running]


async def test_a_coroutine_is_stopped_where_it_stands(benches: Benches, gate: Gate) -> None:
    bench = benches(1)
    running = bench.add(gate.coroutine)
    await eventually(lambda: gate.inside)
    assert bench.pool.stop(Token(running, 1)) is False
    await eventually(lambda: bench.status_of(running) == "cancelled")
    bench.add(quick)
    await bench.ended(2)


@pytest.mark.parametrize("middleware", [[], [Middleware()]], ids=["plain", "middleware"])
@pytest.mark.parametrize("function", [quick, quick_async])
async def test_what_is_stopped_in_the_turn_in_which_it_came_still_ends(
    function: Callable[..., Any], middleware: list[Middleware], benches: Benches
) -> None:
    bench = benches(1, middleware)
    for n in range(20):
        task_id = bench.add(function)
        bench.pool.stop(Token(task_id, 1))
        await bench.ended(n + 1)
        assert bench.status_of(task_id) in ("cancelled", "succeeded")
    bench.add(function)
    assert (await bench.ended(21))[-1].status == "succeeded"


async def test_a_thread_is_only_asked_and_may_go_on(benches: Benches) -> None:
    bench = benches(1)
    started = threading.Event()

    def polite() -> str:
        started.set()
        ends = time.monotonic() + 20
        while not current_task().cancelled and time.monotonic() < ends:
            time.sleep(0.002)
        return "stopped half way"

    task_id = bench.add(polite)
    await eventually(started.is_set)
    assert bench.pool.stop(Token(task_id, 1)) is True
    [outcome] = await bench.ended()
    assert (outcome.status, outcome.result) == ("succeeded", '"stopped half way"')


async def test_a_thread_under_middleware_is_only_asked_too(benches: Benches, gate: Gate) -> None:
    bench = benches(1, [Middleware()])
    task_id = bench.add(gate.blocking)
    await eventually(lambda: gate.inside)
    assert bench.pool.stop(Token(task_id, 1)) is True
    await for_a_while(0.05)
    assert bench.status_of(task_id) == "none yet"
    gate.opened.set()
    assert (await bench.ended())[0].status == "succeeded"


async def test_stopping_what_is_not_here_or_is_another_attempt_changes_nothing(benches: Benches, gate: Gate) -> None:
    bench = benches(1)
    task_id = bench.add(gate.coroutine)
    await eventually(lambda: gate.inside)
    assert bench.pool.stop(Token("nothing", 1)) is False
    assert bench.pool.stop(Token(task_id, 2)) is False
    gate.opened.set()
    assert (await bench.ended())[0].status == "succeeded"


async def test_everything_is_stopped_at_once(benches: Benches, gate: Gate) -> None:
    bench = benches(2)
    coroutine, thread = bench.add_many([gate.coroutine, gate.blocking])
    await eventually(lambda: gate.inside == 2)
    waiting = bench.add(gate.coroutine)
    bench.pool.cancel_all()
    await eventually(lambda: bench.status_of(coroutine) == bench.status_of(waiting) == "cancelled")
    assert bench.pool.held() == [Token(thread, 1)]
    gate.opened.set()
    await bench.ended(3)


# ---- giving back ---------------------------------------------------------------------------------------------


async def test_what_has_not_started_can_be_given_back(benches: Benches, gate: Gate) -> None:
    bench = benches(1)
    running = bench.add(gate.blocking)
    await eventually(lambda: gate.inside)
    waiting = bench.add_many([gate.blocking, gate.coroutine])
    assert {token.id for token in bench.pool.give_back()} == set(waiting)
    assert bench.pool.held() == [Token(running, 1)]
    assert bench.pool.give_back() == []
    gate.opened.set()
    await bench.ended(1)
    assert gate.order == [running]


async def test_only_what_has_been_waiting_for_long_is_given_back(benches: Benches, gate: Gate) -> None:
    bench = benches(1)
    bench.add(gate.blocking)
    assert bench.pool.give_back(older_than=0.0) == []
    waiting = bench.add(gate.blocking)
    assert bench.pool.give_back(older_than=60.0) == []
    assert await eventually(lambda: bench.pool.give_back(older_than=0.01)) == [Token(waiting, 1)]


@pytest.mark.parametrize("function", [quick, quick_async])
async def test_an_attempt_is_held_until_its_outcome_is_told(benches: Benches, function: Callable[[], Any]) -> None:
    """Whoever asks what is here must not miss what has just ended, nor find what was told already."""
    bench = benches(1)
    added = set()
    for _ in range(100):
        added.add(bench.add(function))
        held = {token.id for token in bench.pool.held()}
        assert held == added - {outcome.id for outcome in bench.outcomes}
    await bench.ended(100)
    assert bench.pool.held() == []


# ---- middleware ----------------------------------------------------------------------------------------------


class Story(Middleware):
    def __init__(self) -> None:
        self.told: list[str] = []
        self.threads: set[int] = set()

    async def run(self, task: CurrentTask, call_next: RunNext) -> Any:
        self.threads.add(threading.get_ident())
        self.told.append(f"{task.id} in")
        try:
            return await call_next(task)
        except Exception as error:
            self.told.append(f"{task.id} {type(error).__name__}")
            raise
        finally:
            self.told.append(f"{task.id} out")


async def test_middleware_runs_in_the_event_loop_round_threads_and_coroutines(benches: Benches) -> None:
    story = Story()
    bench = benches(2, [story])
    seen: set[int] = set()

    def where() -> str:
        seen.add(threading.get_ident())
        return current_task().id

    async def where_async() -> str:
        return current_task().id

    bench.add(where)
    await bench.ended(1)
    bench.add(where_async)
    outcomes = await bench.ended(2)
    assert [outcome.result for outcome in outcomes] == ['"1"', '"2"']
    assert story.told == ["1 in", "1 out", "2 in", "2 out"]
    assert story.threads == {threading.get_ident()}
    assert threading.get_ident() not in seen


async def test_under_middleware_slots_priorities_and_limits_hold_too(benches: Benches, gate: Gate) -> None:
    story = Story()
    bench = benches(1, [story])
    first = bench.add(gate.blocking)
    await eventually(lambda: gate.inside == 1)
    low, high = bench.add(gate.coroutine, rank=3), bench.add(gate.blocking, rank=0)
    gate.opened.set()
    await bench.ended(3)
    assert gate.order == [first, high, low]
    assert gate.most == 1
    late = bench.add(busy, timeout=0.05)
    await bench.ended(4)
    assert bench.status_of(late) == "timeout"
    assert f"{late} TaskTimeout" in story.told


@pytest.mark.parametrize("error", [StopIteration(1), SystemExit(2), KeyboardInterrupt(), ValueError("no")])
async def test_whatever_a_thread_raises_under_middleware_is_an_outcome(error: BaseException, benches: Benches) -> None:
    bench = benches(1, [Middleware()])

    def raises() -> None:
        raise error

    bench.add(raises)
    [outcome] = await bench.ended()
    assert outcome.status == "failed"
    bench.add(quick)
    assert (await bench.ended(2))[1].status == "succeeded"


# ---- the end -------------------------------------------------------------------------------------------------


def test_a_thread_that_outlives_its_event_loop_does_no_harm(gate: Gate) -> None:
    threads: list[threading.Thread] = []

    async def story() -> None:
        bench = Bench(1)
        bench.add(gate.blocking)
        await eventually(lambda: gate.inside)
        bench.pool.close()
        threads.extend(thread for thread in threading.enumerate() if thread.name == "fastworker-task")

    asyncio.run(story())
    gate.opened.set()
    for thread in threads:
        thread.join(10)
    assert threads
    assert not any(thread.is_alive() for thread in threads)
