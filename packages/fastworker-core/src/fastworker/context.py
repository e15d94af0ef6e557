"""What a running task may know and say of itself: `current_task()`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from fastworker.errors import FastWorkerError
from fastworker.protocol import Note
from fastworker.resources import running

MAX_LOG_LINES: Final = 200
"""Log lines kept between two heartbeats; older ones go first."""
MAX_LINE: Final = 2000
PARTS_AT_ONCE: Final = 200_000
"""Characters of parts in one note; what is more goes with the next."""
MAX_PARTS: Final = 10_000
MAX_PARTS_SIZE: Final = 4_000_000
"""Parts, and characters of them, that wait to be taken; older ones go first, and whoever reads them is told."""


class CurrentTask:
    """The attempt that runs here.

    Attributes:
        id: the task id.
        name: the task name.
        attempt: 1 for the first start.
        headers: what travelled with the task, e.g. the trace context.
        cancelled: True once somebody asked for this task to stop; a polite loop looks at it.
        resources: what `@on_startup` functions made in this process, by type.
        wants_prints: printed lines are log lines.
    """

    def __init__(
        self,
        task_id: str,
        name: str,
        attempt: int,
        headers: dict[str, str] | None = None,
        on_note: Callable[[CurrentTask], None] | None = None,
    ) -> None:
        self.id = task_id
        self.name = name
        self.attempt = attempt
        self.headers = headers or {}
        self.cancelled = False
        self.wants_prints = False
        self.resources = running
        self._on_note = on_note
        self._lock = threading.Lock()
        self._progress: tuple[float, str] | None = None
        self._lines: deque[str] = deque()
        self._left_out = 0
        self._begun_line = ""  # printed, and not ended yet
        self._parts: deque[str] = deque()
        self._parts_size = 0
        self._first: int | None = None  # the number of the first part that waits; None: it yields no parts
        self._new_parts = False

    def progress(self, done: float, total: float | str = 1.0, text: str = "") -> None:
        """Say how far the task is: `progress(3, 10, "resizing")`, or `progress(0.3, "resizing")`.

        Args:
            done: how much is done; what lies outside of 0 to `total` is cut off.
            total: how much there is to do. A text here is the text.
            text: a few words.
        """
        whole, words = (1.0, total) if isinstance(total, str) else (float(total), text)
        fraction = float(done) / whole if whole > 0 else 1.0
        with self._lock:
            self._progress = (min(1.0, max(0.0, fraction)), str(words)[:MAX_LINE])
        self._tell()

    def log(self, line: str) -> None:
        """Say a line for whoever looks at the task."""
        with self._lock:
            self._add_line(str(line))
        self._tell()

    def printed(self, text: str) -> None:
        """What was printed: whole lines of it are log lines."""
        with self._lock:
            *lines, rest = text.split("\n")
            if lines:
                lines[0] = self._begun_line + lines[0]
                self._begun_line = ""
            self._begun_line = (self._begun_line + rest)[:MAX_LINE]
            for line in lines:
                self._add_line(line)
        if lines:
            self._tell()

    def _add_line(self, line: str) -> None:
        self._lines.append(line[:MAX_LINE])
        if len(self._lines) >= MAX_LOG_LINES:  # one less: the line that says how many are left out needs a place
            self._lines.popleft()
            self._left_out += 1

    def open_stream(self) -> None:
        """The task yields parts, though there is none yet."""
        with self._lock:
            self._first = 0
            self._new_parts = True
        self._tell()

    def part(self, payload: str) -> None:
        """A part of the result, as JSON."""
        with self._lock:
            self._add_parts([payload])
        self._tell()

    def _add_parts(self, payloads: list[str]) -> None:
        self._parts.extend(payloads)
        self._parts_size += sum(map(len, payloads))
        self._new_parts = True
        while len(self._parts) > MAX_PARTS or (self._parts_size > MAX_PARTS_SIZE and len(self._parts) > 1):
            self._parts_size -= len(self._parts.popleft())
            self._first = (self._first or 0) + 1

    @property
    def waiting_parts(self) -> int:
        """Parts that wait to be taken."""
        return len(self._parts)

    def pass_on(self, note: Note) -> None:
        """What the same task said in another process."""
        with self._lock:
            self._progress = note.progress or self._progress
            for line in note.log:
                self._add_line(line)
            if note.first is not None:
                if self._first is None or note.first != self._first + len(self._parts):
                    self._parts.clear()
                    self._parts_size, self._first = 0, note.first
                self._add_parts(note.parts)
        self._tell()

    def _tell(self) -> None:
        if self._on_note is not None:
            self._on_note(self)

    def take_note(self) -> Note | None:
        """What was said since the last call, for the worker to pass on. There may be more: call until None."""
        with self._lock:
            if self._progress is None and not self._lines and not self._new_parts:
                return None
            first = self._first if self._new_parts else None
            note = Note(self.id, self.attempt, self._progress, self._take_lines(), first, self._take_parts())
            self._progress = None
            return note

    def _take_lines(self) -> list[str]:
        lines = [f"… {self._left_out:,} lines left out"] if self._left_out else []
        lines += self._lines
        self._lines.clear()
        self._left_out = 0
        return lines

    def _take_parts(self) -> list[str]:
        taken: list[str] = []
        size = 0
        while self._parts and (not taken or size + len(self._parts[0]) <= PARTS_AT_ONCE):
            taken.append(self._parts.popleft())
            size += len(taken[-1])
        self._parts_size -= size
        self._new_parts = bool(self._parts)
        if self._first is not None:
            self._first += len(taken)
        return taken


_current: ContextVar[CurrentTask | None] = ContextVar("fastworker_current_task", default=None)


def current_task() -> CurrentTask:
    """The task that runs here.

    Raises:
        FastWorkerError: no task runs here; the function was called directly.
    """
    task = _current.get()
    if task is None:
        raise FastWorkerError("no task runs here: current_task() works inside a task that a worker runs")
    return task


def running_task() -> CurrentTask | None:
    """The task that runs here, if one does."""
    return _current.get()


def enter_task(task: CurrentTask | None) -> None:
    """Say which task runs in this thread or coroutine."""
    _current.set(task)
