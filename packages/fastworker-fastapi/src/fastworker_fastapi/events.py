"""The Server-Sent Events of one task: where it stands, how far it is, what it logs, what it yields."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

from pydantic_core import to_json

from fastworker.client import Client
from fastworker.errors import ControlPlaneAway, NoPartsKept, ResultExpired, ResultTimeout
from fastworker.lifecycle import TERMINAL, State
from fastworker.tasks import TaskInfo
from fastworker_fastapi.models import TaskOutcome, TaskStatus

logger = logging.getLogger("fastworker.fastapi")

LOOK_EVERY: Final = 0.25
"""Seconds: notes of a running task reach the control plane as often."""
LOOK_SELDOM_EVERY: Final = 1.0
"""While the task does not run, there is nothing but its state to be seen."""
KEEP_ALIVE_EVERY: Final = 15.0
"""Seconds of silence after which a comment tells proxies that the connection lives."""
MOST_WAITING: Final = 100
"""Events that wait for a slow reader; what comes then waits in the client, where it is bounded too."""


class TaskEvents:
    """What a browser's `EventSource` is told of a task: `state`, `progress`, `log`, `part`, `gap`, and at last `end`.

    Args:
        info: what is known of the task.
        next_part: the number of the first part that is wanted. Each part has its number as the event's id, so that a
            browser that connects again says itself which was its last.
    """

    def __init__(self, client: Client, info: TaskInfo, next_part: int = 0) -> None:
        self._client = client
        self._info = info
        self._next_part = next_part
        self._state: State | None = None
        self._progress: tuple[float, str] | None = None
        self._log: Sequence[str] = ()
        self._told: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_WAITING)

    async def stream(self) -> AsyncIterator[bytes]:
        """The events until the end of the task, as bytes of `text/event-stream`."""
        telling = asyncio.create_task(self._tell())
        try:
            while (event := await self._next_event()) is not None:
                yield event
        finally:
            telling.cancel()

    async def _next_event(self) -> bytes | None:
        try:
            return await asyncio.wait_for(self._told.get(), KEEP_ALIVE_EVERY)
        except TimeoutError:
            return b": still here\n\n"

    # ---- those who tell ------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """All there is; None at the end."""
        parts = asyncio.create_task(self._tell_parts())
        try:
            while self._info.state not in TERMINAL:
                await self._tell_news()
                await self._look_again()
            await parts
            await self._tell_news()
            await self._told.put(_event("end", TaskOutcome.of(self._info)))
        except Exception:
            logger.exception("the events of task %s stop before its end", self._info.id)
        finally:
            parts.cancel()
        await self._told.put(None)

    async def _tell_parts(self) -> None:
        try:
            async for part in self._client.stream(self._info.id, self._next_part):
                await self._told.put(b"id: %d\nevent: part\ndata: %b\n\n" % (self._next_part, part.encode()))
                self._next_part += 1
        except NoPartsKept:
            return
        except ResultExpired as error:
            await self._told.put(_event("gap", {"detail": str(error)}))

    async def _tell_news(self) -> None:
        for event in self._news():
            await self._told.put(event)

    async def _look_again(self) -> None:
        """Wait for the end of the task, not for long, then ask how it stands."""
        often = self._info.state is State.RUNNING
        with suppress(ResultTimeout):
            await self._client.wait(self._info.id, LOOK_EVERY if often else LOOK_SELDOM_EVERY)
        with suppress(ControlPlaneAway):  # what has been told stays true; it is asked again
            self._info = await self._client.info(self._info.id)

    def _news(self) -> list[bytes]:
        """What is new since the last look."""
        info, events = self._info, []
        if info.state is not self._state:
            self._state = info.state
            events.append(_event("state", TaskStatus.of(info)))
        for line in unseen(self._log, info.log):
            events.append(_event("log", {"line": line}))
        self._log = info.log
        if info.progress is not None and info.progress != self._progress:
            self._progress = info.progress
            events.append(_event("progress", {"progress": info.progress[0], "text": info.progress[1]}))
        return events


def unseen(seen: Sequence[str], log: Sequence[str]) -> Sequence[str]:
    """The lines of a log that came after those seen, where both are the last lines of one log."""
    for start in range(len(seen) + 1):
        kept = seen[start:]
        if list(log[: len(kept)]) == list(kept):
            return log[len(kept) :]
    return log


def _event(kind: str, data: object) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + to_json(data) + b"\n\n"
