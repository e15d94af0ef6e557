"""Limits as users write them: `rate_limit="10/s"`, `max_concurrency=5`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from fastworker.errors import ConfigurationError

_PERIODS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_FACTORS: Final = {"": 1, "k": 1000, "M": 1_000_000}
_WRITTEN: Final = re.compile(r"([0-9]{1,9})([kM]?)/([0-9]{0,6})([smhd])", re.ASCII)
MOST_RATES: Final = 8
MOST_STARTS: Final = 10**15
LONGEST_PERIOD: Final = 1e11
"""Seconds. No rate that can be written has more of either."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `count` starts in any `period` seconds."""

    count: Annotated[int, Field(ge=1, le=MOST_STARTS)]
    period: Annotated[float, Field(gt=0, le=LONGEST_PERIOD)]

    def __str__(self) -> str:
        for unit, seconds in reversed(_PERIODS.items()):
            times = self.period / seconds
            if times.is_integer():
                return f"{self.count}/{'' if times == 1 else f'{times:.0f}'}{unit}"
        return f"{self.count}/{self.period:g}s"


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """The limits of one task name, over all workers; for each key of its own, where tasks have keys.

    Attributes:
        rates: all of them hold at once.
        max_concurrency: how many tasks may run at the same time.
    """

    rates: Annotated[tuple[RateLimit, ...], Field(max_length=MOST_RATES)] = ()
    max_concurrency: Annotated[int, Field(ge=1)] | None = None

    def __bool__(self) -> bool:
        return bool(self.rates) or self.max_concurrency is not None


UNLIMITED = TaskLimits()


def parse_rate(text: object) -> RateLimit:
    """`"10/s"`, `"100k/d"`, `"5/30s"`: a number (with `k` or `M`), a slash, and a period of s, m, h or d.

    Raises:
        ConfigurationError: it is not written so, or is 0.
    """
    match = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        shown = text if not isinstance(text, str) or len(text) <= 40 else text[:40] + "…"
        raise ConfigurationError(f"rate_limit={shown!r}: write it as '10/s', '100k/d' or '5/30s' (units s, m, h, d)")
    number, factor, times, unit = match.groups()
    rate = RateLimit(int(number) * _FACTORS[factor], int(times or 1) * _PERIODS[unit])
    if not rate.count or not rate.period:
        raise ConfigurationError(f"rate_limit={text!r}: 0 would let nothing run; `fastworker pause` does that")
    return rate


def make_limits(rate_limit: str | Sequence[str] | None, max_concurrency: object) -> TaskLimits:
    """The limits of a task name as users write them.

    Raises:
        ConfigurationError: names what is wrong and what it may be.
    """
    several = isinstance(rate_limit, list | tuple)
    texts: Sequence[object] = () if rate_limit is None else rate_limit if several else (rate_limit,)
    if len(texts) > MOST_RATES:
        raise ConfigurationError(f"rate_limit: {len(texts)} limits at once; {MOST_RATES} are the most")
    return TaskLimits(tuple(parse_rate(text) for text in texts), _check_concurrency(max_concurrency))


def _check_concurrency(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"max_concurrency={value!r}: use a whole number from 1")
    return value
