"""The blocking door: everything is written once, in async, and waited for here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Self, Unpack

from fastworker.activity import BulkAction, BulkView
from fastworker.client import Client
from fastworker.client_schedules import BlockingScheduleCalls
from fastworker.found import Facets, FailureGroup, TaskPage
from fastworker.handle import CancelAnswer
from fastworker.lifecycle import State
from fastworker.options import SubmitOptions
from fastworker.portal import wait_for
from fastworker.search import TaskFilter
from fastworker.tasks import Priority, TaskInfo
from fastworker.views import Explanation, LaneView, LimitsView, Stats, WorkerView, WorkflowNode


class BlockingClient(BlockingScheduleCalls):
    """`Client` for scripts and views that block. Every method is the one of `Client`, waited for."""

    def __init__(self, url: str | None = None, key: str | None = None, *, connect_timeout: float | None = None) -> None:
        self.client = Client(url, key, connect_timeout=connect_timeout)

    def start(self) -> Self:
        """Find the control plane and connect."""
        wait_for(self.client.start())
        return self

    def stop(self) -> None:
        """Disconnect."""
        wait_for(self.client.close())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _do[T](self, call: Callable[[Client], Awaitable[T]]) -> T:
        return wait_for(call(self.client))

    def submit(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        strict: bool = False,
        **said: Unpack[SubmitOptions],
    ) -> str:
        """Queue a task by name; returns its id once it is stored."""
        return self._do(lambda client: client.submit(name, args, kwargs, strict=strict, **said))

    def delay(self, name: str, *args: Any, **kwargs: Any) -> str:
        """`submit` with the arguments written as in a call."""
        return self._do(lambda client: client.delay(name, *args, **kwargs))

    def submit_many(
        self, name: str, calls: Iterable[Sequence[Any]], *, strict: bool = False, **said: Unpack[SubmitOptions]
    ) -> Sequence[str]:
        """Queue one task per sequence of positional arguments."""
        return self._do(lambda client: client.submit_many(name, calls, strict=strict, **said))

    def result(self, task_id: str, timeout: float | None = None) -> Any:
        """Wait for a result, as plain JSON data."""
        return self._do(lambda client: client.result(task_id, timeout))

    def info(self, task_id: str) -> TaskInfo:
        """All that is known of a task."""
        return self._do(lambda client: client.info(task_id))

    def why(self, task_id: str) -> Explanation:
        """Why a task is not running."""
        return self._do(lambda client: client.why(task_id))

    def list(
        self,
        *,
        state: State | str | None = None,
        name: str | None = None,
        queue: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> Sequence[TaskInfo]:
        """Tasks, newest first."""
        return self._do(lambda client: client.list(state=state, name=name, queue=queue, limit=limit, before=before))

    def search(self, wanted: TaskFilter | str = "", *, limit: int = 50, before: int | None = None) -> TaskPage:
        """Tasks that fit a filter, newest first."""
        return self._do(lambda client: client.search(wanted, limit=limit, before=before))

    def facets(self, wanted: TaskFilter | str = "") -> Facets:
        """How many tasks fit a filter, by state, name, queue and priority."""
        return self._do(lambda client: client.facets(wanted))

    def failures(self, *, limit: int = 100) -> Sequence[FailureGroup]:
        """Failed tasks in groups of the same name, exception and place, the latest first."""
        return self._do(lambda client: client.failures(limit=limit))

    def stats(self) -> Stats:
        """Counts of the whole system."""
        return self._do(lambda client: client.stats())

    def workers(self) -> Sequence[WorkerView]:
        """The connected workers."""
        return self._do(lambda client: client.workers())

    def queues(self) -> Sequence[LaneView]:
        """The lanes."""
        return self._do(lambda client: client.queues())

    def limits(self) -> Sequence[LimitsView]:
        """The task names with a rate or concurrency limit."""
        return self._do(lambda client: client.limits())

    def workflow(self, task_id: str) -> Sequence[WorkflowNode]:
        """All tasks of the workflow that a task belongs to."""
        return self._do(lambda client: client.workflow(task_id))

    def cancel(self, task_id: str) -> CancelAnswer:
        """Cancel a task."""
        return self._do(lambda client: client.cancel(task_id))

    def cancel_workflow(self, task_id: str) -> int:
        """Cancel all open tasks of the workflow that a task belongs to."""
        return self._do(lambda client: client.cancel_workflow(task_id))

    def requeue(self, task_id: str, args: Sequence[Any] | None = None, kwargs: dict[str, Any] | None = None) -> bool:
        """Run a task again that has ended, on other arguments if any are given."""
        return self._do(lambda client: client.requeue(task_id, args, kwargs))

    def reprioritise(self, task_id: str, priority: Priority | str) -> bool:
        """Give an open task another priority."""
        return self._do(lambda client: client.reprioritise(task_id, priority))

    def start_bulk(
        self, action: BulkAction, wanted: TaskFilter | str, *, priority: Priority | str | None = None
    ) -> str:
        """Retry, cancel, delete or reprioritise all tasks that fit a filter, in the background."""
        return self._do(lambda client: client.start_bulk(action, wanted, priority=priority))

    def bulk_jobs(self) -> Sequence[BulkView]:
        """The last actions of this kind, with their progress."""
        return self._do(lambda client: client.bulk_jobs())

    def set_limits(
        self, name: str, *, rate_limit: str | Sequence[str] | None = None, max_concurrency: int | None = None
    ) -> None:
        """Set the limits of a task name at run time."""
        self._do(lambda client: client.set_limits(name, rate_limit=rate_limit, max_concurrency=max_concurrency))

    def reset_limits(self, name: str) -> None:
        """Undo `set_limits`."""
        self._do(lambda client: client.reset_limits(name))

    def pause(self, *, queue: str | None = None, name: str | None = None, worker: str | None = None) -> None:
        """Start no more tasks of a queue, of a task name or at a worker."""
        self._do(lambda client: client.pause(queue=queue, name=name, worker=worker))

    def resume(self, *, queue: str | None = None, name: str | None = None, worker: str | None = None) -> None:
        """Undo `pause`."""
        self._do(lambda client: client.resume(queue=queue, name=name, worker=worker))
