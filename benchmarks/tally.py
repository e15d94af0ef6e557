"""How the benchmark knows that tasks have finished: a counter per worker process, in memory shared through a file.

Counting costs a task about half a microsecond and no network, the same for every contender, so none of them pays for
the measuring with a result, an acknowledgement or a Redis command.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_RECORD = struct.Struct("=qdd")
_POLL_SECONDS = 0.005
_STALL_SECONDS = 20.0


class Stalled(Exception):
    """No task has finished for a long time although some are missing."""


class Counter:
    """One worker process's count; made at its first task, so it is never shared across a fork."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._count = 0
        self._first = 0.0
        self._memory: mmap.mmap | None = None

    def add(self) -> None:
        """Count one finished task, and note when the first and the last one finished."""
        now = time.monotonic()
        with self._lock:
            memory = self._memory or self._open(now)
            self._count += 1
            _RECORD.pack_into(memory, 0, self._count, self._first, now)

    def _open(self, now: float) -> mmap.mmap:
        path = self._folder / str(os.getpid())
        path.write_bytes(bytes(_RECORD.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _RECORD.size)
        self._first = now
        return self._memory


@dataclass(frozen=True, slots=True)
class Tally:
    """What all worker processes have finished together."""

    count: int
    first: float
    last: float


def read(folder: Path) -> Tally:
    """The tally so far."""
    return _total(_RECORD.unpack(path.read_bytes()) for path in folder.iterdir() if path.stat().st_size == _RECORD.size)


def _total(records: Iterable[tuple[int, float, float]]) -> Tally:
    counted = [record for record in records if record[0]]
    return Tally(
        count=sum(count for count, _, _ in counted),
        first=min((first for _, first, _ in counted), default=0.0),
        last=max((last for _, _, last in counted), default=0.0),
    )


def wait_for(folder: Path, count: int, stall_seconds: float = _STALL_SECONDS) -> Tally:
    """The tally as soon as `count` tasks have finished."""
    seen, since = -1, time.monotonic()
    while (tally := read(folder)).count < count:
        if tally.count > seen:
            seen, since = tally.count, time.monotonic()
        if time.monotonic() - since > stall_seconds:
            raise Stalled(f"{tally.count} of {count} tasks finished, none in the last {stall_seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
    return tally
