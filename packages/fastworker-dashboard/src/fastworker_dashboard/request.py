"""What a request brings along: who asks, for which page, with which client."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from fastworker.client import Client
from fastworker_dashboard.access import COOKIE, Access, Role, User
from fastworker_dashboard.control import ControlPlane
from fastworker_dashboard.live import Live
from fastworker_dashboard.notes import SubmissionNotes

Authenticate = Callable[[Request], User | Awaitable[User | None] | None]
"""Of an application that the dashboard is mounted in: who asks, or None. May raise an `HTTPException` of its own."""


@dataclass(slots=True)
class Site:
    """What all routes of one dashboard share. With `authenticate`, the application says who may come in."""

    access: Access
    control_plane: ControlPlane
    live: Live
    notes: SubmissionNotes
    trace_url: str | None = None
    authenticate: Authenticate | None = None


class LoginNeeded(Exception):
    """Nobody is logged in."""


class NotAllowed(Exception):
    """The role is not enough."""

    def __init__(self, needed: Role) -> None:
        super().__init__(f"this needs the role {needed}")


def site_of(request: Request) -> Site:
    """The dashboard that got the request."""
    site: Site = request.app.state.site
    return site


async def user_of(request: Request) -> User | None:
    """Who asks: as the application says, by the session's cookie, or by a password as bearer token."""
    site = site_of(request)
    if site.authenticate is not None:
        said = site.authenticate(request)
        return await said if inspect.isawaitable(said) else said
    access = site.access
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and access.needed:
        role = await access.role_of(token.strip())
        return User(role, f"{role} (API)") if role is not None else None
    return access.user_of(request.cookies.get(COOKIE))


def needs(role: Role) -> Callable[[Request], Awaitable[User]]:
    """A dependency: the user, if the role is enough."""

    async def check(request: Request) -> User:
        user = await user_of(request)
        if user is None:
            raise LoginNeeded
        if not user.may(role):
            raise NotAllowed(role)
        return user

    return check


async def client_of(request: Request) -> Client:
    """The client of the control plane."""
    return await site_of(request).control_plane.now()


Viewer = Annotated[User, Depends(needs("viewer"))]
Operator = Annotated[User, Depends(needs("operator"))]
Admin = Annotated[User, Depends(needs("admin"))]
TheClient = Annotated[Client, Depends(client_of)]


def not_found(what: str) -> HTTPException:
    """404."""
    return HTTPException(404, what)
