"""What an application has of FastWorker while it runs: a client that opens and closes with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from fastworker.client import Client
from fastworker.errors import ConfigurationError
from fastworker.middleware import active_middleware
from fastworker.patient import MAX_WAITING, PATIENCE, PatientClient
from fastworker_fastapi.embedding import embedded_control_plane


class Service:
    """Opens and closes an application's client.

    Args:
        client: one of your own, in place of one that is made from the other arguments.
        url: where the control plane is; default: `FASTWORKER_URL`, then this user's socket on this host.
        key: the cluster key or a role's as text, where the address needs one.
        patience: seconds that a request waits for a control plane that is away.
        max_waiting: how many submissions and questions may be under way at once.
        embedded: run the control plane and a worker inside this application; several processes of it share one.
    """

    def __init__(
        self,
        client: Client | None = None,
        *,
        url: str | None = None,
        key: str | None = None,
        patience: float = PATIENCE,
        max_waiting: int = MAX_WAITING,
        embedded: bool = False,
    ) -> None:
        if embedded and client is not None:
            raise ConfigurationError("embedded=True makes its own client: say either client= or embedded=True")
        self._embedded = embedded_control_plane(url) if embedded else None
        where = self._embedded.url if self._embedded is not None else url
        self.client = client or PatientClient(where, key, patience=patience, max_waiting=max_waiting)

    async def open(self) -> Self:
        """Start the client, after what is embedded.

        Raises:
            Refused: the control plane wants nothing to do with us.
            StoreError: what is embedded can't use its store.
        """
        if self._embedded is not None:
            await self._embedded.start()
        await self.client.start()
        return self

    async def close(self) -> None:
        """Say goodbye. Tasks that were submitted go on, if the control plane does."""
        await self.client.close()
        if self._embedded is not None:
            await self._embedded.stop()
        for middleware in active_middleware():  # uvicorn ends the process by a signal, so that no `atexit` runs
            await asyncio.to_thread(middleware.flush)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Client]:
        """Open, and close at the end."""
        await self.open()
        try:
            yield self.client
        finally:
            await self.close()
