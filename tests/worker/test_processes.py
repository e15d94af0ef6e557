"""Process slots: whatever a task does to its process costs that attempt, and nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import psutil
import pytest

from fastworker.errors import ConfigurationError, TaskDefinitionError
from fastworker.function import AnyTaskFunction, Registry, TaskFunction, task
from fastworker.protocol import Order, Outcome, Token
from fastworker_worker.executor import Execution
from fastworker_worker.pool import Pool
from fastworker_worker.processes import Recycle, check_importable
from tests.core.eventually import eventually
from tests.worker import process_tasks as made


class Bench:
    """A pool, and what came out of it."""

    def __init__(self, slots: int, recycle: Recycle) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.at: dict[str, float] = {}
        self.executions: dict[str, Execution] = {}
        self.pool = Pool(slots, (), self._arrived, recycle)
        self.pool.load([made.__name__])

    def _arrived(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            assert outcome.id not in self.outcomes
            self.outcomes[outcome.id] = outcome
            self.at[outcome.id] = time.monotonic()

    def add(self, function: AnyTaskFunction, *args: Any, **order: Any) -> str:
        task_id = str(len(self.executions) + 1)
        execution = Execution(Order(task_id, 1, function.name, json.dumps(args), 2, **order), function, int(task_id))
        self.executions[task_id] = execution
        self.pool.add([execution])
        return task_id

    async def outcome(self, task_id: str) -> Outcome:
        await eventually(lambda: task_id in self.outcomes, 30)
        return self.outcomes[task_id]

    async def run(self, function: AnyTaskFunction, *args: Any, **order: Any) -> Outcome:
        return await self.outcome(self.add(function, *args, **order))

    async def begun(self, task_id: str) -> None:
        """Wait until its process has taken it up."""
        slots = self.pool.processes
        await eventually(lambda: (s := slots._by_execution.get(self.executions[task_id])) is not None and s.began, 30)


@pytest.fixture
async def benches() -> AsyncIterator[Callable[..., Bench]]:
    """Makes pools; in the end all their processes have ended."""
    benches: list[Bench] = []

    def make(slots: int = 2, recycle: Recycle = Recycle()) -> Bench:  # noqa: B008
        benches.append(Bench(slots, recycle))
        return benches[-1]

    yield make
    pids = [pid for bench in benches for pid in bench.pool.processes.pids()]
    for bench in benches:
        bench.pool.close()
        await bench.pool.ended()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


Benches = Callable[..., Bench]


async def test_a_task_runs_in_another_process_that_stays_warm(benches: Benches) -> None:
    bench = benches(1)
    assert (await bench.run(made.process_add, 2, 3)).result == "5"
    where = {(await bench.run(made.process_where)).result for _ in range(5)}
    assert len(where) == 1
    assert where != {str(os.getpid())}


async def test_what_a_worker_holds_in_memory_includes_its_process_slots(benches: Benches) -> None:
    bench = benches(2)
    assert bench.pool.processes.all_memory() in (0, resident_of(bench))
    await asyncio.gather(*(bench.run(made.process_async, 0.2) for _ in range(2)))
    assert bench.pool.processes.all_memory() == pytest.approx(resident_of(bench), rel=0.1)
    assert len(bench.pool.processes.pids()) == 2


def resident_of(bench: Bench) -> int:
    """As another library reads it."""
    return sum(psutil.Process(pid).memory_info().rss for pid in bench.pool.processes.pids())


async def test_a_coroutine_runs_there_too_with_its_timeout(benches: Benches) -> None:
    bench = benches(1)
    assert (await bench.run(made.process_async, 0.0)).status == "succeeded"
    assert (await bench.run(made.process_async, 20.0, timeout=0.1)).status == "timeout"


async def test_what_it_raises_is_an_ordinary_failure(benches: Benches) -> None:
    bench = benches(1)
    outcome = await bench.run(made.process_raise)
    assert outcome.error is not None
    assert (outcome.status, outcome.error.type) == ("failed", "builtins.LookupError")
    assert "process_tasks.py" in outcome.error.place
    assert "slot.py" not in outcome.error.traceback
    assert (await bench.run(made.process_exit)).status == "failed"


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("SIGSEGV", "SIGSEGV (Segmentation fault)"),
        ("SIGKILL", "SIGKILL (from outside"),
        ("SIGABRT", "SIGABRT (Aborted)"),
        ("SIGTERM", "SIGTERM (Terminated)"),
        ("os._exit", "exit code 3"),
    ],
)
async def test_a_process_that_dies_fails_its_attempt_and_says_of_what(how: str, named: str, benches: Benches) -> None:
    bench = benches(1)
    outcome = await bench.run(made.process_die, how)
    assert outcome.error is not None
    assert (outcome.status, outcome.retryable) == ("crashed", True)
    assert named in outcome.error.message
    if how in ("SIGSEGV", "SIGABRT"):
        assert "process_die" in outcome.error.traceback, "Python's own last words are kept"
    assert (await bench.run(made.process_add, 2, 3)).result == "5"


async def test_others_do_not_notice_a_crash(benches: Benches) -> None:
    bench = benches(2)
    long = bench.add(made.process_nap, 1.0)
    await bench.begun(long)
    assert (await bench.run(made.process_die, "SIGSEGV")).status == "crashed"
    assert (await bench.outcome(long)).status == "succeeded"


async def test_too_much_memory_ends_the_attempt_and_says_how_much(benches: Benches) -> None:
    bench = benches(1)
    assert (await bench.run(made.process_eat, 1, 0.0)).status == "succeeded"
    outcome = await bench.run(made.process_eat, 400)
    assert outcome.error is not None
    assert outcome.status == "crashed"
    assert "SIGKILL" in outcome.error.message
    assert "over its memory_limit of 200 MB" in outcome.error.message


async def test_an_attempt_that_its_process_never_took_up_runs_elsewhere(benches: Benches) -> None:
    """The process dies between two tasks, with the second already on its way: it must not pay for the first."""
    bench = benches(1)
    first = (await bench.run(made.process_where)).result
    os.kill(int(first or 0), signal.SIGSTOP)
    task_id = bench.add(made.process_where)
    await asyncio.sleep(0.05)
    os.kill(int(first or 0), signal.SIGKILL)
    outcome = await bench.outcome(task_id)
    assert outcome.status == "succeeded"
    assert outcome.result != first


async def test_the_soft_limit_can_be_caught_even_in_a_call_that_waits(benches: Benches) -> None:
    bench = benches(1)
    assert (await bench.run(made.process_clean_up, timeout=0.2)).result == '"cleaned up"'
    outcome = await bench.run(made.process_nap, 20.0, timeout=0.2)
    assert outcome.status == "timeout"
    assert outcome.ran < 5


async def test_the_hard_limit_kills_soon_and_the_slot_works_again(benches: Benches) -> None:
    bench = benches(1)
    await bench.run(made.process_noop)
    outcome = await bench.run(made.process_deaf, 20.0, timeout=0.1, hard_timeout=0.4)
    assert outcome.error is not None
    assert outcome.status == "timeout"
    assert "hard_timeout of 0.4 s: its process was killed" in outcome.error.message
    assert outcome.ran < 0.9
    assert (await bench.run(made.process_noop)).status == "succeeded"


async def test_the_time_counts_from_the_start_of_the_task_and_not_of_its_process(benches: Benches) -> None:
    bench = benches(1)
    assert (await bench.run(made.process_nap, 0.05, hard_timeout=0.3)).status == "succeeded"


async def test_a_cancelled_attempt_is_killed(benches: Benches) -> None:
    bench = benches(1)
    task_id = bench.add(made.process_nap, 20.0)
    await bench.begun(task_id)
    assert not bench.pool.stop(Token(task_id, 1)), "it need not be asked"
    assert (await bench.outcome(task_id)).status == "killed"


async def test_a_stop_that_comes_as_the_attempt_ends_tells_what_really_happened(benches: Benches) -> None:
    bench = benches(2)
    await bench.run(made.process_noop)
    statuses = set()
    for _ in range(30):
        task_id = bench.add(made.process_noop)
        await asyncio.sleep(0.0005)
        bench.pool.stop(Token(task_id, 1))
        statuses.add((await bench.outcome(task_id)).status)
    assert statuses <= {"succeeded", "killed"}


async def test_a_task_that_forks_is_told_once(benches: Benches) -> None:
    bench = benches(1)
    assert (await bench.run(made.process_fork)).result == '"parent"'
    assert (await bench.run(made.process_add, 1, 1)).result == "2"


async def test_what_it_says_arrives_while_it_runs(benches: Benches) -> None:
    bench = benches(1)
    task_id = bench.add(made.process_talk)
    note = await eventually(bench.executions[task_id].current.take_note, 30)
    assert note is not None
    assert (note.progress, note.log) == ((0.5, "half"), ["a line"])
    bench.pool.stop(Token(task_id, 1))
    await bench.outcome(task_id)


async def test_large_arguments_and_results_come_through(benches: Benches) -> None:
    bench = benches(1)
    outcome = await bench.run(made.process_large, 3_000_000)
    assert len(outcome.result or "") == 6_000_002


async def test_a_process_is_replaced_after_so_many_tasks(benches: Benches) -> None:
    bench = benches(1, Recycle(after_tasks=2))
    where = [(await bench.run(made.process_where)).result for _ in range(6)]
    assert len(set(where)) == 3


async def test_a_process_that_grows_is_replaced_and_the_task_named(
    benches: Benches, caplog: pytest.LogCaptureFixture
) -> None:
    bench = benches(1, Recycle(above_bytes=150 * 1024 * 1024))
    first = await bench.run(made.process_where)
    with caplog.at_level(logging.WARNING):
        assert (await bench.run(made.process_grow, 200)).result == first.result
    assert "came with task process_grow 2" in caplog.text
    assert (await bench.run(made.process_where)).result != first.result


async def test_a_process_ends_with_its_worker(benches: Benches) -> None:
    bench = benches(1)
    await bench.run(made.process_noop)
    pids = bench.pool.processes.pids()
    assert pids
    bench.pool.close()
    await eventually(lambda: not [pid for pid in pids if psutil.pid_exists(pid)])


def test_a_function_inside_another_is_refused_where_it_is_written() -> None:
    with pytest.raises(TaskDefinitionError, match="is defined inside test_a_function_inside"):

        @task(run_in="process")
        def nested() -> None:
            """Can't be imported."""


def test_a_function_of_main_is_refused_by_the_worker() -> None:
    functions = Registry()
    function: AnyTaskFunction = TaskFunction(lambda: None, "scripted", run_in="process")  # type: ignore[misc]
    function.function.__module__ = "__main__"
    functions.add(function)
    with pytest.raises(TaskDefinitionError, match="__main__ can't be imported: move it to a module"):
        check_importable(functions)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"run_in": "thread"}, "use 'process'"),
        ({"memory_limit": "1 GB"}, "needs run_in='process'"),
        ({"run_in": "process", "memory_limit": "lots"}, "no size of memory"),
        ({"run_in": "process", "memory_limit": 0}, "no size of memory"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        task(**options)(made.process_noop.function)
