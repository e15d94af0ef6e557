"""Puts the dashboard together as an ASGI application, to be run alone or mounted in another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from fastworker.errors import (
    ConfigurationError,
    ConnectionFailed,
    FastWorkerError,
    InvalidSearch,
    SubmitError,
    TaskNotFound,
)
from fastworker.release import RELEASE
from fastworker_dashboard.access import Access, Role
from fastworker_dashboard.actions import actions
from fastworker_dashboard.api import api, old, probes
from fastworker_dashboard.assets import assets
from fastworker_dashboard.control import ControlPlane
from fastworker_dashboard.guard import Guard
from fastworker_dashboard.live import Live
from fastworker_dashboard.notes import SubmissionNotes
from fastworker_dashboard.pages import doors, page_response, pages, render_topic, root_of
from fastworker_dashboard.request import Authenticate, LoginNeeded, NotAllowed, Site, site_of
from fastworker_dashboard.views import View

_STATUS: tuple[tuple[type[FastWorkerError], int], ...] = (
    (TaskNotFound, 404),
    (InvalidSearch, 400),
    (SubmitError, 422),
    (ConnectionFailed, 503),
)


def dashboard(
    control_plane: str | None = None,
    key: str | None = None,
    *,
    passwords: Mapping[Role, str] | None = None,
    authenticate: Authenticate | None = None,
    hosts: Iterable[str] = (),
    prefix: str = "",
    trace_url: str | None = None,
) -> ASGIApp:
    """The dashboard as an ASGI application: run it with uvicorn, or `app.mount("/fastworker", dashboard())`.

    Args:
        control_plane: where it is; default: as for the application that this is mounted in, else as for `Client`.
        key: the cluster key, where the address needs one.
        passwords: by role (`viewer`, `operator`, `admin`). Without any, everybody who can reach it is an admin.
        authenticate: gets a request and says which `User` it is, None for nobody; in place of passwords.
        hosts: names by which browsers may call it, besides those of loopback.
        prefix: what a proxy takes away from the beginning of paths.
        trace_url: where traces are shown, with `{trace_id}` in it.

    Raises:
        ConfigurationError: there are passwords, and `authenticate` besides.
    """
    if passwords and authenticate is not None:
        raise ConfigurationError("either the dashboard asks for passwords, or authenticate= says who may come in")
    there = ControlPlane(control_plane, key)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await there.close()

    app = FastAPI(
        title="FastWorker", version=RELEASE, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json",
        root_path=prefix.rstrip("/"), lifespan=lifespan,
    )  # fmt: skip
    app.state.site = Site(
        Access(passwords or {}),
        there,
        Live(there, partial(render_topic, there, trace_url)),
        SubmissionNotes(),
        trace_url,
        authenticate,
    )
    for router in (assets, doors, probes, api, old, actions, pages):
        app.include_router(router)
    _add_refusals(app)
    return Guard(app, hosts)


def _add_refusals(app: FastAPI) -> None:
    app.add_exception_handler(LoginNeeded, _to_login)
    app.add_exception_handler(NotAllowed, _refusal(403))
    app.add_exception_handler(HTTPException, _http_error)
    for kind, status in _STATUS:
        app.add_exception_handler(kind, _refusal(status))
    app.add_exception_handler(FastWorkerError, _refusal(500))


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and "/api/" not in request.url.path


async def _to_login(request: Request, _error: Exception) -> Response:
    if site_of(request).authenticate is not None:
        return _say(request, 401, "log in to the application that this is a part of")
    if _wants_page(request):
        return RedirectResponse(f"{root_of(request)}/login", 303)
    text = "log in, or send a password as bearer token"
    return JSONResponse({"error": text}, 401, {"www-authenticate": "Bearer"})


def _refusal(status: int) -> Any:
    async def answer(request: Request, error: Exception) -> Response:
        return _say(request, status, str(error))

    return answer


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _say(request, error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


def _say(request: Request, status: int, text: str) -> Response:
    """What went wrong: as a page for people, as JSON for programs."""
    if _wants_page(request):
        return page_response(request, View("sorry.html", "Sorry", {"text": text, "live": status == 503}, status), None)
    return JSONResponse({"error": text}, status)
