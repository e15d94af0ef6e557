"""A client for servers: each request waits a bounded time for the control plane, and only so many wait at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self

from fastworker import current
from fastworker.client import Client
from fastworker.connection import Connection
from fastworker.errors import ConnectionFailed, ControlPlaneAway, NoControlPlane
from fastworker.orders import Request
from fastworker.protocol import Submission

logger = logging.getLogger("fastworker.client")

FIRST_LOOK: Final = 2.0
"""Seconds that a server's start waits for the control plane."""
LOOK_AGAIN_AFTER: Final = 1.0
PATIENCE: Final = 5.0
MAX_WAITING: Final = 1000


class PatientClient(Client):
    """A client that a server starts with, whether the control plane is there or not.

    While it is away, submissions and questions wait, then raise `ControlPlaneAway`. Nothing is sent later that was
    refused while there was no connection.

    Args:
        url: where the control plane is; default: `FASTWORKER_URL`, then this user's socket on this host.
        key: the cluster key or a role's as text, where the address needs one.
        patience: seconds that a submission or a question may take in all.
        max_waiting: how many may be under way at once; one more is refused at once.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        patience: float = PATIENCE,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        super().__init__(url, key, connect_timeout=FIRST_LOOK)
        self.patience = patience
        self.max_waiting = max_waiting
        self._under_way = 0
        self._looking: asyncio.Task[None] | None = None

    # ---- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> Self:
        """Connect, or go on looking for the control plane in the background.

        Raises:
            Refused: it wants nothing to do with us.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await super().start()
        except NoControlPlane as error:
            logger.warning("%s. Starting without; submissions fail after %g s until it is there", error, self.patience)
            current.opened(self)
            self._looking = asyncio.create_task(self._keep_looking())
        return self

    async def _keep_looking(self) -> None:
        while True:
            try:
                await super().start()
            except NoControlPlane:
                continue  # each look takes its time
            except ConnectionFailed as error:
                logger.error("%s; looking again in %g s", error, LOOK_AGAIN_AFTER)
                await asyncio.sleep(LOOK_AGAIN_AFTER)
            else:
                logger.info("the control plane is there")
                return

    async def close(self) -> None:
        """Say goodbye and disconnect, or stop looking."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
        await super().close()

    # ---- the bounds ----------------------------------------------------------------------------------------------

    async def _send_submit(self, submissions: Sequence[Submission], strict: bool) -> dict[str, str]:
        async with self._turn():
            return await super()._send_submit(submissions, strict)

    async def _ask(self, request: Request) -> Any:
        async with self._turn():
            return await super()._ask(request)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for the control plane to be there; all that happens inside is over within the patience."""
        self._refuse_if_crowded()
        self._under_way += 1
        limit = asyncio.timeout(self.patience)
        was = "the control plane was away; nothing was sent"
        try:
            async with limit:
                await self._until_connected()
                was = "the control plane has not answered; what was asked may or may not have been done"
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise ControlPlaneAway(f"{was} ({self.patience:g} s)", self.patience) from None
        finally:
            self._under_way -= 1

    def _refuse_if_crowded(self) -> None:
        backlog = self._connection.backlog if self._connection is not None else 0
        if max(self._under_way, backlog) >= self.max_waiting:
            raise ControlPlaneAway(f"{self.max_waiting} requests wait for the control plane already", self.patience)

    async def _until_connected(self) -> None:
        while not self.connected:
            if self._connection is not None:
                await self._connection.until_connected()
            elif self._looking is not None:
                await asyncio.wait([self._looking])
            else:
                self._open()  # raises: it was not started, or was stopped

    def _open(self) -> tuple[Connection, asyncio.AbstractEventLoop]:
        if self._connection is None and self._looking is not None:
            raise ControlPlaneAway("the control plane is away", self.patience)
        return super()._open()
