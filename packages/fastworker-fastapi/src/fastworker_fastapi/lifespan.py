"""A lifespan for applications that rather have no middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Unpack

from fastworker_fastapi.service import Service, ServiceOptions

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def fastworker_lifespan(inner: Lifespan | None = None, **options: Unpack[ServiceOptions]) -> Lifespan:
    """A lifespan that opens a client, and inside runs yours: `FastAPI(lifespan=fastworker_lifespan(mine))`.

    Args:
        inner: the application's own lifespan; what it yields is passed on.
        options: see `ServiceOptions`.
    """
    service = Service(**options)

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
