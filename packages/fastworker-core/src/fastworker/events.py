"""Streams of changes: what happens to tasks, as it happens."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Iterable
from typing import Any

from fastworker.errors import EventsLost
from fastworker.lifecycle import TERMINAL
from fastworker.orders import Request
from fastworker.protocol import Change, Control


class Follower:
    """One stream. Changes that it has had already are left out."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.queue: asyncio.Queue[Change | EventsLost] = asyncio.Queue()

    def put(self, changes: Iterable[Change]) -> None:
        """Some changes have come."""
        for change in changes:
            if change.version > self.after:
                self.after = change.version
                self.queue.put_nowait(change)


class Events:
    """Follows the changes of all tasks once, for all streams of a client."""

    _followers: list[Follower]
    _seen: int = 0  # the number of the last change that came, or that is known to have been before

    @abstractmethod
    async def _ask(self, request: Request) -> Any:
        """Send a request, and wait for the data of its answer."""

    @abstractmethod
    def _ask_later(self, request: Request) -> asyncio.Future[Any]:
        """Send a request; the data of its answer comes later."""

    @property
    @abstractmethod
    def started(self) -> bool:
        """Whether there is a control plane to ask."""

    async def events(
        self, task_id: str | None = None, name: str | None = None, *, after: int | None = None
    ) -> AsyncGenerator[Change]:
        """The changes of all tasks, of one, or of one name, from now on. Ends with the end of the one.

        Args:
            after: the `version` of the last change that was seen: go on from there. The control plane remembers the
                last 20,000, for a minute after the last follower has left.

        Raises:
            EventsLost: changes in between are not known any more. What was missed has to be looked up.
        """
        mine = Follower(after if after is not None else self._seen)
        self._followers.append(mine)
        try:
            version = await self._ask(Control(0, "follow", after=after))
            if version is None:
                raise EventsLost(f"the changes after {after} are not known any more")
            self._seen = max(self._seen, version)
            while True:
                change = await mine.queue.get()
                if isinstance(change, EventsLost):
                    raise change
                if task_id not in (None, change.id) or name not in (None, change.name):
                    continue
                yield change
                if task_id is not None and change.state in TERMINAL:
                    return
        finally:
            self._followers.remove(mine)
            if not self._followers and self.started:
                await self._ask(Control(0, "unfollow"))

    def _changed(self, changes: list[Change]) -> None:
        for follower in self._followers:
            follower.put(changes)
        self._seen = max(self._seen, changes[-1].version)

    def _follow_again(self) -> None:
        """A new session has begun: go on where the last one ended."""
        if self._followers and self._seen:
            self._ask_later(Control(0, "follow", after=self._seen)).add_done_callback(self._followed_again)

    def _followed_again(self, answered: asyncio.Future[Any]) -> None:
        if answered.cancelled() or answered.exception() is not None or answered.result() is not None:
            return
        lost = EventsLost("the control plane was restarted: changes in between are not known")
        for follower in self._followers:
            follower.queue.put_nowait(lost)
