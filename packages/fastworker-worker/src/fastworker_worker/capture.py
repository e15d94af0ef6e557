"""What tasks log and print, bound to the task that said it."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, TextIO

from fastworker.context import running_task

LINE: Final = "%(levelname)s %(name)s: %(message)s"


class TaskLogHandler(logging.Handler):
    """Gives each log record of a task's code to the task. What the root logger's level lets pass, comes here."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(LINE))

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, in the thread or coroutine that logs."""
        task = running_task()
        if task is None or record.name.startswith("fastworker."):
            return
        try:
            for line in self.format(record).splitlines():
                task.log(line)
        except Exception:
            self.handleError(record)


class TaskPrints:
    """Stands for standard output: prints, and gives what a task prints to the task if it wants that."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Print a text."""
        task = running_task()
        if task is not None and task.wants_prints:
            task.printed(text)
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_handler: Final = TaskLogHandler()


def capture(*, prints: bool) -> None:
    """From now on, tasks of this process get what they log, and what they print if any of them wants that."""
    root = logging.getLogger()
    if _handler not in root.handlers:
        root.addHandler(_handler)
    if prints and not isinstance(sys.stdout, TaskPrints):
        sys.stdout = TaskPrints(sys.stdout)


def release() -> None:
    """Undo `capture`."""
    logging.getLogger().removeHandler(_handler)
    if isinstance(sys.stdout, TaskPrints):
        sys.stdout = sys.stdout.stream
