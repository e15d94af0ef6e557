"""Waiting for a condition in an event loop: tests poll, they never sleep for a guess."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def eventually[T](condition: Callable[[], T], within: float = 15.0) -> T:
    """The first true value that the condition gives; fails after `within` seconds."""
    ends = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > ends:
            raise AssertionError(f"it did not come true within {within:g} s; at last it was {value!r}")
        await asyncio.sleep(0.002)
    return value


async def for_a_while(seconds: float = 0.25) -> None:
    """Give what must *not* happen the time to happen."""
    await asyncio.sleep(seconds)
