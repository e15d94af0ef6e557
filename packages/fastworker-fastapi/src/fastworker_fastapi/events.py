"""The Server-Sent Events of one task: where it stands, how far it is, what it logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

from pydantic_core import to_json

from fastworker.client import Client
from fastworker.errors import ControlPlaneAway, ResultTimeout
from fastworker.lifecycle import TERMINAL, State
from fastworker.tasks import TaskInfo
from fastworker_fastapi.models import TaskOutcome, TaskStatus

LOOK_EVERY: Final = 0.25
"""Seconds: notes of a running task reach the control plane as often."""
LOOK_SELDOM_EVERY: Final = 1.0
"""While the task does not run, there is nothing but its state to be seen."""
KEEP_ALIVE_EVERY: Final = 15.0
"""Seconds of silence after which a comment tells proxies that the connection lives."""


class TaskEvents:
    """What a browser's `EventSource` is told of a task: `state`, `progress`, `log`, and at last `end`."""

    def __init__(self, client: Client, info: TaskInfo) -> None:
        self._client = client
        self._info = info
        self._state: State | None = None
        self._progress: tuple[float, str] | None = None
        self._log: Sequence[str] = ()

    async def stream(self) -> AsyncIterator[bytes]:
        """The events until the end of the task, as bytes of `text/event-stream`."""
        loop = asyncio.get_running_loop()
        spoken = loop.time()
        while True:
            for event in self._news():
                spoken = loop.time()
                yield event
            if self._info.state in TERMINAL:
                yield _event("end", TaskOutcome.of(self._info))
                return
            if loop.time() - spoken > KEEP_ALIVE_EVERY:
                spoken = loop.time()
                yield b": still here\n\n"
            await self._look_again()

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
