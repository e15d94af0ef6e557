"""How long tasks of each name wait and run: histograms of a fixed size, fed by the engine's moves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from fastworker.activity import BUCKETS, SHORTEST, TypeActivity, bucket_end
from fastworker.lifecycle import State
from fastworker_server.queue import Moved
from fastworker_server.rate import Rate

MOST_NAMES: Final = 1000
"""Names that are told apart; more are not followed."""


class Histogram:
    """Durations in buckets that grow by the square root of two."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total = 0

    def add(self, seconds: float) -> None:
        """Count one."""
        bucket = 2 * math.log2(seconds / SHORTEST) if seconds > SHORTEST else 0.0
        self.counts[math.ceil(min(bucket, BUCKETS - 1))] += 1
        self.total += 1

    def quantile(self, share: float) -> float | None:
        """The end of the bucket below which that share lies; None if nothing was counted."""
        left = self.total * share
        for number, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                return bucket_end(number)
        return None


class _Name:
    __slots__ = ("failed", "ran", "rate", "succeeded", "waited")

    def __init__(self) -> None:
        self.succeeded = self.failed = 0
        self.waited = Histogram()
        self.ran = Histogram()
        self.rate = Rate()


class Durations:
    """All names."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}

    def tell(self, moves: Iterable[Moved]) -> None:
        """Count starts and ends."""
        for moved in moves:
            after = moved.after
            if after is State.RUNNING:
                self._started(moved)
            elif after is State.SUCCEEDED or after is State.FAILED:
                self._ended(moved, succeeded=after is State.SUCCEEDED)

    def _started(self, moved: Moved) -> None:
        name = self._of(moved.task.name)
        if name is not None and moved.task.attempt <= 1:
            name.waited.add(moved.at - moved.task.submitted_at)

    def _ended(self, moved: Moved, *, succeeded: bool) -> None:
        name = self._of(moved.task.name)
        if name is None:
            return
        if succeeded:
            name.succeeded += 1
        else:
            name.failed += 1
        name.rate.count(1, moved.at)
        if moved.before is State.RUNNING and moved.task.started_at is not None:
            name.ran.add(moved.at - moved.task.started_at)

    def _of(self, name: str) -> _Name | None:
        known = self._names.get(name)
        if known is None and len(self._names) < MOST_NAMES:
            known = self._names[name] = _Name()
        return known

    def type(self, name: str, states: dict[str, int], now: float) -> TypeActivity:
        """What is known of a name."""
        known = self._names.get(name) or _Name()
        return TypeActivity(
            name, states, known.succeeded, known.failed, known.ran.quantile(0.5), known.ran.quantile(0.95),
            known.waited.quantile(0.5), known.waited.quantile(0.95), known.ran.counts if known.ran.total else [],
            round(known.rate.at(now), 3),
        )  # fmt: skip

    def names(self) -> set[str]:
        """All names that have been seen."""
        return set(self._names)
