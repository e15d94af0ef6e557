"""When a failed task is tried again."""

from __future__ import annotations

import math
from random import Random

from fastworker.errors import ConfigurationError
from fastworker.tasks import Backoff, BackoffKind


class Retry(Exception):
    """Raised by a task to be run again later, without using up a retry.

    Args:
        after: seconds to wait.
        hold: no task of the same name and key is to start before that either: what a service says with `Retry-After`.
    """

    def __init__(self, after: float = 0.0, *, hold: bool = False) -> None:
        _check_wait("Retry: after", after)
        super().__init__(f"run again after {after} s")
        self.after = after
        self.hold = hold


def delay_before_retry(backoff: Backoff, failures: int, random: Random) -> float:
    """Seconds to wait after the `failures`-th failure (counted from 1)."""
    n = failures - 1
    growth = {"exponential": 2.0 ** min(n, 60), "linear": n + 1.0, "constant": 1.0}[backoff.kind]
    longest = min(backoff.cap, backoff.base * growth)
    return random.uniform(0.0, longest) if backoff.jitter else longest


def backoff_from(value: Backoff | BackoffKind | float) -> Backoff:
    """The `backoff` option as users write it: a kind, a number of seconds (constant), or a `Backoff`."""
    if isinstance(value, Backoff):
        _check_wait("Backoff: base", value.base)
        _check_wait("Backoff: cap", value.cap)
        return value
    if isinstance(value, int | float):
        _check_wait("the wait", value)
        return Backoff(kind="constant", base=float(value), cap=float(value), jitter=False)
    if value in ("exponential", "linear", "constant"):
        return Backoff(kind=value)
    raise ConfigurationError(f"backoff={value!r}: use 'exponential', 'linear', 'constant', seconds or a Backoff")


def _check_wait(what: str, seconds: float) -> None:
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(f"{what}={seconds}: it can't be negative, endless or not a number")
