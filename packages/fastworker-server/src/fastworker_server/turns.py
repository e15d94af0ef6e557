"""Whose turn it is: equal shares for every fair key, within a priority.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with tasks of equal length. Each queued task gets a
number: one more than the last of its fair key, but not less than the number that was served last. The smallest number
goes first. Who comes anew is one turn ahead, for the task that was running already. Where nobody has a fair key, that
is first in, first out. While a lane is held, the others go on; so where
tasks queue, the number that was served last is that of their lane, or who comes would wait for all that came before.
"""

from __future__ import annotations

from typing import Final

from fastworker.tasks import PRIORITIES

AHEAD: Final = 1
_SWEEP_FROM: Final = 10_000


class Turns:
    """Numbers for queued tasks, by priority and fair key. Tasks without a fair key share the key `""`."""

    def __init__(self) -> None:
        self._served = [0] * len(PRIORITIES)
        self._last: list[dict[str, int]] = [{} for _ in PRIORITIES]
        self._sweep_at = _SWEEP_FROM

    def number(self, rank: int, fair_key: str | None, served: int) -> int:
        """The number of one more task. `served`: the number that was served last in its lane."""
        last = self._last[rank]
        key = fair_key or ""
        number = last[key] = max(last.get(key, 0) + 1, served - AHEAD)
        return number

    def is_crowded(self, rank: int) -> bool:
        """Whether it is time to `sweep`."""
        return len(self._last[rank]) > self._sweep_at

    def sweep(self, rank: int, served: int) -> None:
        """Forget the fair keys that can't matter any more. `served`: the lowest of all lanes where tasks queue."""
        self._last[rank] = {key: value for key, value in self._last[rank].items() if value > served}
        self._served[rank] += 1 + AHEAD
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._last[rank]))

    def serve(self, rank: int, number: int) -> None:
        """A task with this number has been taken out of the queue."""
        self._served[rank] = max(self._served[rank], number)

    def served(self, rank: int) -> int:
        """The number that was served last, in any lane."""
        return self._served[rank]
