"""Waiting for a condition: tests poll, they never sleep for a guess."""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_EVERY = 0.02
Promised = Callable[[float], float]
"""See the fixture `promised`."""


def until[T](condition: Callable[[], T], deadline: float = 15.0, what: str = "the condition") -> T:
    """The first true value that the condition gives; fails after `deadline` seconds."""
    ends = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > ends:
            raise AssertionError(f"{what} did not come true within {deadline:g} s; at last it was {value!r}")
        time.sleep(POLL_EVERY)
