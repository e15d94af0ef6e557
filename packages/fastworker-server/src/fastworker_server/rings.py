"""Counts of the last two minutes, half hour and day, in memory of a fixed size, fed by the engine's moves.

The store keeps them, so that a restart forgets nothing; see `fastworker_server.pump` for how often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastworker.activity import Series
from fastworker.lifecycle import State
from fastworker_server.queue import Moved

SIZES: Final = {"2m": (1.0, 120), "30m": (15.0, 120), "24h": (600.0, 144)}
"""Seconds of a bucket, and how many there are."""
COUNTED: Final = {State.SUCCEEDED: 1, State.FAILED: 2, State.RETRYING: 3}
SUBMITTED: Final = 0
QUEUED: Final = 4
RUNNING: Final = 5
COLUMNS: Final = 6


class Ring:
    """One span: a list of buckets that is written round and round."""

    def __init__(self, step: float, size: int) -> None:
        self._step = step
        self._size = size
        self._buckets = [[0] * COLUMNS for _ in range(size)]
        self._last = -1  # the number of the newest bucket, counted from 1970

    def add(self, now: float, moves: Sequence[int], queued: int, running: int) -> None:
        """Count moves in the bucket of this moment."""
        bucket = self._advance(now)
        for column, count in enumerate(moves):
            bucket[column] += count
        bucket[QUEUED] = queued
        bucket[RUNNING] = running

    def _advance(self, now: float) -> list[int]:
        number = int(now // self._step)
        if self._last < 0:
            self._last = number
        before = self._buckets[self._last % self._size]
        for skipped in range(max(self._last + 1, number - self._size + 1), number + 1):
            self._buckets[skipped % self._size] = [0, 0, 0, 0, before[QUEUED], before[RUNNING]]
        self._last = max(self._last, number)
        return self._buckets[self._last % self._size]

    def series(self, now: float) -> Series:
        """All buckets, oldest first."""
        self._advance(now)
        numbers = range(self._last - self._size + 1, self._last + 1)
        columns = [list(column) for column in zip(*(self._buckets[n % self._size] for n in numbers), strict=True)]
        return Series(numbers[0] * self._step, self._step, *columns)

    def kept(self) -> dict[str, Any]:
        """What the store is to keep."""
        return {"last": self._last, "buckets": [list(bucket) for bucket in self._buckets]}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from what the store kept, if it was counted in the same way."""
        buckets = kept["buckets"]
        if len(buckets) == self._size and all(len(bucket) == COLUMNS for bucket in buckets):
            self._last, self._buckets = kept["last"], buckets


class Rings:
    """All spans."""

    def __init__(self) -> None:
        self._rings = {span: Ring(*size) for span, size in SIZES.items()}

    def tell(self, moves: Sequence[Moved], queued: int, running: int) -> None:
        """Count moves that happened now; `queued` and `running` is what there is after them."""
        counts = [0, 0, 0, 0]
        for moved in moves:
            if moved.before is State.NEW:
                counts[SUBMITTED] += 1
            column = COUNTED.get(moved.after)
            if column is not None:
                counts[column] += 1
        for ring in self._rings.values():
            ring.add(moves[-1].at, counts, queued, running)

    def series(self, now: float) -> dict[str, Series]:
        """All spans by name."""
        return {span: ring.series(now) for span, ring in self._rings.items()}

    def kept(self) -> dict[str, Any]:
        """What the store is to keep."""
        return {span: ring.kept() for span, ring in self._rings.items()}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on from what the store kept."""
        for span, ring in self._rings.items():
            if span in kept:
                ring.restore(kept[span])
