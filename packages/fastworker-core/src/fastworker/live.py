"""What a running task says, as its reader receives it."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from fastworker.errors import NoPartsKept, ResultExpired
from fastworker.protocol import Ended, Note
from fastworker.sealing import sealer

MOST_WAITING: Final = 10_000
"""Notes that wait for a slow reader; older ones go first."""


class Live:
    """The notes of one task, from when somebody began to listen.

    Attributes:
        next_part: the number of the next part that the reader wants.
        closed: the task has ended.
        up_to_date: what was said before we listened has come. An empty note says so.
    """

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.next_part = 0
        self.closed = False
        self.up_to_date = False
        self._notes: deque[Note] = deque(maxlen=MOST_WAITING)
        self._news = asyncio.Event()

    def arrive(self, note: Note) -> None:
        """A note has come."""
        if not _says_how_it_goes(note) and note.first is None:
            self.up_to_date = True
        else:
            self._notes.append(note)
        self._news.set()

    def close(self) -> None:
        """Nothing more will come."""
        self.closed = True
        self._news.set()

    async def next(self) -> Note | None:
        """The next note; None once there are no more."""
        while not self._notes and not (self.closed and self.up_to_date):
            self._news.clear()
            await self._news.wait()
        return self._notes.popleft() if self._notes else None

    def parts(self, note: Note) -> list[str] | None:
        """The parts of a note that are new to the reader; None if some before them are missing."""
        if note.first is None:
            return []
        if note.first > self.next_part:
            return None
        new = note.parts[self.next_part - note.first :]
        self.next_part += len(new)
        return new

    def gone(self, note: Note | None) -> ResultExpired:
        """The error for parts that can't be had any more."""
        if note is not None and note.attempt == 0:
            return NoPartsKept(
                f"of task {self.task_id} no parts are kept: it yields none, or ended long ago", self.task_id
            )
        last = f" to {note.first - 1}" if note is not None and note.first else ""
        return ResultExpired(
            f"the parts {self.next_part}{last} of task {self.task_id} are no longer kept: read sooner and faster, or "
            "yield fewer and larger parts",
            self.task_id,
        )


def _says_how_it_goes(note: Note) -> bool:
    return note.progress is not None or note.sealed_progress is not None or bool(note.log)


class Listening:
    """Receives what tasks say, for all readers of a client."""

    _live: dict[str, list[Live]]

    @abstractmethod
    async def wait(self, task_id: str) -> Ended:
        """Wait for the end of a task."""

    @abstractmethod
    def _listen(self, task_id: str) -> None:
        """Ask for what a task has said and says."""

    async def notes(self, task_id: str) -> AsyncGenerator[Note]:
        """What a task says, from now on until its end: progress and log lines. A slow reader misses some."""
        sealing = sealer()
        async with self._listening(task_id) as live:
            while (note := await live.next()) is not None:
                if _says_how_it_goes(note):
                    yield note if sealing is None else sealing.open_note(note)

    async def stream(self, task_id: str, first: int = 0) -> AsyncGenerator[str]:
        """What a task has yielded and will yield, as JSON; see `TaskHandle.stream`.

        Args:
            first: the number of the first part that is wanted, counted from 0.

        Raises:
            ResultExpired: parts are no longer kept.
            NoPartsKept: it has ended, and there are none.
        """
        asked_again = False
        sealing = sealer()
        async with self._listening(task_id) as live:
            live.next_part = first
            while (note := await live.next()) is not None:
                parts = live.parts(note)
                if parts is None and (asked_again or note.attempt == 0):
                    raise live.gone(note)
                if parts is None:
                    asked_again = True  # we were too slow; the control plane may still have them
                    live.up_to_date = False
                    self._listen(task_id)
                    continue
                asked_again = asked_again and not parts
                for part in parts:
                    yield part if sealing is None else sealing.open_part(task_id, part)

    @asynccontextmanager
    async def _listening(self, task_id: str) -> AsyncIterator[Live]:
        """Receive what a task says, until it has ended."""
        live = Live(task_id)
        self._live.setdefault(task_id, []).append(live)
        self._listen(task_id)
        ended = asyncio.ensure_future(self.wait(task_id))
        ended.add_done_callback(lambda _: live.close())
        try:
            yield live
            await ended
        finally:
            ended.cancel()
            self._live[task_id].remove(live)
            if not self._live[task_id]:
                del self._live[task_id]

    def _noted(self, notes: Iterable[Note]) -> None:
        for note in notes:
            for live in self._live.get(note.id, ()):
                live.arrive(note)

    def _listen_again(self) -> None:
        """A new session has begun."""
        for task_id in self._live:
            self._listen(task_id)
