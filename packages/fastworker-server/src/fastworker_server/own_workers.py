"""The control plane's own workers, as child processes or as a thread of this process: one shape for both."""

from __future__ import annotations

import asyncio
import os
import platform
import threading
from collections.abc import Sequence
from typing import Protocol

from fastworker.addresses import local_url
from fastworker_server.children import Children
from fastworker_server.control_plane import ControlPlane
from fastworker_worker.modules import import_modules
from fastworker_worker.worker import Worker


class OwnWorkers(Protocol):
    """What `fastworker start` needs of them."""

    def start(self) -> None:
        """Start them."""

    async def first_failure(self) -> None:
        """Return when nothing can fail any more, raise if one can't be started."""

    async def stop(self) -> None:
        """Drain them."""


class InProcess:
    """One worker in a thread with an event loop of its own, over `inproc://`. User code runs in this process."""

    def __init__(self, url: str, slots: int, grace: float) -> None:
        self._url = url
        self._slots = slots
        self._grace = grace
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fastworker-own-worker", daemon=True)

    def start(self) -> None:
        """Start the thread and the worker in it."""
        self._thread.start()
        self._worker = Worker(
            self._url, slots=self._slots, own=True, name=f"{platform.node()}:{os.getpid()}:in-process"
        )
        self._started = asyncio.run_coroutine_threadsafe(self._worker.start(), self._loop)

    async def first_failure(self) -> None:
        """The worker has started, or can't."""
        await asyncio.wrap_future(self._started)

    async def stop(self) -> None:
        """Drain the worker, then stop the loop; a task that can't be interrupted is left behind."""
        draining = asyncio.run_coroutine_threadsafe(self._worker.drain(self._grace), self._loop)
        await asyncio.wrap_future(draining)
        self._loop.call_soon_threadsafe(self._loop.stop)


def own_workers(control_plane: ControlPlane, modules: Sequence[str], log_level: str, *, in_process: bool) -> OwnWorkers:
    """The own workers that the settings ask for."""
    settings = control_plane.settings
    if in_process:
        import_modules(modules)
        url = f"inproc://fastworker-{os.getpid()}-{id(control_plane):x}"
        control_plane.listener.listen(url)
        return InProcess(url, settings.concurrency, settings.grace)
    socket = next((url for url in control_plane.addresses if url.startswith("ipc://")), local_url())
    return Children(modules, socket, settings, log_level, control_plane.own_worker_died)
