"""Answers to questions, from the engine's memory where it has them, else from the store."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastworker.lifecycle import State
from fastworker.protocol import Ended, Query
from fastworker.release import RELEASE
from fastworker.tasks import Task, TaskInfo, is_task_id
from fastworker.views import Stats
from fastworker_server.clock import Clock
from fastworker_server.engine import Engine
from fastworker_server.explain import explain
from fastworker_server.storage.sqlite import SqliteStore

MOST_LISTED = 1000
LONGEST_LISTED = 4096
"""Characters of arguments, a result or a traceback that a list shows; `info` has them whole."""
LARGEST_SEQ = 2**63 - 1
"""What SQLite can compare with."""


class Answers:
    """Answers the queries of clients.

    Args:
        describe_store: what the store is, for people.
        listening: at which addresses.
    """

    def __init__(
        self, engine: Engine, store: SqliteStore, clock: Clock, describe_store: str, listening: Callable[[], list[str]]
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._describe_store = describe_store
        self._listening = listening
        self._started = clock.now()
        self.instance = ""

    async def answer(self, query: Query) -> Any:
        """What was asked for."""
        match query.what:
            case "info":
                return await self._info(query.task or "")
            case "why":
                return await self._why(query.task or "")
            case "list":
                return await self._list(query)
            case "stats":
                return self._stats()
            case "workers":
                now = self._clock.now()
                return [worker.view(now) for worker in self._engine.workers.values()]
            case "queues":
                return [lane.view() for lane in self._engine.lanes if len(lane) or lane.held]
            case "definitions":
                return self._engine.catalog.all()

    async def find(self, task_id: str) -> Task | None:
        """A task, wherever it is."""
        task = self._engine.tasks.get(task_id) or self._engine.ended.get(task_id)
        if task is None and is_task_id(task_id):
            found = await self._store.get(task_id)
            task = found if isinstance(found, Task) else None
        return task

    async def whether_done(self, task_id: str) -> str:
        """The answer to a cancellation of a task that is not open."""
        return "not_found" if await self.find(task_id) is None else "already_done"

    async def _info(self, task_id: str) -> TaskInfo | None:
        task = await self.find(task_id)
        return self._view(task) if task is not None else None

    def _view(self, task: Task) -> TaskInfo:
        info = TaskInfo.of(task)
        return replace(info, result=None, result_expired=True) if is_result_expired(task, self._clock.now()) else info

    async def _why(self, task_id: str) -> Any:
        task = await self.find(task_id)
        return explain(self._engine, task, self._clock.now()) if task is not None else None

    async def _list(self, query: Query) -> list[TaskInfo]:
        await self._store.saved(try_once=True)
        limit = max(1, min(query.limit, MOST_LISTED))
        before = None if query.before is None else max(0, min(query.before, LARGEST_SEQ))
        tasks = await self._store.list(query.state, query.name, query.queue, limit, before)
        return [_brief(self._view(self._engine.tasks.get(task.id, task))) for task in tasks]

    def _stats(self) -> Stats:
        workers = self._engine.workers.values()
        states = {state.value: count for state, count in self._engine.counts.items() if state is not State.NEW}
        return Stats(
            instance=self.instance,
            release=RELEASE,
            pid=os.getpid(),
            started=self._started,
            store=self._describe_store,
            listen=self._listening(),
            states=states,
            workers=len(workers),
            slots=sum(worker.slots for worker in workers),
            version=self._engine.version,
        )


def _brief(info: TaskInfo) -> TaskInfo:
    """For a list: without arguments, results and tracebacks that are long."""
    if info.args is not None and len(info.args) > LONGEST_LISTED:
        info = replace(info, args=None)
    if info.result is not None and len(info.result) > LONGEST_LISTED:
        info = replace(info, result=None)
    if info.error is not None and len(info.error.traceback) > LONGEST_LISTED:
        info = replace(info, error=replace(info.error, traceback=""))
    return info


def is_result_expired(task: Task, now: float) -> bool:
    """Whether the time to keep the result is over."""
    ttl = task.options.result_ttl
    succeeded = task.state is State.SUCCEEDED and task.finished_at is not None
    return succeeded and (task.result is None or (ttl is not None and now > (task.finished_at or 0.0) + ttl))


def ended_of(task: Task, now: float) -> Ended:
    """The end of a task, for those who wait for it."""
    if is_result_expired(task, now):
        return Ended(task.id, task.state, task.reason, result_expired=True)
    return Ended(task.id, task.state, task.reason, task.result, None, task.error)
