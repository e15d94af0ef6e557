"""One action on all tasks that fit a filter: in the background, a few at a time, until somebody stops it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Final

from fastworker.activity import BulkAction, BulkView
from fastworker.errors import FastWorkerError
from fastworker.lifecycle import OPEN, TERMINAL, State
from fastworker.search import TaskFilter
from fastworker.tasks import Priority, Task
from fastworker_server.clock import Clock
from fastworker_server.engine import Engine
from fastworker_server.needed import ready_to_requeue
from fastworker_server.searcher import FoundTasks, Searcher
from fastworker_server.storage.kinds import Kind
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.tally import Tally

logger = logging.getLogger("fastworker.bulk")

READ_AT_ONCE: Final = 128
"""Tasks of a page. The next one is read meanwhile."""
AT_ONCE: Final = 12
"""Tasks between two turns of the event loop: half a millisecond, and a commit small enough to be made in it."""
DELETED_AT_ONCE: Final = 24
"""The same for a deletion: its commits are the writer thread's, and each costs a page that is read anew."""
PAUSE: Final = 0.0025
"""Seconds between two goes at least; else as long as the last one took, so that half of the time is for others."""
REMEMBERED: Final = 50
_FITTING: Final = {"retry": TERMINAL, "cancel": OPEN, "delete": TERMINAL, "reprioritise": OPEN}


@dataclass(slots=True)
class _Job:
    id: str
    action: BulkAction
    filter: TaskFilter
    by: str
    started: float
    priority: Priority | None = None
    total: int | None = None
    done: int = 0
    phase: str = "running"
    ended: float | None = None

    @property
    def at_once(self) -> int:
        """Tasks between two turns of the event loop."""
        return DELETED_AT_ONCE if self.action == "delete" else AT_ONCE

    def view(self) -> BulkView:
        return BulkView(
            self.id, self.action, self.filter, self.total, self.done, self.phase, self.by, self.started, self.ended
        )


