"""What comes into each queue and what leaves it, per second, fed by the engine's moves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from fastworker.lifecycle import State
from fastworker_server.queue import Moved

SECONDS: Final = 10
"""Over which the rates are taken."""


class Flows:
    """The last few seconds of all queues."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, dict[str, list[int]]]] = deque(maxlen=SECONDS + 1)

    def tell(self, moves: Iterable[Moved]) -> None:
        """Count moves that happened now."""
        counts: dict[str, list[int]] | None = None
        for moved in moves:
            into, out_of = moved.after is State.QUEUED, moved.before is State.QUEUED
            if not (into or out_of):
                continue
            if counts is None:
                counts = self._of(moved.at)
            if into:
                counts.setdefault(moved.queue, [0, 0])[0] += 1
            if out_of:
                counts.setdefault(moved.was[0] if moved.was else moved.queue, [0, 0])[1] += 1

    def _of(self, at: float) -> dict[str, list[int]]:
        second = int(at)
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append((second, {}))
        return self._seconds[-1][1]

    def rates(self, now: float) -> dict[str, tuple[float, float]]:
        """By queue: in and out per second, over the last full seconds."""
        sums: dict[str, list[int]] = {}
        for second, counts in self._seconds:
            if int(now) - SECONDS <= second < int(now):
                for queue, (into, out_of) in counts.items():
                    both = sums.setdefault(queue, [0, 0])
                    both[0] += into
                    both[1] += out_of
        return {queue: (into / SECONDS, out_of / SECONDS) for queue, (into, out_of) in sums.items()}
