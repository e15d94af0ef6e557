"""Keeps worker processes alive: children that are replaced when they die. Spawned, never forked."""

from __future__ import annotations

import asyncio
import logging
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from fastworker.errors import ConfigurationError

logger = logging.getLogger("fastworker.supervisor")

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
STEADY_AFTER: Final = 10.0
"""Seconds after which a child counts as having started well, so that the back-off begins anew."""


class Supervisor:
    """Keeps some workers alive.

    Args:
        count: how many.
        command: the command line of worker number n, counted from 1; asked again at each start.
        grace: seconds that running tasks get at a stop.
        on_death: is told the process id of a child that has died.
    """

    def __init__(
        self,
        count: int,
        command: Callable[[int], Sequence[str]],
        grace: float,
        on_death: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._count = count
        self._command = command
        self._grace = grace
        self._on_death = on_death
        self._processes: dict[int, Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Start all."""
        self._keepers = [asyncio.create_task(self._keep(n)) for n in range(1, self._count + 1)]

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
            await asyncio.wait(map(asyncio.ensure_future, waits), timeout=self._grace + 5.0)
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
        young = 0
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
            young = 0 if lived > STEADY_AFTER else young + 1
            again = f", the {young}. time in a row so soon; what it said is above" if young > 1 else ""
            logger.error(
                "worker %d ended with %s after %.1f s%s; the next starts in %.1f s",
                number, _ending(code), lived, again, wait,
            )  # fmt: skip
            await asyncio.sleep(wait)

    async def _run_one(self, number: int) -> int:
        process = await asyncio.create_subprocess_exec(*self._command(number), stdin=PIPE, start_new_session=True)
        logger.info("worker %d is process %d", number, process.pid)
        self._processes[process.pid] = process
        try:
            return await process.wait()
        finally:
            self._processes.pop(process.pid, None)
            self._on_death(process.pid)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
