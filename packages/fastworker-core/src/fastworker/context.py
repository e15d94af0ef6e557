"""What a running task may know and say of itself: `current_task()`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from fastworker.errors import FastWorkerError
from fastworker.protocol import Note

MAX_LOG_LINES: Final = 200
"""Log lines kept between two heartbeats; older ones go first."""
MAX_LINE: Final = 2000


class CurrentTask:
    """The attempt that runs here.

    Attributes:
        id: the task id.
        name: the task name.
        attempt: 1 for the first start.
        headers: what travelled with the task, e.g. the trace context.
        cancelled: True once somebody asked for this task to stop; a polite loop looks at it.
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
        self._on_note = on_note
        self._lock = threading.Lock()
        self._progress: tuple[float, str] | None = None
        self._lines: list[str] = []

    def progress(self, fraction: float, text: str = "") -> None:
        """Say how far the task is.

        Args:
            fraction: from 0 to 1; what lies outside is cut off.
            text: a few words.
        """
        with self._lock:
            self._progress = (min(1.0, max(0.0, float(fraction))), str(text)[:MAX_LINE])
        self._tell()

    def log(self, line: str) -> None:
        """Say a line for whoever looks at the task."""
        with self._lock:
            self._lines.append(str(line)[:MAX_LINE])
            del self._lines[:-MAX_LOG_LINES]
        self._tell()

    def _tell(self) -> None:
        if self._on_note is not None:
            self._on_note(self)

    def take_note(self) -> Note | None:
        """What was said since the last call, for the worker to pass on."""
        with self._lock:
            if self._progress is None and not self._lines:
                return None
            note = Note(self.id, self.attempt, self._progress, self._lines)
            self._progress, self._lines = None, []
            return note


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


def enter_task(task: CurrentTask | None) -> None:
    """Say which task runs in this thread or coroutine."""
    _current.set(task)
