"""What a client can ask and order: questions about tasks, workers and queues, and changes to them."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from fastworker.codec import encode_untyped
from fastworker.errors import TaskNotFound
from fastworker.found import Facets, FailureGroup, TaskPage
from fastworker.handle import CancelAnswer
from fastworker.lifecycle import State
from fastworker.limits import make_limits
from fastworker.protocol import Cancel, Control, Query, Requeue, Schedules
from fastworker.sealing import sealer
from fastworker.search import TaskFilter, parse
from fastworker.tasks import Definition, Priority, TaskInfo
from fastworker.validate import validated
from fastworker.views import Explanation, LaneView, LimitsView, Stats, WorkerView, WorkflowNode

Request = Query | Cancel | Requeue | Control | Schedules


class Orders:
    """Asks and orders, over whatever `_ask` is."""

    @abstractmethod
    async def _ask(self, request: Request) -> Any:
        """Send a request, and wait for the data of its answer."""

    @abstractmethod
    def _ended_anew(self, task_id: str) -> None:
        """A task runs again: forget how it ended before."""

    # ---- ask -----------------------------------------------------------------------------------------------------

    async def info(self, task_id: str, *, redact: bool = False) -> TaskInfo:
        """All that is known of a task.

        Args:
            redact: without what looks like a secret.

        Raises:
            TaskNotFound: there is no such task.
        """
        data = await self._ask(Query(0, "info", task=task_id, redact=redact or None))
        info = validated(TaskInfo, _known(data, task_id))
        sealing = sealer() if info.sealed_progress is not None else None
        return info if sealing is None else sealing.open_info(info)

    async def why(self, task_id: str) -> Explanation:
        """Why a task is not running.

        Raises:
            TaskNotFound: there is no such task.
        """
        data = await self._ask(Query(0, "why", task=task_id))
        return validated(Explanation, _known(data, task_id))

    async def list(
        self,
        *,
        state: State | str | None = None,
        name: str | None = None,
        queue: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[TaskInfo]:
        """Tasks, newest first, without arguments, results and tracebacks of more than 4,096 characters.

        Args:
            before: only tasks older than this one's `seq`, for the next page.
        """
        where = State(state) if state is not None else None
        query = Query(0, "list", state=where, name=name, queue=queue, limit=limit, before=before)
        return validated(list[TaskInfo], await self._ask(query))

    async def search(
        self, wanted: TaskFilter | str = "", *, limit: int = 50, before: int | None = None, redact: bool = False
    ) -> TaskPage:
        """Tasks that fit a filter, newest first, shortened as those of `list`.

        Args:
            wanted: a filter, or the text of a search as in `fastworker.search.parse`.
            before: the `next` of the page before.
            redact: without what looks like a secret.

        Raises:
            InvalidSearch: the text can't be understood.
        """
        query = Query(0, "search", filter=as_filter(wanted), limit=limit, before=before, redact=redact or None)
        return validated(TaskPage, await self._ask(query))

    async def facets(self, wanted: TaskFilter | str = "") -> Facets:
        """How many tasks fit a filter, by state, name, queue and priority."""
        return validated(Facets, await self._ask(Query(0, "facets", filter=as_filter(wanted))))

    async def failures(self, *, limit: int = 100) -> Sequence[FailureGroup]:
        """Failed tasks in groups of the same name, exception and place, the latest first."""
        return validated(list[FailureGroup], await self._ask(Query(0, "failures", limit=limit)))

    async def stats(self) -> Stats:
        """Counts of the whole system."""
        return validated(Stats, await self._ask(Query(0, "stats")))

    async def workers(self) -> Sequence[WorkerView]:
        """The connected workers."""
        return validated(list[WorkerView], await self._ask(Query(0, "workers")))

    async def queues(self) -> Sequence[LaneView]:
        """The lanes: per queue and task name, how much waits and why."""
        return validated(list[LaneView], await self._ask(Query(0, "queues")))

    async def definitions(self) -> Sequence[Definition]:
        """The task functions that connected workers know."""
        return validated(list[Definition], await self._ask(Query(0, "definitions")))

    async def workflow(self, task_id: str) -> Sequence[WorkflowNode]:
        """All tasks of the workflow that a task belongs to, in the order of their submission.

        Raises:
            TaskNotFound: there is no such task.
        """
        data = await self._ask(Query(0, "workflow", task=task_id))
        return validated(list[WorkflowNode], _known(data, task_id))

    async def limits(self) -> Sequence[LimitsView]:
        """The task names with a rate or concurrency limit."""
        return validated(list[LimitsView], await self._ask(Query(0, "limits")))

    # ---- order ---------------------------------------------------------------------------------------------------

    async def cancel(self, task_id: str, *, by: str | None = None) -> CancelAnswer:
        """Cancel a task.

        Args:
            by: who wants it, for the audit.

        Returns:
            `was_queued`: it had not started and won't. `interrupted`: it ran and was stopped. `asked`: it runs in a
            thread, which can't be stopped; `current_task().cancelled` tells it. `killed`: its process was ended.
            `already_done`, `not_found`.
        """
        answer: CancelAnswer = await self._ask(Cancel(0, task_id, by=by))
        return answer

    async def cancel_workflow(self, task_id: str) -> int:
        """Cancel all open tasks of the workflow that a task belongs to; those that run are told to stop.

        Returns:
            How many they were.

        Raises:
            TaskNotFound: there is no such task.
        """
        return int(_known(await self._ask(Cancel(0, task_id, workflow=True)), task_id))

    async def requeue(
        self,
        task_id: str,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        by: str | None = None,
    ) -> bool:
        """Run a task again that has ended; False if it has not. Tasks that failed only because of it run again, too.

        Args:
            args: positional arguments to run it on instead; with `kwargs` or without.
            kwargs: keyword arguments, likewise.
            by: who wants it, for the audit.

        Raises:
            TaskNotFound: there is no such task.
        """
        payload = None
        if args is not None or kwargs is not None:
            payload = encode_untyped(args or (), kwargs or {}, task_id)
            sealing = sealer()
            if sealing is not None:
                payload = sealing.seal_arguments(task_id, (await self.info(task_id)).name, payload)
        answer = bool(_known(await self._ask(Requeue(0, task_id, payload, by)), task_id))
        self._ended_anew(task_id)
        return answer

    async def reprioritise(self, task_id: str, priority: Priority | str, *, by: str | None = None) -> bool:
        """Give an open task another priority; False if it has ended.

        Raises:
            TaskNotFound: there is no such task.
        """
        answer = await self._ask(Control(0, "reprioritise", task=task_id, priority=Priority(priority), by=by))
        if answer is None:
            await self.info(task_id)
        return bool(answer)

    async def set_limits(
        self, name: str, *, rate_limit: str | Sequence[str] | None = None, max_concurrency: int | None = None
    ) -> None:
        """Set the limits of a task name at run time, whatever `@task` says; without any, it is unlimited.

        Raises:
            ConfigurationError: names what is wrong and what it may be.
        """
        await self._ask(Control(0, "limit", name=name, limits=make_limits(rate_limit, max_concurrency)))

    async def reset_limits(self, name: str) -> None:
        """Undo `set_limits`: the limits are those of `@task` again."""
        await self._ask(Control(0, "limit", name=name))

    async def pause(
        self,
        *,
        queue: str | None = None,
        name: str | None = None,
        worker: str | None = None,
        by: str | None = None,
    ) -> None:
        """Start no more tasks of a queue, of a task name or at a worker; those that run go on."""
        await self._ask(Control(0, "pause", queue=queue, name=name, worker=worker, by=by))

    async def resume(
        self,
        *,
        queue: str | None = None,
        name: str | None = None,
        worker: str | None = None,
        by: str | None = None,
    ) -> None:
        """Undo `pause`."""
        await self._ask(Control(0, "resume", queue=queue, name=name, worker=worker, by=by))


def as_filter(wanted: TaskFilter | str) -> TaskFilter:
    """A filter, or the text of a search, as a filter."""
    return parse(wanted, time.time()) if isinstance(wanted, str) else wanted


def _known(data: Any, task_id: str) -> Any:
    """What was answered about a task, if there is such a task."""
    if data is None:
        raise TaskNotFound(f"there is no task {task_id}", task_id)
    return data
