"""The control plane's own workers, as child processes or as a thread of this process: one shape for both."""

from __future__ import annotations

import asyncio
import os
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from fastworker.addresses import local_url
from fastworker.settings import Settings
from fastworker_server.control_plane import ControlPlane
from fastworker_worker.command import child_command, recycle_of
from fastworker_worker.modules import import_modules
from fastworker_worker.supervisor import Supervisor
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

    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fastworker-own-worker", daemon=True)

    def start(self) -> None:
        """Start the thread and the worker in it."""
        self._thread.start()
        self._worker = Worker(
            self._url,
            slots=self._settings.concurrency,
            own=True,
            name=f"{platform.node()}:{os.getpid()}:in-process",
            recycle=recycle_of(self._settings),
        )
        self._started = asyncio.run_coroutine_threadsafe(self._worker.start(), self._loop)

    async def first_failure(self) -> None:
        """The worker has started, or can't."""
        await asyncio.wrap_future(self._started)

    async def stop(self) -> None:
        """Drain the worker, then stop the loop; a task that can't be interrupted is left behind."""
        draining = asyncio.run_coroutine_threadsafe(self._worker.drain(self._settings.grace), self._loop)
        await asyncio.wrap_future(draining)
        self._loop.call_soon_threadsafe(self._loop.stop)


def own_address(control_plane: ControlPlane) -> str:
    """Where processes of ours on this host reach the control plane."""
    return next((url for url in control_plane.addresses if url.startswith("ipc://")), local_url())


def own_workers(
    control_plane: ControlPlane,
    modules: Sequence[str],
    log_level: str,
    *,
    in_process: bool = False,
    reload: bool = False,
) -> OwnWorkers:
    """The own workers that the settings ask for."""
    settings = control_plane.settings
    if in_process:
        import_modules(modules)
        url = f"inproc://fastworker-{os.getpid()}-{id(control_plane):x}"
        control_plane.listener.listen(url)
        return InProcess(url, settings)
    socket = own_address(control_plane)
    if reload:
        from fastworker_server.reloading import ReloadingWorker  # for development only: what it imports is large

        return ReloadingWorker(control_plane, modules, socket, log_level, Path.cwd())

    def command(number: int) -> list[str]:
        name = f"{platform.node()}:{os.getpid()}:own-{number}-{os.urandom(2).hex()}"
        return child_command(modules, socket, settings, name, log_level, "--own")

    return Supervisor(settings.processes, command, settings.grace, control_plane.own_worker_died)
