"""What runs beside the control plane, as child processes: the dashboard, if it is installed.

Packages name theirs in the entry-point group `fastworker.companions`: a call with the control plane's address and the
settings that gives a command line, or None. A process of its own can neither stall the queue nor take its processor.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from typing import Final

from fastworker.settings import Settings

logger = logging.getLogger("fastworker.companions")

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
END_WITHIN: Final = 3.0

Companion = Callable[[str, Settings], Sequence[str] | None]


def companion_commands(url: str, settings: Settings) -> list[Sequence[str]]:
    """The commands of all installed companions that the settings want.

    Raises:
        ConfigurationError: one can't run with these settings.
    """
    found = []
    for point in sorted(entry_points(group="fastworker.companions"), key=lambda point: point.name):
        make: Companion = point.load()
        command = make(url, settings)
        if command is not None:
            found.append(command)
    return found


class Companions:
    """Keeps companions alive. They end by themselves when the control plane does, however that comes about."""

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self._commands = commands
        self._processes: list[Process] = []
        self._keepers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start all."""
        self._keepers = [asyncio.create_task(self._keep(command)) for command in self._commands]

    async def stop(self) -> None:
        """End all."""
        for keeper in self._keepers:
            keeper.cancel()
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.terminate()
        waits = [asyncio.ensure_future(process.wait()) for process in self._processes]
        if waits:
            await asyncio.wait(waits, timeout=END_WITHIN)
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.kill()

    async def _keep(self, command: Sequence[str]) -> None:
        wait = FIRST_WAIT
        while True:
            process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, start_new_session=True)
            self._processes.append(process)
            code = await process.wait()
            self._processes.remove(process)
            if code == 2:
                logger.error("the %s can't be started; its message is above", command[3])
                return
            logger.error("the %s ended with code %d; it starts again in %.0f s", command[3], code, wait)
            await asyncio.sleep(wait)
            wait = min(LONGEST_WAIT, wait * 2)
