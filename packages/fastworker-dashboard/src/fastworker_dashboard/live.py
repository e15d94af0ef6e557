"""Live pages: each is rendered once a tick for all who look at it, and sent to them if it has changed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple

from fastworker.errors import ConnectionFailed, FastWorkerError
from fastworker_dashboard.control import ControlPlane

logger = logging.getLogger("fastworker.dashboard")

TICK: Final = 0.25
"""Seconds between two renderings at least: four a second."""
SHARE: Final = 20
"""One part in so many of the time may go to rendering."""
SLOWEST: Final = 3.0
"""Seconds between two renderings at most, however busy the machine is."""
QUIET: Final = 2.0
"""Seconds after which a page is rendered anew although nothing moved: it says how long ago things were."""
KEEP_ALIVE: Final = 15.0
MOST_VIEWERS: Final = 500


class Topic(NamedTuple):
    """A page as somebody sees it."""

    root: str
    path: str
    query: str
    role: str


Render = Callable[[Topic], Awaitable[str]]


class TooManyViewers(Exception):
    """No more can look at once."""


class _Page:
    """What is known of a topic."""

    def __init__(self) -> None:
        self.viewers: set[asyncio.Queue[str]] = set()
        self.digest = b""
        self.rendered = 0.0
        self.version = -1


class Live:
    """All who look at live pages.

    Args:
        render: gives the inside of a page.
    """

    def __init__(self, control_plane: ControlPlane, render: Render) -> None:
        self._control_plane = control_plane
        self._render = render
        self._pages: dict[Topic, _Page] = {}
        self._ticking: asyncio.Task[None] | None = None
        self._there = True

    @property
    def viewers(self) -> int:
        """How many look."""
        return sum(len(page.viewers) for page in self._pages.values())

    async def stream(self, topic: Topic) -> AsyncIterator[str]:
        """Server-sent events for one tab, until it goes away.

        Raises:
            TooManyViewers: at the first step.
        """
        if self.viewers >= MOST_VIEWERS:
            raise TooManyViewers
        page = self._pages.setdefault(topic, _Page())
        mine: asyncio.Queue[str] = asyncio.Queue()
        page.viewers.add(mine)
        page.version, page.digest = -1, b""  # the newcomer may have an older state than the others
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick_while_watched())
        try:
            yield "retry: 1000\nevent: hello\ndata: \n\n"
            while True:
                try:
                    yield await asyncio.wait_for(mine.get(), KEEP_ALIVE)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            page.viewers.discard(mine)
            if not page.viewers:
                self._pages.pop(topic, None)

    async def _tick_while_watched(self) -> None:
        while self._pages:
            began = time.monotonic()
            try:
                await self._tick()
                self._tell_all_is_well()
            except (FastWorkerError, ConnectionFailed) as error:
                self._tell_away(error)
            except Exception:
                logger.exception("a live page could not be rendered")
            spent = time.monotonic() - began
            await asyncio.sleep(min(SLOWEST, max(TICK, SHARE * spent)))

    async def _tick(self) -> None:
        client = await self._control_plane.now()
        version = (await client.stats()).version
        for topic, page in list(self._pages.items()):
            now = time.monotonic()
            if page.version == version and now - page.rendered < QUIET:
                continue
            html = await self._render(topic)
            page.version, page.rendered = version, now
            digest = hashlib.blake2b(html.encode(), digest_size=16).digest()
            if digest != page.digest:
                page.digest = digest
                self._send(page, _event("page", html))

    def _tell_all_is_well(self) -> None:
        if not self._there:
            self._there = True
            for page in self._pages.values():
                self._send(page, _event("back", ""))

    def _tell_away(self, error: Exception) -> None:
        if self._there:
            logger.warning("the control plane is away: %s", error)
            self._there = False
        for page in self._pages.values():
            page.version, page.digest = -1, b""
            self._send(page, _event("away", ""))

    def _send(self, page: _Page, event: str) -> None:
        for viewer in page.viewers:
            while not viewer.empty():  # it is slow: the newest is enough
                viewer.get_nowait()
            viewer.put_nowait(event)


def _event(name: str, data: str) -> str:
    lines = "\n".join(f"data: {line}" for line in data.splitlines() or [""])
    return f"event: {name}\n{lines}\n\n"
