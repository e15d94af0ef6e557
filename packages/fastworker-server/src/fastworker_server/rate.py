"""How often something happens."""

from __future__ import annotations

from math import exp
from typing import Final

OVER: Final = 10.0
"""Seconds: what is so long ago counts for a third."""


class Rate:
    """How often something happens per second, on average over about ten seconds."""

    __slots__ = ("_at", "_rate")

    def __init__(self) -> None:
        self._rate = 0.0
        self._at = 0.0

    def count(self, number: int, now: float) -> None:
        """It has happened so often."""
        if now > self._at:
            self._rate = self.at(now)
            self._at = now
        self._rate += number / OVER

    def at(self, now: float) -> float:
        """As it is by now."""
        return self._rate * exp((self._at - now) / OVER) if self._rate else 0.0