class Bulk:
    """All actions of this kind, the last `REMEMBERED` of them.

    Args:
        pump: sends on what the engine's verbs cause.
    """

    def __init__(
        self, engine: Engine, store: SqliteStore, tally: Tally, clock: Clock, pump: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._store = store
        self._tally = tally
        self._searcher = Searcher(store, tally)
        self._clock = clock
        self._pump = pump
        self._jobs: dict[str, _Job] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self.deleting: set[str] = set()

    def start(self, action: BulkAction, wanted: TaskFilter, by: str, priority: Priority | None = None) -> str:
        """Begin; returns the id of the job. `priority`: the new one, for `reprioritise`."""
        fitting = _FITTING[action]
        states = tuple(state for state in State if state in fitting and (not wanted.states or state in wanted.states))
        job = _Job(secrets.token_hex(6), action, wanted.but(states=states), by, self._clock.now(), priority)
        self._jobs[job.id] = job
        while len(self._jobs) > REMEMBERED:
            self._jobs.pop(next(iter(self._jobs)))
        work = self._running[job.id] = asyncio.get_running_loop().create_task(self._run(job, possible=bool(states)))
        work.add_done_callback(lambda _: self._running.pop(job.id, None))
        return job.id

    def stop(self, job_id: str) -> bool:
        """Stop; what was done stays done. False if it is not under way."""
        job = self._jobs.get(job_id)
        if job is None or job.phase != "running":
            return False
        job.phase = "stopped"
        return True

    def close(self) -> None:
        """Stop all: the control plane ends."""
        for work in list(self._running.values()):
            work.cancel()

    def views(self) -> list[BulkView]:
        """All jobs, the latest first."""
        return [job.view() for job in reversed(self._jobs.values())]

    # ---- one job -------------------------------------------------------------------------------------------------

    async def _run(self, job: _Job, *, possible: bool) -> None:
        try:
            if possible:
                await self._all_pages(job)
            job.phase = "done" if job.phase == "running" else job.phase
        except FastWorkerError as error:
            job.phase = "failed"
            logger.error("%s of all that match stopped after %d tasks: %s", job.action, job.done, error)
        job.ended = self._clock.now()
        logger.info("%s of all that match, asked for by %s: %s, %d tasks", job.action, job.by, job.phase, job.done)

    async def _all_pages(self, job: _Job) -> None:
        facets = await self._searcher.facets(job.filter)
        job.total = facets.total if facets.exact else None
        ahead = job.action != "delete"  # nothing that was read before a deletion holds after it
        before: int | None = None
        done: set[str] = set()  # of this page, if it has to be read again
        reading = self._start_reading(job, before)
        try:
            while job.phase == "running":
                page, deletions = await reading
                if ahead and page.next is not None:
                    reading = self._start_reading(job, page.next)
                whole = await self._do_page(job, page.tasks, deletions, done)
                if whole:
                    if page.next is None:
                        return
                    before = page.next
                    done.clear()
                if not (whole and ahead):
                    reading.cancel()
                    reading = self._start_reading(job, before)
        finally:
            reading.cancel()

    def _start_reading(self, job: _Job, before: int | None) -> asyncio.Task[tuple[FoundTasks, int]]:
        """A page, and how often tasks had been deleted when it was asked for."""
        return asyncio.get_running_loop().create_task(self._read(job, before))

    async def _read(self, job: _Job, before: int | None) -> tuple[FoundTasks, int]:
        deletions = self._store.deletions
        at_once = job.at_once if job.action == "delete" else READ_AT_ONCE
        return await self._searcher.page(job.filter, at_once, before, current=before is None), deletions

    async def _do_page(self, job: _Job, tasks: Sequence[Task], deletions: int, done: set[str]) -> bool:
        """False if tasks were deleted meanwhile, so that some of these may be there no more."""
        by_name = sorted(tasks, key=lambda task: task.name)  # neighbours in the store's indexes: fewer pages to write
        for some in batched((task for task in by_name if task.id not in done), job.at_once):
            if job.phase != "running" or deletions != self._store.deletions:
                return False
            await self._do_some(job, some)
            done.update(task.id for task in some)
        return True

    async def _do_some(self, job: _Job, stored: Sequence[Task]) -> None:
        """Then leave as much time to others as it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._do(job, [self._as_it_is(task) for task in stored])
        self._pump()
        await asyncio.sleep(max(PAUSE, loop.time() - began))

    def _as_it_is(self, stored: Task) -> Task:
        """What the store has not heard of yet is in memory."""
        return self._engine.tasks.get(stored.id) or self._engine.ended.get(stored.id, stored)

    async def _do(self, job: _Job, tasks: Sequence[Task]) -> None:
        fitting = [task for task in tasks if task.state in job.filter.states and task.id not in self.deleting]
        match job.action:
            case "retry":
                for task in await ready_to_requeue(self._engine, self._store, fitting):
                    self._engine.requeue(task, self._clock.now())
            case "cancel":
                for task in fitting:
                    self._engine.cancel(task.id, self._clock.now())
            case "reprioritise":
                for task in fitting:
                    self._engine.reprioritise(task.id, job.priority or Priority.NORMAL, self._clock.now())
            case "delete":
                await self._delete(fitting)
        job.done += len(fitting)

    async def _delete(self, tasks: Sequence[Task]) -> None:
        """Out of the memory, the counts and the store. While it is under way nobody can queue them again."""
        ids = {task.id for task in tasks}
        self.deleting |= ids
        try:
            for task in tasks:
                self._engine.ended.pop(task.id, None)
                self._engine.counts[task.state] -= 1
            self._tally.remove(Counter(Kind(task.name, task.queue, task.rank, task.state) for task in tasks))
            await self._store.delete([(task.seq, task.id) for task in tasks], self._clock.now())
        finally:
            self.deleting -= ids
