"""The blocking door: everything is written once, in async, and run here on one background event loop per process."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Self, Unpack

from fastworker.client import CancelAnswer, Client
from fastworker.errors import ConfigurationError
from fastworker.lifecycle import State
from fastworker.options import SubmitOptions
from fastworker.tasks import TaskInfo
from fastworker.transport import refuse_if_forked
from fastworker.views import Explanation, LaneView, Stats, WorkerView


class _Portal:
    """An event loop in a background thread, with the process's default client."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._client: Client | None = None
        self._starting: asyncio.Lock = asyncio.Lock()
        threading.Thread(target=self.loop.run_forever, name="fastworker-client", daemon=True).start()

    def submit[T](self, work: Awaitable[T]) -> Future[T]:
        async def run() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self.loop)

    async def client(self) -> Client:
        async with self._starting:
            if self._client is None:
                self._client = await Client().start()
            return self._client

    async def stop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.stop()

    def close(self) -> None:
        if self.pid == os.getpid() and self._client is not None:
            self.submit(self.stop_client()).result(5)
        if self.pid == os.getpid():
            self.loop.call_soon_threadsafe(self.loop.stop)


_portal: _Portal | None = None
_making = threading.Lock()


def portal() -> _Portal:
    """The background loop of this process, made at first use.

    Raises:
        ForkError: the process was forked from one that was connected already.
    """
    global _portal
    with _making:
        if _portal is not None and _portal.pid != os.getpid():
            refuse_if_forked()
            _portal = None
        if _portal is None:
            _portal = _Portal()
            atexit.register(_portal.close)
        return _portal


def wait_for[T](work: Awaitable[T], timeout: float | None = None) -> T:
    """Run a coroutine on the background loop and wait for it, from blocking code.

    Raises:
        ConfigurationError: called inside the background loop itself, where waiting would never end.
    """
    door = portal()
    try:
        inside = asyncio.get_running_loop() is door.loop
    except RuntimeError:
        inside = False
    if inside:
        raise ConfigurationError("a blocking call inside FastWorker's own event loop would never end: await it instead")
    return door.submit(work).result(timeout)


async def default_client() -> Client:
    """The process's default client, started at first use. It lives on the background loop.

    Raises:
        NoControlPlane: none was found.
    """
    return await asyncio.wrap_future(portal().submit(portal().client()))


def stop_default_client() -> None:
    """Disconnect the default client, if there is one; the next use starts another."""
    if _portal is not None and _portal.pid == os.getpid():
        _portal.submit(_portal.stop_client()).result(5)


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
