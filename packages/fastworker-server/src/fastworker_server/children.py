"""The control plane's own workers: child processes that are replaced when they die."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from fastworker.errors import ConfigurationError
from fastworker.settings import Settings
from fastworker_worker.command import child_command

logger = logging.getLogger("fastworker.children")

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
STEADY_AFTER: Final = 10.0
"""Seconds after which a child counts as having started well, so that the back-off begins anew."""


class Children:
    """Keeps `settings.processes` workers alive.

    Args:
        modules: what they import.
        url: where the control plane listens for them.
        on_death: is told the process id of a child that has died.
    """

    def __init__(
        self, modules: Sequence[str], url: str, settings: Settings, log_level: str, on_death: Callable[[int], None]
    ) -> None:
        self._modules = modules
        self._url = url
        self._settings = settings
        self._log_level = log_level
        self._on_death = on_death
        self._processes: dict[int, Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Start all."""
        self._keepers = [asyncio.create_task(self._keep(n)) for n in range(1, self._settings.processes + 1)]

    async def first_failure(self) -> None:
        """Wait for a child that can't even be started; there is nothing to go on with then.

        Raises:
            ConfigurationError: its own message has been printed by the child.
        """
        if self._keepers:
            done, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_EXCEPTION)
            for keeper in done:
                keeper.result()

    async def stop(self) -> None:
        """Drain all: SIGTERM, the grace period, then SIGKILL."""
        self._stopping = True
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        waits = [process.wait() for process in self._processes.values()]
        if waits:
            await asyncio.wait(map(asyncio.ensure_future, waits), timeout=self._settings.grace + 5.0)
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.kill()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _keep(self, number: int) -> None:
        """Run one child after the other, with growing pauses while they die young."""
        wait = FIRST_WAIT
        steady = False
        while not self._stopping:
            started = asyncio.get_running_loop().time()
            code = await self._run_one(number)
            if self._stopping:
                return
            lived = asyncio.get_running_loop().time() - started
            if code == 2 and not steady:
                raise ConfigurationError("a worker could not be started; its message is above")
            steady = steady or lived > STEADY_AFTER
            wait = FIRST_WAIT if lived > STEADY_AFTER else min(LONGEST_WAIT, wait * 2)
            logger.error(
                "worker %d ended with %s after %.1f s; the next starts in %.1f s", number, _ending(code), lived, wait
            )
            await asyncio.sleep(wait)

    async def _run_one(self, number: int) -> int:
        name = f"{platform.node()}:{os.getpid()}:own-{number}-{os.urandom(2).hex()}"
        command = child_command(self._modules, self._url, self._settings, name, self._log_level)
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, start_new_session=True)
        self._processes[process.pid] = process
        try:
            return await process.wait()
        finally:
            self._processes.pop(process.pid, None)
            self._on_death(process.pid)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
