"""`app.add_middleware(FastWorkerMiddleware)`: plain ASGI, which touches no body and starts nothing per request."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Final, Unpack

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastworker.after_response import AfterResponse, collecting
from fastworker.errors import ControlPlaneAway, FastWorkerError
from fastworker.trace_context import TRACE_HEADERS, carrying
from fastworker_fastapi.background import BEFORE_RESPONSE_KEY, BeforeResponse
from fastworker_fastapi.service import Service, ServiceOptions

logger = logging.getLogger("fastworker.fastapi")

CLIENT_KEY: Final = "fastworker.client"
"""Under this key a request's scope holds the application's client."""
_TRACE_HEADERS: Final = {name.encode(): name for name in TRACE_HEADERS}
_GOODBYES: Final = ("lifespan.shutdown.complete", "lifespan.shutdown.failed", "lifespan.startup.failed")


class FastWorkerMiddleware:
    """Opens a client with the application's lifespan, closes it, and carries the trace context of each request.

    While it is open, `await task.submit(…)` in a handler goes through it. A submission that the control plane does not
    take in time is answered with 503 and `Retry-After`, unless the handler catches `ControlPlaneAway`.

    Args:
        app: the application.
        service: in place of options, what they would make.
        options: see `ServiceOptions`.
    """

    def __init__(self, app: ASGIApp, *, service: Service | None = None, **options: Unpack[ServiceOptions]) -> None:
        self.app = app
        self._service = service or Service(**options)
        self._open = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                await self._lifespan(scope, receive, send)
            case "http":
                await self._request(scope, receive, send)
            case _:
                self._hand_over(scope)
                with carrying(trace_headers(scope)):
                    await self.app(scope, receive, send)

    # ---- lifespan ------------------------------------------------------------------------------------------------

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open before the application's own start, close after its own end."""

        async def receive_and_open() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._start(send)
            return message

        async def close_and_send(message: Message) -> None:
            if message["type"] in _GOODBYES:
                await self._stop()
            await send(message)

        await self.app(scope, receive_and_open, close_and_send)

    async def _start(self, send: Send) -> None:
        try:
            await self._service.open()
        except Exception as error:  # else the server would take it that there is no lifespan, and go on without
            await send({"type": "lifespan.startup.failed", "message": f"FastWorker: {error}"})
            raise
        self._open = True

    async def _stop(self) -> None:
        self._open = False
        await self._service.close()

    # ---- requests ------------------------------------------------------------------------------------------------

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._open:  # a test without lifespan: tasks go through the default client of the process
            await self._answer(scope, receive, send, BeforeResponse())
            return
        self._hand_over(scope)
        before = scope[BEFORE_RESPONSE_KEY] = BeforeResponse()
        after = AfterResponse(self._service.client)
        with collecting(after):
            await self._answer(scope, receive, send, before)
        try:
            await after.submit()
        except FastWorkerError:
            lost = ", ".join(f"{submission.name} {submission.id}" for submission in after.submissions)
            logger.exception("what was to be submitted after the response is lost: %s", lost)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, before: BeforeResponse) -> None:
        begun = False

        async def submit_and_send(message: Message) -> None:
            nonlocal begun
            if not begun:
                await before.submit(self._service.client)
                begun = True
            await send(message)

        with carrying(trace_headers(scope)):
            try:
                await self.app(scope, receive, submit_and_send)
            except ControlPlaneAway as error:
                if begun:
                    raise
                await control_plane_away(Request(scope), error)(scope, receive, send)

    def _hand_over(self, scope: Scope) -> None:
        if self._open:
            scope[CLIENT_KEY] = self._service.client


def trace_headers(scope: Scope) -> Mapping[str, str]:
    """The W3C trace headers of a request."""
    found = {_TRACE_HEADERS[name]: value for name, value in scope["headers"] if name in _TRACE_HEADERS}
    return {name: value.decode("latin-1") for name, value in found.items()}


def control_plane_away(_: HTTPConnection, error: Exception) -> JSONResponse:
    """503 with `Retry-After`; also an exception handler: `app.add_exception_handler(ControlPlaneAway, …)`."""
    seconds = error.retry_after if isinstance(error, ControlPlaneAway) else 1.0
    body: dict[str, Any] = {"detail": "The task queue is not available. Try again later."}
    return JSONResponse(body, status_code=503, headers={"Retry-After": str(math.ceil(seconds))})
