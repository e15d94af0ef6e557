"""Style sheet, scripts and icon: served from the package, kept by browsers for as long as they don't change."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response

from fastworker_dashboard.request import not_found

assets = APIRouter(include_in_schema=False)

PARTS: Final = {
    "dashboard.css": ("text/css", ("dashboard.css",)),
    "htmx.js": ("text/javascript", ("htmx.min.js",)),
    "dashboard.js": ("text/javascript", ("sse.min.js", "idiomorph-ext.min.js", "dashboard.js")),
    "icon.svg": ("image/svg+xml", ("icon.svg",)),
}
"""What a page loads: its type, and the files that it is made of. Few requests, since HTTP/1.1 allows six at a time."""
FOR_EVER: Final = {"cache-control": "public, max-age=31536000, immutable"}


@cache
def asset(name: str) -> bytes:
    """The bytes of an asset."""
    folder = files("fastworker_dashboard") / "static"
    return b"\n".join((folder / part).read_bytes() for part in PARTS[name][1])


@cache
def asset_version(name: str) -> str:
    """Changes with the asset."""
    return hashlib.sha256(asset(name)).hexdigest()[:12]


@assets.get("/static/{name}")
async def static(name: str) -> Response:
    """One asset."""
    if name not in PARTS:
        raise not_found(f"there is no asset {name}")
    return Response(asset(name), media_type=PARTS[name][0], headers=FOR_EVER)
