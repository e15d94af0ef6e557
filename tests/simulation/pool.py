"""Simulated runs: what a task does, and for how long, follows from its name, its id and its attempt."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, cast

from fastworker.limits import RateLimit, TaskLimits
from fastworker.middleware import Middleware
from fastworker.protocol import Order, Outcome, Token
from fastworker.tasks import Backoff, Definition, ErrorInfo, Options, Priority
from fastworker_worker.executor import Execution as Job
from tests.simulation.ledger import Execution
from tests.simulation.world import Process, VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

DEFINITIONS = {
    "quick": Definition("quick"),
    "long": Definition("long"),
    "flaky": Definition("flaky", Options(retries=2)),
    "polite": Definition("polite"),
    "stuck": Definition("stuck", Options(timeout=1.0, retries=1)),
    "once": Definition("once", Options(acks="early")),
    "killer": Definition("killer"),
    "rated": Definition("rated", Options(retries=1), limits=TaskLimits((RateLimit(4, 1.0), RateLimit(12, 5.0)))),
    "narrow": Definition("narrow", limits=TaskLimits(max_concurrency=2)),
    "keyed": Definition("keyed", Options(retries=1), limits=TaskLimits((RateLimit(3, 1.0),), max_concurrency=1)),
    "fair": Definition("fair"),
    "posted": Definition("posted", Options(queue="mail", priority=Priority.HIGH)),
    "step": Definition("step", Options(retries=1, backoff=Backoff("constant", 0.5))),
}
CHANCE_TO_FAIL = {"flaky": 0.5, "step": 0.2, "rated": 0.1, "keyed": 0.1}
CHANCE_TO_SNOOZE = {"polite": 0.4, "rated": 0.1, "keyed": 0.1}
HOLDING = ("rated", "keyed")
"""When they snooze, they ask that none like them starts meanwhile."""
RUN_TIMES = {
    "quick": (0.0005, 0.005),
    "long": (0.5, 9.0),
    "stuck": (0.2, 3.0),
    "once": (0.01, 4.0),
    "step": (0.001, 0.2),
}
USUAL = (0.005, 0.4)


class SimPool:
    """Stands for `fastworker_worker.pool.Pool`."""

    def __init__(
        self,
        slots: int,
        middleware: Sequence[Middleware],
        on_outcomes: Callable[[Sequence[Outcome]], None],
        recycle: object = None,
    ) -> None:
        self._loop = cast(VirtualLoop, asyncio.get_running_loop())
        self._process: Process = self._loop.process
        self._simulation: Simulation = self._process.simulation  # type: ignore[attr-defined]
        self._free = slots
        self._on_outcomes = on_outcomes
        self._backlog: list[tuple[int, int, Job]] = []
        self._numbers = itertools.count()
        self._came: dict[tuple[str, int], float] = {}
        self._held: dict[tuple[str, int], Job] = {}
        self._running: dict[tuple[str, int], tuple[Execution, asyncio.TimerHandle]] = {}
        self._done: list[Outcome] = []

    # ---- the verbs of the real one -------------------------------------------------------------------------------

    def load(self, modules: Sequence[str]) -> None:
        """Nothing runs in processes here."""

    def add(self, executions: Sequence[Job]) -> None:
        for job in executions:
            key = _key(job.order)
            self._held[key] = job
            self._came[key] = self._loop.time()
            heapq.heappush(self._backlog, (job.order.rank, next(self._numbers), job))
        self._pump()

    def stop(self, token: Token) -> bool:
        key = (token.id, token.attempt)
        job = self._held.get(key)
        if job is None or any((outcome.id, outcome.attempt) == key for outcome in self._done):
            return False
        if key not in self._running:
            self._backlog = [entry for entry in self._backlog if entry[2] is not job]
            heapq.heapify(self._backlog)
            self._finish(job, Outcome(token.id, token.attempt, "cancelled", self._loop.time(), 0.0))
            return False
        if _dice(job.order, self._process, "stop").random() < 0.5:
            execution, timer = self._running[key]
            timer.cancel()
            self._end(job, execution, "cancelled")
            return False
        return True

    def give_back(self, older_than: float | None = None) -> list[Token]:
        now = self._loop.time()
        if older_than is not None and not any(
            now - self._came[_key(job.order)] >= older_than for _, _, job in self._backlog
        ):
            return []
        given = [Token(*_key(job.order)) for _, _, job in self._backlog]
        self._backlog.clear()
        for token in given:
            del self._held[token.id, token.attempt]
        return given

    def held(self) -> list[Token]:
        return [Token(*key) for key in self._held]

    def executions(self) -> list[Job]:
        return list(self._held.values())

    @property
    def waiting(self) -> int:
        return len(self._backlog)

    def memory(self) -> None:
        """Nobody looks at it here."""

    def cancel_all(self) -> None:
        for token in self.held():
            self.stop(token)

    async def ended(self) -> None:
        """There are no processes."""

    def close(self) -> None:
        """Nothing to do."""

    # ---- runs ----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        while self._free and self._backlog:
            self._free -= 1
            job = heapq.heappop(self._backlog)[2]
            job.started = self._loop.time()
            execution = Execution(job.order.id, job.order.attempt, self._process, job.started)
            self._simulation.ledger.begin(execution, job.order)
            status, ran = self._plan(job.order)
            timer = self._loop.call_later(ran, self._end, job, execution, status)
            self._running[_key(job.order)] = (execution, timer)

    def _plan(self, order: Order) -> tuple[str, float]:
        """How this attempt will end, and when."""
        random = _dice(order, self._process, "run")
        ran = random.uniform(*RUN_TIMES.get(order.name, USUAL))
        if order.timeout is not None and ran > order.timeout:
            return "timeout", order.timeout
        if order.name == "killer" and random.random() < 0.5:
            self._simulation.kill_soon(self._process, ran / 2)
        if random.random() < CHANCE_TO_SNOOZE.get(order.name, 0.0):
            return "retry", ran
        return ("failed" if random.random() < CHANCE_TO_FAIL.get(order.name, 0.03) else "succeeded"), ran

    def _end(self, job: Job, execution: Execution, status: str) -> None:
        order, now = job.order, self._loop.time()
        result = f'"{order.id}/{order.attempt}/{self._process.name}"' if status == "succeeded" else None
        self._simulation.ledger.end(execution, status, result)
        del self._running[_key(order)]
        self._free += 1
        random = _dice(order, self._process, "end")
        error = ErrorInfo("builtins.ValueError", "bad luck") if status in ("failed", "timeout") else None
        outcome = Outcome(order.id, order.attempt, status, job.started, now - job.started, result, error)  # type: ignore[arg-type]
        if status == "retry":
            outcome.after = random.uniform(0.0, 2.0)
            outcome.hold = order.name in HOLDING or None
            execution.holds_for = outcome.after if outcome.hold else None
        self._finish(job, outcome)
        self._pump()

    def _finish(self, job: Job, outcome: Outcome) -> None:
        self._done.append(outcome)
        if len(self._done) == 1:
            self._loop.call_soon(self._collect)

    def _collect(self) -> None:
        done, self._done = self._done, []
        for outcome in done:
            self._held.pop((outcome.id, outcome.attempt), None)
            self._came.pop((outcome.id, outcome.attempt), None)
        self._on_outcomes(done)


def _key(order: Order) -> tuple[str, int]:
    return order.id, order.attempt


def _dice(order: Order, process: Process, what: str) -> Random:
    return Random(f"{order.id}/{order.attempt}/{process.name}/{what}")
