"""When a failed task is tried again."""

from __future__ import annotations

from random import Random

from fastworker.errors import ConfigurationError
from fastworker.tasks import Backoff, BackoffKind


class Retry(Exception):  # noqa: N818 - a request of the task's, not an error
    """Raised by a task to be run again later, without using up a retry.

    Args:
        after: seconds to wait.
    """

    def __init__(self, after: float = 0.0) -> None:
        if after < 0:
            raise ConfigurationError(f"Retry(after={after}): the wait can't be negative")
        super().__init__(f"run again after {after} s")
        self.after = after


def delay_before_retry(backoff: Backoff, failures: int, random: Random) -> float:
    """Seconds to wait after the `failures`-th failure (counted from 1)."""
    n = failures - 1
    growth = {"exponential": 2.0 ** min(n, 60), "linear": n + 1.0, "constant": 1.0}[backoff.kind]
    longest = min(backoff.cap, backoff.base * growth)
    return random.uniform(0.0, longest) if backoff.jitter else longest


def backoff_from(value: Backoff | BackoffKind | float) -> Backoff:
    """The `backoff` option as users write it: a kind, a number of seconds (constant), or a `Backoff`."""
    if isinstance(value, Backoff):
        return value
    if isinstance(value, int | float):
        if value < 0:
            raise ConfigurationError(f"backoff={value}: the wait can't be negative")
        return Backoff(kind="constant", base=float(value), cap=float(value), jitter=False)
    if value in ("exponential", "linear", "constant"):
        return Backoff(kind=value)
    raise ConfigurationError(f"backoff={value!r}: use 'exponential', 'linear', 'constant', seconds or a Backoff")
