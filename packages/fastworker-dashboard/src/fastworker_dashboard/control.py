"""The way to the control plane: one client, connected when it is first needed, and again after it was lost."""

from __future__ import annotations

import asyncio
import time

from fastworker import current
from fastworker.client import Client
from fastworker.errors import NoControlPlane

TRY_AGAIN_AFTER = 1.0
CONNECT_WITHIN = 2.0


class _Onlooker(Client):
    """A client of the dashboard's own: what the application around it submits goes elsewhere."""

    serves_task_functions = False


class ControlPlane:
    """A client of the control plane, for one event loop.

    Args:
        url: where it is; default: as for the application that the dashboard is mounted in, else as for every client.
        key: the cluster key, where the address needs one.
    """

    def __init__(self, url: str | None = None, key: str | None = None) -> None:
        self._url = url
        self._key = key
        self._client: Client | None = None
        self._starting = asyncio.Lock()
        self._failed: tuple[float, NoControlPlane] | None = None

    async def client(self) -> Client:
        """The client.

        Raises:
            NoControlPlane: it can't be reached, or could not a moment ago.
        """
        known = self._known()
        if known is not None:
            return known
        async with self._starting:
            if self._client is None:
                self._client = await self._start()
            return self._client

    def _known(self) -> Client | None:
        """The client of the application around us, or the one that was started before."""
        application = current.started_here() if self._url is None else None
        return application if isinstance(application, Client) else self._client

    async def _start(self) -> Client:
        if self._failed is not None and time.monotonic() - self._failed[0] < TRY_AGAIN_AFTER:
            raise self._failed[1]
        try:
            return await _Onlooker(self._url, self._key, connect_timeout=CONNECT_WITHIN).start()
        except NoControlPlane as error:
            self._failed = (time.monotonic(), error)
            raise

    @property
    def insecure(self) -> bool:
        """Whether the control plane listens without encryption, as far as is known."""
        known = self._known()
        return known is not None and known.insecure

    async def now(self) -> Client:
        """The client, if the control plane is there at this moment.

        Raises:
            NoControlPlane: it is not; a restart may be under way.
        """
        client = await self.client()
        if not client.connected:
            raise NoControlPlane("the control plane is away; this page goes on by itself once it is back")
        return client

    async def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            await self._client.stop()
            self._client = None
