"""Things to do later: one heap for the whole engine."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, Final

NEVER: Final = float("inf")
_SWEEP_FROM: Final = 1000


class Timer:
    """One thing to do at one time."""

    __slots__ = ("args", "call", "cancelled", "when")

    def __init__(self, when: float, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.when = when
        self.call = call
        self.args = args
        self.cancelled = False


class Timers:
    """All timers. Setting, cancelling and firing cost O(log n); cancelled ones are swept when they are the most."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._cancelled = 0

    def at(self, when: float, call: Callable[..., None], *args: Any) -> Timer:
        """Call `call(*args, now)` at `when` or soon after."""
        timer = Timer(when, call, args)
        heapq.heappush(self._heap, (when, next(self._numbers), timer))
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Don't."""
        if timer is None or timer.cancelled:
            return
        timer.cancelled = True
        self._cancelled += 1
        if self._cancelled > _SWEEP_FROM and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].cancelled]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_due(self) -> float:
        """When `fire_due` wants to be called; `NEVER` if there is nothing to do."""
        while self._heap and self._heap[0][2].cancelled:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else NEVER

    def fire_due(self, now: float, most: int = 10_000) -> int:
        """Do what is due, at most `most` things; how many were done."""
        fired = 0
        while fired < most and self.next_due() <= now:
            timer = heapq.heappop(self._heap)[2]
            timer.cancelled = True
            timer.call(*timer.args, now)
            fired += 1
        return fired

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled
