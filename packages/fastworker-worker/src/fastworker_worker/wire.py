"""What a worker and its process slots say to each other: one line each, a letter and JSON.

The worker sends a `Setup`, then one `Order` after the other. The slot answers `READY`, then for each order any number
of notes and one outcome. What it has taken up stands on a `Page` that both see, which costs no message.
"""

from __future__ import annotations

import logging
import mmap
import os
import socket
import struct
import tempfile
import time
from dataclasses import dataclass, field
from typing import IO, Final

from pydantic import TypeAdapter

from fastworker.protocol import Note, Order, Outcome
from fastworker.tasks import ErrorInfo

READY: Final = b"r"
NOT_READY: Final = b"x"
NOTE: Final = b"n"
OUTCOME: Final = b"o"


@dataclass(slots=True)
class Setup:
    """What a slot needs before its first order.

    Attributes:
        modules: to be imported, so that the task functions are there.
        path: where Python looks for them.
        log_level: of the worker's root logger.
        log_as_json: as the worker logs.
    """

    modules: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    log_level: int = logging.WARNING
    log_as_json: bool = False


SETUP: Final = TypeAdapter(Setup)
ORDER: Final = TypeAdapter(Order)
NOTES: Final = TypeAdapter(Note)
OUTCOMES: Final = TypeAdapter(Outcome)
ERROR: Final = TypeAdapter(ErrorInfo)


class Page:
    """A page of memory that two processes share: how many orders the slot has taken up, and when the last.

    Args:
        descriptor: of the page that another process has made; None makes one.
    """

    _NOTED: Final = struct.Struct("=Qd")

    def __init__(self, descriptor: int | None = None) -> None:
        made = descriptor is None
        self._file: IO[bytes] = tempfile.TemporaryFile() if made else os.fdopen(descriptor or 0, "r+b")  # noqa: SIM115
        if made:
            self._file.truncate(mmap.PAGESIZE)
        self._memory = mmap.mmap(self._file.fileno(), mmap.PAGESIZE)

    def fileno(self) -> int:
        """The descriptor to hand to the other process."""
        return self._file.fileno()

    def note(self, number: int) -> None:
        """Order `number` is taken up now."""
        self._NOTED.pack_into(self._memory, 0, number, time.monotonic())

    def read(self) -> tuple[int, float]:
        """The number of the last order that was taken up, and when, on the monotonic clock, which processes share."""
        number, at = self._NOTED.unpack_from(self._memory, 0)
        return number, at

    def close(self) -> None:
        """Give it up."""
        self._memory.close()
        self._file.close()


class Lines:
    """Cuts what arrives into lines."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole now."""
        if b"\n" not in data:
            self._parts.append(data)
            return []
        *lines, rest = data.split(b"\n")
        lines[0] = b"".join([*self._parts, lines[0]])
        self._parts = [rest] if rest else []
        return lines


def read_line(sock: socket.socket, lines: Lines, waiting: list[bytes]) -> bytes | None:
    """The next line, from what has arrived or is still to come; None at the end."""
    while not waiting:
        data = sock.recv(65536)
        if not data:
            return None
        waiting.extend(lines.feed(data))
    return waiting.pop(0)
