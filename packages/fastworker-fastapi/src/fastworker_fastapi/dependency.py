"""`FastWorkerClient`: the application's client as a parameter of a handler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from fastworker.client import Client
from fastworker.patient import PatientClient
from fastworker_fastapi.middleware import CLIENT_KEY


async def fastworker_client(connection: HTTPConnection) -> AsyncIterator[Client]:
    """The client that the application's lifespan has opened; without one, a client for this request alone.

    Tests put their own in its place: `app.dependency_overrides[fastworker_client] = lambda: mine`.
    """
    opened = connection.scope.get(CLIENT_KEY) or getattr(connection.app.state, "fastworker", None)
    if isinstance(opened, Client):
        yield opened
        return
    async with PatientClient() as client:
        yield client


FastWorkerClient = Annotated[Client, Depends(fastworker_client)]
