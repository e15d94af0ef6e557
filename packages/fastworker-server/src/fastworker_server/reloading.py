"""The worker of `fastworker dev`: replaced by one with the new code whenever a file changes."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from watchfiles import PythonFilter, awatch

from fastworker_server.control_plane import ControlPlane
from fastworker_worker.command import child_command

logger = logging.getLogger("fastworker.dev")

SETTLED_AFTER: Final = 30
"""Milliseconds without a further change, after which the code is read: an editor may write in steps."""
LOOK_EVERY: Final = 0.01
AGAIN_AFTER: Final = 1.0
"""Seconds after which a worker that has died by itself is replaced."""


class Child:
    """One worker process. It starts as far as it can without the code of the tasks, and waits for `go`."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    def go(self) -> None:
        """Read the code now, and join."""
        if self.process.stdin is not None:
            self.process.stdin.write(b"g")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def end(self, grace: float) -> None:
        """Drain it; what goes on for longer than the grace period is killed."""
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), grace + 5.0)
        except TimeoutError:
            self.signal(signal.SIGKILL)


class ReloadingWorker:
    """One worker, always with the last code that could be imported.

    A new worker joins before the old one is drained, so a task never waits for a reload, and code that can't be
    imported changes nothing. The next process already waits with everything imported but the code of the tasks.

    Args:
        control_plane: that it works for, in this process.
        modules: what it imports.
        url: where the control plane listens for it.
        folder: where changes are looked for.
    """

    def __init__(
        self, control_plane: ControlPlane, modules: Sequence[str], url: str, log_level: str, folder: Path
    ) -> None:
        self._control_plane = control_plane
        self._modules = modules
        self._url = url
        self._log_level = log_level
        self._folder = folder
        self._standby: Child | None = None
        self._current: Child | None = None
        self._children: set[Child] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._work: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._stopping = False

    # ---- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the worker, and look for changes."""
        self._changed.set()
        self._work = [asyncio.create_task(self._watch()), asyncio.create_task(self._replace_forever())]

    async def first_failure(self) -> None:
        """Return when looking for changes has failed."""
        done, _ = await asyncio.wait(self._work, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Drain all workers."""
        self._stopping = True
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        if self._standby is not None:
            self._standby.signal(signal.SIGKILL)
        await asyncio.gather(*(child.end(self._control_plane.settings.grace) for child in self._children))
        await asyncio.gather(*self._ending, return_exceptions=True)

    # ---- changes -------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        async for changes in awatch(self._folder, watch_filter=PythonFilter(), debounce=SETTLED_AFTER * 10,
                                    step=SETTLED_AFTER, recursive=True):  # fmt: skip
            names = sorted({str(Path(path).relative_to(self._folder)) for _, path in changes})
            logger.info("changed: %s", ", ".join(names[:5]))
            self._changed.set()

    async def _replace_forever(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._replace()

    async def _replace(self) -> None:
        """Start a worker with the code as it is now; if it joins, drain the one before."""
        child = self._standby if self._standby is not None and self._standby.alive else await self._spawn()
        self._standby = None
        child.go()
        if not await self._joins(child):
            if self._current is not None and not self._changed.is_set():
                logger.error("the code could not be imported (see above): the last good code goes on")
            return
        before, self._current = self._current, child
        if before is not None:
            self._retire(before)
        self._standby = await self._spawn()

    async def _joins(self, child: Child) -> bool:
        """Whether it comes as far as joining the control plane. Gives up if the code changes meanwhile."""
        workers = self._control_plane.engine.workers
        while child.alive and child.name not in workers and not self._changed.is_set():  # noqa: ASYNC110 - three
            await asyncio.sleep(LOOK_EVERY)
        if child.alive and child.name not in workers:
            child.signal(signal.SIGKILL)
            return False
        return child.name in workers

    def _retire(self, child: Child) -> None:
        """It gets no more tasks from this moment on, gives back what has not started, and lets run what has."""
        worker = self._control_plane.engine.workers.get(child.name)
        if worker is not None:
            self._control_plane.engine.set_slots(worker, 0)
        task = asyncio.create_task(child.end(self._control_plane.settings.grace))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    # ---- processes -----------------------------------------------------------------------------------------------

    async def _spawn(self) -> Child:
        name = f"{platform.node()}:{os.getpid()}:dev-{os.urandom(2).hex()}"
        settings = self._control_plane.settings
        command = child_command(self._modules, self._url, settings, name, self._log_level, "--own")
        # Compiled modules are told apart by the second of the change and the size: too coarse for two quick edits.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        process = await asyncio.create_subprocess_exec(
            *command, "--wait", stdin=PIPE, start_new_session=True, env=environment
        )
        child = Child(name, process)
        self._children.add(child)
        task = asyncio.create_task(self._attend(child))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return child

    async def _attend(self, child: Child) -> None:
        """When it has died, its tasks go back at once; if it was the current one, another takes its place."""
        await child.process.wait()
        self._children.discard(child)
        self._control_plane.own_worker_died(child.process.pid)
        if child is self._current and not self._stopping:
            self._current = None
            logger.error("the worker has died; the next starts in %g s", AGAIN_AFTER)
            await asyncio.sleep(AGAIN_AFTER)
            self._changed.set()
