"""A lifespan for applications that rather have no middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastworker.client import Client
from fastworker.patient import MAX_WAITING, PATIENCE
from fastworker_fastapi.service import Service

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def fastworker_lifespan(
    inner: Lifespan | None = None,
    client: Client | None = None,
    *,
    url: str | None = None,
    key: str | None = None,
    patience: float = PATIENCE,
    max_waiting: int = MAX_WAITING,
    embedded: bool = False,
) -> Lifespan:
    """A lifespan that opens a client, and inside runs yours: `FastAPI(lifespan=fastworker_lifespan(mine))`.

    Args:
        inner: the application's own lifespan; what it yields is passed on.
        client: one of your own, in place of one that is made from the other arguments; see `FastWorkerMiddleware`.
    """
    service = Service(client, url=url, key=key, patience=patience, max_waiting=max_waiting, embedded=embedded)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with service.running() as client:
            app.state.fastworker = client
            try:
                if inner is None:
                    yield
                    return
                async with inner(app) as state:
                    yield state
            finally:
                del app.state.fastworker

    return lifespan
