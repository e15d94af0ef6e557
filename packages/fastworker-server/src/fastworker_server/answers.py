"""Answers to questions, from the engine's memory where it has them, else from the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from fastworker.found import TaskPage
from fastworker.lifecycle import State
from fastworker.protocol import Ended, Query
from fastworker.release import RELEASE
from fastworker.search import EVERYTHING
from fastworker.tasks import Task, TaskInfo, is_task_id
from fastworker.views import LimitsView, Stats, WorkflowNode
from fastworker_server.audit import Audit
from fastworker_server.bulk import Bulk
from fastworker_server.clock import Clock
from fastworker_server.engine import Engine
from fastworker_server.explain import explain
from fastworker_server.observer import Observer
from fastworker_server.redaction import redacted
from fastworker_server.schedules import Schedules
from fastworker_server.searcher import Searcher
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.tally import Tally

MOST_LISTED = 1000
MOST_SCHEDULES_LISTED = 100
LONGEST_LISTED = 4096
"""Characters of arguments, a result or a traceback that a list shows; `info` has them whole."""
LARGEST_SEQ = 2**63 - 1
"""What SQLite can compare with."""


class Answers:
    """Answers the queries of clients.

    Args:
        describe_store: what the store is, for people.
        listening: at which addresses.
        refused: how many connections and messages were refused, by reason.
    """

    def __init__(
        self,
        engine: Engine,
        schedules: Schedules,
        store: SqliteStore,
        tally: Tally,
        observer: Observer,
        bulk: Bulk,
        audit: Audit,
        clock: Clock,
        describe_store: str,
        listening: Callable[[], list[str]],
        refused: Callable[[], dict[str, int]],
    ) -> None:
        self._engine = engine
        self._schedules = schedules
        self._store = store
        self._observer = observer
        self._bulk = bulk
        self._audit = audit
        self._clock = clock
        self._searcher = Searcher(store, tally)
        self._describe_store = describe_store
        self._listening = listening
        self._refused = refused
        self._started = clock.now()
        self.instance = ""

    async def answer(self, query: Query) -> Any:
        """What was asked for."""
        match query.what:
            case "info":
                return await self._info(query)
            case "why":
                return await self._why(query.task or "")
            case "list":
                return await self._list(query)
            case "search":
                return await self._search(query)
            case "facets":
                return await self._searcher.facets(query.filter or EVERYTHING)
            case "failures":
                return await self._searcher.failures(_limit(query))
            case "activity":
                return self._observer.activity(self._clock.now())
            case "bulk":
                return self._bulk.views()
            case "audit":
                return await self._audit.rows(_limit(query), _before(query))
            case "stats":
                return self._stats()
            case "workers":
                now = self._clock.now()
                return [worker.view(now) for worker in self._engine.workers.values()]
            case "queues":
                return [lane.view() for lane in self._engine.lanes if len(lane) or lane.held]
            case "definitions":
                return self._engine.catalog.all()
            case "limits":
                return self._limits()
            case "workflow":
                return await self._workflow(query.task or "")
            case "schedules":
                limit = max(1, min(query.limit, MOST_SCHEDULES_LISTED))
                return self._schedules.views(query.name, query.after, limit, self._clock.now())

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

    async def _info(self, query: Query) -> TaskInfo | None:
        task = await self.find(query.task or "")
        return self._shown(query, [self._view(task)])[0] if task is not None else None

    def _shown(self, query: Query, infos: list[TaskInfo]) -> list[TaskInfo]:
        """Without secrets, if the query asks for that."""
        if not query.redact:
            return infos
        return [redacted(info, self._engine.catalog.parameters(info.name)) for info in infos]

    def _view(self, task: Task) -> TaskInfo:
        info = TaskInfo.of(task)
        return replace(info, result=None, result_expired=True) if is_result_expired(task, self._clock.now()) else info

    async def _why(self, task_id: str) -> Any:
        task = await self.find(task_id)
        return explain(self._engine, task, self._clock.now()) if task is not None else None

    def _limits(self) -> list[LimitsView]:
        limits = self._engine.limits
        return [
            LimitsView(name, said.rates, said.max_concurrency, set_by_client=name in limits.set_by_client)
            for name, said in limits.all().items()
        ]

    async def _workflow(self, task_id: str) -> list[WorkflowNode] | None:
        task = await self.find(task_id)
        if task is None:
            return None
        await self._store.saved(try_once=True)
        members = await self._store.of_workflow(task.ties.workflow or task.id)
        return [_node(self._engine.tasks.get(member.id, member)) for member in members]

    async def _list(self, query: Query) -> list[TaskInfo]:
        await self._store.saved(try_once=True)
        tasks = await self._store.list(query.state, query.name, query.queue, _limit(query), _before(query))
        return self._listed(tasks)

    async def _search(self, query: Query) -> TaskPage:
        found = await self._searcher.page(query.filter or EVERYTHING, _limit(query), _before(query))
        return TaskPage(self._shown(query, self._listed(found.tasks)), found.next, found.complete)

    def _listed(self, tasks: Sequence[Task]) -> list[TaskInfo]:
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
            refused=self._refused(),
        )


def _node(task: Task) -> WorkflowNode:
    return WorkflowNode(task.id, task.name, task.state, task.ties.needs, task.ties.parent)


def _limit(query: Query) -> int:
    return max(1, min(query.limit, MOST_LISTED))


def _before(query: Query) -> int | None:
    return None if query.before is None else max(0, min(query.before, LARGEST_SEQ))


def _brief(info: TaskInfo) -> TaskInfo:
    """For a list: without its history, and without arguments, results and tracebacks that are long."""
    if info.history:
        info = replace(info, history=())
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
