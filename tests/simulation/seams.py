"""Where the simulation takes the place of the real edges. The only file that patches the library."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

from fastworker.lifecycle import Move
from fastworker.protocol import Hello, Order, Submission, Token
from fastworker.tasks import Priority, Task
from fastworker_server.engine import Engine
from fastworker_server.queue import Patience
from fastworker_server.turns import Turns
from fastworker_server.workers import WorkerPlace, WorkerRecord
from tests.simulation.disk import SimExecutor
from tests.simulation.network import SimDialer, SimListener
from tests.simulation.pool import SimPool
from tests.simulation.world import VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.checker import Checker
    from tests.simulation.simulation import Simulation


SMALL: dict[str, Any] = {
    "fastworker_server.queue.REMEMBERED": 30,
    "fastworker_server.limits._SWEEP_FROM": 2,
    "fastworker_server.lanes._SWEEP_FROM": 8,
    "fastworker_server.locks._SWEEP_FROM": 2,
    "fastworker_server.turns._SWEEP_FROM": 3,
}
"""Sizes from which on tables are swept, and how many ended tasks are remembered."""


class SimClock:
    """Stands for `fastworker_server.clock.Clock`: the virtual time."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def now(self) -> float:
        """The one clock of the control plane; it never jumps."""
        return self._simulation.world.now

    def wall(self) -> float:
        """What somebody may set at will; the control plane must not look at it."""
        return self._simulation.world.now + self._simulation.wall_clock_is_off


class WatchedTurns(Turns):
    """The real turns; the judge has to know when keys are forgotten, for the others' numbers move on with that."""

    def __init__(self, checker: Checker) -> None:
        super().__init__()
        self._checker = checker

    def sweep(self, rank: int, served: int) -> None:
        super().sweep(rank, served)
        self._checker.turns.swept(rank)


class WatchedEngine(Engine):
    """The real engine; the checker sees each of its decisions."""

    def __init__(self, patience: Patience, random: Random, next_seq: int, checker: Checker) -> None:
        super().__init__(patience, random, next_seq)
        self._checker = checker
        self.lanes._turns = WatchedTurns(checker)

    def dispatch(self, now: float) -> Iterable[tuple[WorkerRecord, Order]]:
        yield from super().dispatch(now)
        self._checker.dispatched(self, now)

    def _start(self, task: Task, worker: WorkerRecord, estimate: float | None, now: float) -> Order:
        self._checker.starts(self, task, worker, now)
        return super()._start(task, worker, estimate, now)

    def _move(self, task: Task, what: Move, now: float) -> None:
        before = task.state
        super()._move(task, what, now)
        self._checker.moved(task, what, before, now)

    def _lose(self, task: Task, now: float) -> None:
        self._checker.gives_up(self, task, now)
        before = (task.failures, task.crashes)
        super()._lose(task, now)
        self._checker.lost_one(task, before, self.patience.max_crashes)

    def _start_as_found(self, task: Task, worker: WorkerRecord, now: float) -> None:
        self._checker.adopting = True
        super()._start_as_found(task, worker, now)
        self._checker.adopting = False

    def join(self, hello: Hello, now: float) -> tuple[WorkerRecord, list[Token]]:
        self._checker.learned(definition.name for definition in hello.definitions)
        return super().join(hello, now)

    def requeue(self, task: Task, now: float, args: str | None = None) -> None:
        self._checker.changed_args(task.id, args)
        super().requeue(task, now, args)
        self._checker.graphs.revived()

    def _begin_again(self, task: Task, now: float) -> None:
        self._checker.graphs.revives(task.id, self.ended)
        super()._begin_again(task, now)

    def reprioritise(self, task_id: str, priority: Priority, now: float) -> bool | None:
        task = self.tasks.get(task_id)
        if task is not None:
            self._checker.reprioritised(task, priority.rank)
        return super().reprioritise(task_id, priority, now)

    def duplicates(self, submissions: Iterable[Submission], now: float) -> dict[str, str]:
        found = super().duplicates(submissions, now)
        self._checker.locks.turned_away(found, now)
        return found

    def cancel_workflow(self, workflow: str, now: float) -> int:
        members = self._checker.members(workflow)
        count = super().cancel_workflow(workflow, now)
        self._checker.workflow_cancelled(self, members, count)
        return count

    def recover(self, tasks: Iterable[Task], workers: Iterable[WorkerPlace], now: float) -> None:
        found = list(tasks)
        self._checker.recovered(found)
        super().recover(found, workers, now)
        for task in found:
            self._checker.turns.queue_again(task)
        if self.recovering_until is None:
            self._checker.recovery_ended(self, now)

    def _end_recovery(self, now: float) -> None:
        if self.recovering_until is not None and self.tasks:
            self._checker.recovery_ended(self, now)
        super()._end_recovery(now)


class SimTime:
    """Stands for the module `time` where a store is opened."""

    def __init__(self, simulation: Simulation) -> None:
        self.time = SimClock(simulation).now


class _Complaints(logging.Handler):
    """What the library logs as an error is a violation, too."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(logging.ERROR)
        self._simulation = simulation

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None or record.name == "fastworker.connection":
            error = f": {record.exc_info[1]!r}" if record.exc_info else ""
            self._simulation.checker.fail(f"logged: {record.getMessage()}{error}")


@contextmanager
def seams(simulation: Simulation) -> Iterator[None]:
    """Put the simulation in the place of the edges."""
    network, disk = simulation.network, simulation.disk

    def engine(patience: Patience, random: Random, next_seq: int) -> Engine:
        seeded = Random(f"{simulation.seed}/engine/{simulation.server.name}")
        return WatchedEngine(patience, seeded, next_seq, simulation.checker)

    def running() -> VirtualLoop:
        return cast(VirtualLoop, asyncio.get_running_loop())

    stand_ins: dict[str, Any] = {
        "fastworker.connection.Dialer": lambda loop: SimDialer(network, loop),
        "fastworker_worker.worker.Pool": SimPool,
        "fastworker_server.control_plane.Listener": lambda loop: SimListener(network, loop.process),
        "fastworker_server.control_plane.Clock": lambda: SimClock(simulation),
        "fastworker_server.control_plane.Engine": engine,
        "fastworker_server.control_plane._may_live": simulation.may_live,
        "fastworker_server.storage.sqlite.ThreadPoolExecutor": lambda *_: SimExecutor(disk, running().process),
        "fastworker_server.storage.sqlite._connect": disk.connect,
        "fastworker_server.storage.recovery.time": SimTime(simulation),
    }
    if simulation.plan.small:
        stand_ins |= SMALL
    logger, handler = logging.getLogger("fastworker"), _Complaints(simulation)
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    logger.addHandler(handler)
    with ExitStack() as stack:
        for target, stand_in in stand_ins.items():
            stack.enter_context(patch(target, stand_in))
        yield
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = propagate
