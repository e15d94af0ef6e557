"""What task functions did, written down outside of FastWorker: the witness of the tests.

One line of JSON per event, appended with one `write` each: what was written survives the death of the writer.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "TEST_JOURNAL"


@dataclass(frozen=True, slots=True)
class Event:
    """One line. `what` is `start` or `end`, `at` in seconds since 1970."""

    what: str
    task: str
    attempt: int
    payload: Any
    pid: int
    at: float


def write_down(what: str, task: str, attempt: int, payload: Any) -> None:
    """Append one event to the journal that the environment names."""
    line = json.dumps([what, task, attempt, payload, os.getpid(), time.time()]) + "\n"
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


class Journal:
    """Reads what was written down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self, what: str | None = None) -> list[Event]:
        """All events, or those of one kind, in the order in which they were written."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().split("\n")[:-1]  # what follows the last line break is still being written
        events = [Event(*json.loads(line)) for line in lines]
        return [event for event in events if what is None or event.what == what]

    def count(self, what: str) -> int:
        """How many events there are of a kind."""
        return self.path.read_text().count(f'["{what}"') if self.path.exists() else 0

    def starts_by_task(self) -> Counter[str]:
        """How often each task was started."""
        return Counter(event.task for event in self.events("start"))
