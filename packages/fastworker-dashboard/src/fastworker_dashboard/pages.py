"""The routes of the pages, their live stream, logging in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from fastworker.errors import NoControlPlane
from fastworker_dashboard.access import COOKIE, SESSION_LASTS, User
from fastworker_dashboard.control import ControlPlane
from fastworker_dashboard.live import MOST_VIEWERS, Topic
from fastworker_dashboard.rendering import render
from fastworker_dashboard.request import TheClient, Viewer, not_found, site_of
from fastworker_dashboard.views import PageNotFound, View, view_of

pages = APIRouter(include_in_schema=False)
doors = APIRouter(include_in_schema=False)

MESSAGES = {
    "retried": "Queued again.",
    "cancelled": "Cancelled: what was queued won't start, what runs was asked to stop.",
    "not-ended": "Not queued again: it has not ended.",
    "submitted": "Submitted.",
    "reprioritised": "It has the new priority.",
    "ended": "Not changed: it has ended.",
    "paused": "Paused: what runs goes on, nothing new starts.",
    "resumed": "Resumed.",
    "drained": "Drained: the worker finishes what it runs and gets nothing new.",
    "undrained": "The worker gets tasks again.",
    "started": "Started in the background: its progress is on this page.",
    "stopped": "Stopped; what was done stays done.",
}


def page_response(request: Request, view: View, user: User | None, **more: object) -> HTMLResponse:
    """A whole page."""
    said = MESSAGES.get(request.query_params.get("said", ""))
    query = "&".join(part for part in request.url.query.split("&") if not part.startswith("said="))
    html = render(
        view, root=root_of(request), path=path_of(request), query=query, user=user, whole=True, message=said,
        needs_login=site_of(request).access.needed, insecure=site_of(request).control_plane.insecure,
        trace_url=site_of(request).trace_url, **more,
    )  # fmt: skip
    return HTMLResponse(html, view.status)


def root_of(request: Request) -> str:
    """The prefix that the dashboard is mounted under, or that a proxy takes away."""
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")


def path_of(request: Request) -> str:
    """The path below the prefix."""
    path: str = request.scope["path"]
    return path.removeprefix(root_of(request)) or "/"


@pages.get("/")
@pages.get("/tasks")
@pages.get("/tasks/{rest:path}")
@pages.get("/failed")
@pages.get("/queues")
@pages.get("/workers")
@pages.get("/workers/{rest:path}")
@pages.get("/types")
@pages.get("/types/{rest:path}")
@pages.get("/schedules")
@pages.get("/audit")
@pages.get("/about")
async def page(request: Request, user: Viewer, client: TheClient) -> Response:
    """Any of the pages."""
    try:
        view, said = view_of(path_of(request))
    except PageNotFound:
        raise not_found("there is no such page") from None
    shown = await view(client, {**request.query_params, **said})
    only = shown.values.get("only")
    if only is not None:
        return RedirectResponse(f"{root_of(request)}/tasks/{only}", 303)
    return page_response(request, shown, user)


async def render_topic(control_plane: ControlPlane, trace_url: str | None, topic: Topic) -> str:
    """The inside of a page, for all who look at it with the same role."""
    view, said = view_of(topic.path)
    shown = await view(await control_plane.now(), {**dict(parse_qsl(topic.query)), **said})
    user = User(topic.role, "")  # type: ignore[arg-type]
    return render(
        shown, root=topic.root, path=topic.path, query=topic.query, user=user, whole=False, trace_url=trace_url
    )


@pages.get("/live")
async def live(request: Request, user: Viewer, page: str = "/") -> Response:
    """The live stream of a page."""
    site = site_of(request)
    parts = urlsplit(page)
    try:
        view_of(parts.path)
    except PageNotFound:
        raise not_found("there is no such page") from None
    if site.live.viewers >= MOST_VIEWERS:
        return Response("too many pages are open", 503, {"retry-after": "10"})
    stream: AsyncIterator[str] = site.live.stream(Topic(root_of(request), parts.path, parts.query, user.role))
    return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


# ---- the door ----------------------------------------------------------------------------------------------------


@doors.get("/login")
async def login_page(request: Request) -> Response:
    """Asks for the password."""
    with suppress(NoControlPlane):  # to know whether it is insecure; to log in works without it
        await site_of(request).control_plane.client()
    return page_response(request, View("login.html", "Log in", {"live": False, "wrong": False}), None)


@doors.post("/login")
async def login(request: Request, password: str = Form()) -> Response:
    """Begins a session."""
    access = site_of(request).access
    role = await access.role_of(password)
    if role is None:
        return page_response(request, View("login.html", "Log in", {"live": False, "wrong": True}, 401), None)
    response = RedirectResponse(f"{root_of(request)}/", 303)
    response.set_cookie(
        COOKIE, access.begin(User(role, role)), max_age=int(SESSION_LASTS), path=f"{root_of(request)}/", httponly=True,
        samesite="strict", secure=request.url.scheme == "https",
    )  # fmt: skip
    return response


@doors.post("/logout")
async def logout(request: Request) -> Response:
    """Ends the session."""
    site_of(request).access.end(request.cookies.get(COOKIE))
    response = RedirectResponse(f"{root_of(request)}/login", 303)
    response.delete_cookie(COOKIE, path=f"{root_of(request)}/")
    return response
