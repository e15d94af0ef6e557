"""What an application has of FastWorker while it runs: a client that opens and closes with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self, TypedDict, Unpack

from fastworker.client import Client
from fastworker.errors import ConfigurationError
from fastworker.middleware import active_middleware
from fastworker.patient import PatientClient
from fastworker_fastapi.embedding import embedded_control_plane


class PatientOptions(TypedDict, total=False):
    """What `PatientClient` takes; see there."""

    url: str | None
    key: str | None
    patience: float
    max_waiting: int


class EmbeddingOptions(PatientOptions, total=False):
    """Those of `PatientClient`, and:

    embedded: run the control plane and a worker inside this application; several processes of it share one.
    """

    embedded: bool


class ServiceOptions(EmbeddingOptions, total=False):
    """What an application says of its task queue, wherever it says it: the middleware, the lifespan.

    Besides those of `PatientClient`, and `embedded`:

    client: one of your own, in place of one that is made from the other options.
    """

    client: Client | None


class Service:
    """Opens and closes an application's client.

    Args:
        client, embedded, options: see `ServiceOptions`.
        make: makes the client from the options.

    Raises:
        ConfigurationError: a client of your own was given, and options of one that is to be made.
    """

    def __init__(
        self,
        *,
        client: Client | None = None,
        embedded: bool = False,
        make: Callable[..., Client] = PatientClient,
        **options: Unpack[PatientOptions],
    ) -> None:
        self._embedded = embedded_control_plane(options.get("url")) if embedded else None
        if client is not None and (embedded or options):
            others = ", ".join([*(["embedded"] if embedded else []), *options])
            raise ConfigurationError(f"a client of your own is taken as it is: say either client= or {others}")
        if self._embedded is not None:
            options["url"] = self._embedded.url
        self.client = client or make(**options)

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
