"""The parts that generator tasks have yielded, for a while: readers may come late, and fall behind."""

from __future__ import annotations

from collections import deque
from typing import Final

from fastworker.protocol import Note

MOST_PARTS: Final = 10_000
MOST_SIZE: Final = 4_000_000
"""Parts, and characters of them, that are kept of one task."""
MOST_IN_ALL: Final = 64_000_000
"""Characters that are kept of all tasks; those that were silent for longest go first."""
MOST_STREAMS: Final = 10_000
ENTRY: Final = 200
"""Characters that a stream is reckoned at beside its parts."""
AT_ONCE: Final = 200_000
"""Characters of parts in one note."""


class Stream:
    """The last parts of one attempt; `first` is the number of the oldest that is kept."""

    def __init__(self, attempt: int, first: int) -> None:
        self.attempt = attempt
        self.first = first
        self.parts: deque[str] = deque()
        self.size = ENTRY

    def add(self, note: Note) -> None:
        """Take in what an attempt yielded."""
        if note.first != self.first + len(self.parts):  # some were left out on the way
            self.parts.clear()
            self.first, self.size = note.first or 0, ENTRY
        for part in note.parts:
            self.parts.append(part)
            self.size += len(part)
        while len(self.parts) > MOST_PARTS or (self.size > MOST_SIZE and len(self.parts) > 1):
            self.size -= len(self.parts.popleft())
            self.first += 1


class Streams:
    """All that is kept."""

    def __init__(self) -> None:
        self._streams: dict[str, Stream] = {}
        self._size = 0

    def add(self, note: Note) -> None:
        """Take in what a task yielded."""
        stream = self._streams.pop(note.id, None)
        self._size -= stream.size if stream is not None else 0
        if stream is None or stream.attempt != note.attempt:
            stream = Stream(note.attempt, note.first or 0)
        stream.add(note)
        self._streams[note.id] = stream  # now the last
        self._size += stream.size
        while self._size > MOST_IN_ALL or len(self._streams) > MOST_STREAMS:
            self._size -= self._streams.pop(next(iter(self._streams))).size

    def notes(self, task_id: str) -> list[Note]:
        """All that is kept of a task, in notes that fit a frame; none if nothing is."""
        stream = self._streams.get(task_id)
        if stream is None:
            return []
        notes = [Note(task_id, stream.attempt, first=stream.first)]
        size = 0
        for number, part in enumerate(stream.parts, stream.first):
            if size and size + len(part) > AT_ONCE:
                notes.append(Note(task_id, stream.attempt, first=number))
                size = 0
            notes[-1].parts.append(part)
            size += len(part)
        return notes
