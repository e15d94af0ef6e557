"""`FastWorker(app)`, as fastworker 0.3.0 had it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Unpack, cast

from fastapi import FastAPI

from fastworker.errors import ConnectionFailed
from fastworker.patient import PatientClient
from fastworker_fastapi.middleware import FastWorkerMiddleware
from fastworker_fastapi.service import EmbeddingOptions, Service

logger = logging.getLogger("fastworker.fastapi")

COUNT_WORKERS_EVERY: Final = 2.0
REMEMBERED: Final = 1000
"""How many submissions `get_result` and `get_status` know of without asking."""
_GONE: Final = ("discovery_address", "serialization_format", "retries")


class FastWorker:
    """An application's task queue in the words of 0.3.0. What is not defined here is looked up in the client.

    Args:
        app: gets `FastWorkerMiddleware`.
        client_kwargs: as in 0.3.0: `timeout` is the `patience` of today, and what is no more is ignored and logged.
        options: as `FastWorkerMiddleware` takes them, but for a client of your own.
    """

    def __init__(
        self, app: FastAPI, *, client_kwargs: Mapping[str, Any] | None = None, **options: Unpack[EmbeddingOptions]
    ) -> None:
        service = Service(make=_CountingClient, **{**_today(client_kwargs or {}), **options})
        self.client = cast(_CountingClient, service.client)
        self._recent: deque[str] = deque(maxlen=REMEMBERED)  # handles, which keep what is known of their tasks
        app.add_middleware(FastWorkerMiddleware, service=service)

    async def delay(self, task_name: str, *args: Any, **kwargs: Any) -> str:
        """Queue a task; returns its id once it is stored. Takes `priority, eta, countdown` too."""
        handle = await self.client.delay(task_name, *args, **kwargs)
        self._recent.append(handle)
        return handle

    @property
    def worker_count(self) -> int:
        """How many workers are connected, counted every 2 seconds; 0 while the control plane is away."""
        return self.client.worker_count

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.client, name)


class _CountingClient(PatientClient):
    """A client that knows how many workers there are without being asked."""

    worker_count = 0
    _counting: asyncio.Task[None] | None = None

    async def start(self) -> _CountingClient:
        await super().start()
        await self._count()
        self._counting = asyncio.create_task(self._count_forever())
        return self

    async def close(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
        await super().close()

    async def _count_forever(self) -> None:
        while True:
            await asyncio.sleep(COUNT_WORKERS_EVERY)
            await self._count()

    async def _count(self) -> None:
        count = 0
        with suppress(ConnectionFailed):
            if self.connected:
                count = (await self.stats()).workers
        self.worker_count = count


def _today(said: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of 0.3.0's client as those of today's."""
    ignored = [name for name in _GONE if name in said]
    if ignored:
        logger.warning("FastWorker(client_kwargs=…): %s mean nothing any more", ", ".join(ignored))
    known = {name: value for name, value in said.items() if name not in _GONE}
    if "timeout" in known:
        known["patience"] = known.pop("timeout")
    return known
