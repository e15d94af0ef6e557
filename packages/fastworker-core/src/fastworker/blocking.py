"""The blocking door: everything is written once, in async, and waited for here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Self, Unpack

from fastworker.client import Client
from fastworker.handle import CancelAnswer
from fastworker.lifecycle import State
from fastworker.options import SubmitOptions
from fastworker.portal import wait_for
from fastworker.tasks import TaskInfo
from fastworker.views import Explanation, LaneView, Stats, WorkerView


class BlockingClient:
    """`Client` for scripts and views that block. Every method is the one of `Client`, waited for."""

    def __init__(self, url: str | None = None, key: str | None = None, *, connect_timeout: float | None = None) -> None:
        self.client = Client(url, key, connect_timeout=connect_timeout)

    def start(self) -> Self:
        """Find the control plane and connect."""
        wait_for(self.client.start())
        return self

    def stop(self) -> None:
        """Disconnect."""
        wait_for(self.client.stop())

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

    def stats(self) -> Stats:
        """Counts of the whole system."""
        return self._do(lambda client: client.stats())

    def workers(self) -> Sequence[WorkerView]:
        """The connected workers."""
        return self._do(lambda client: client.workers())

    def queues(self) -> Sequence[LaneView]:
        """The lanes."""
        return self._do(lambda client: client.queues())

    def cancel(self, task_id: str) -> CancelAnswer:
        """Cancel a task."""
        return self._do(lambda client: client.cancel(task_id))

    def requeue(self, task_id: str) -> bool:
        """Run a task again that has ended."""
        return self._do(lambda client: client.requeue(task_id))

    def pause(self, *, queue: str | None = None, name: str | None = None) -> None:
        """Start no more tasks of a queue or of a task name."""
        self._do(lambda client: client.pause(queue=queue, name=name))

    def resume(self, *, queue: str | None = None, name: str | None = None) -> None:
        """Undo `pause`."""
        self._do(lambda client: client.resume(queue=queue, name=name))
