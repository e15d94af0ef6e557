"""The one clock of the control plane: seconds since 1970 that never jump."""

from __future__ import annotations

import time


class Clock:
    """The wall clock as it was at the start, moved on by the monotonic clock.

    A wall clock that is set back or forth must not end leases or fire timers.
    """

    def __init__(self) -> None:
        self._start = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since 1970."""
        return self._start + time.monotonic()
