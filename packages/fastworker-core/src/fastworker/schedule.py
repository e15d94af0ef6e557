"""When a schedule is due: grids of seconds and cron expressions in time zones. Pure: no clock, no I/O.

Cron works on the clock on the wall (`fastworker.wall`). Times are seconds since 1970 (UTC).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Final, Literal, get_args

from pydantic import FiniteFloat

from fastworker.errors import ConfigurationError
from fastworker.wall import check_cron, check_zone, cron_after, cron_in_words

Misfire = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip", "queue", "cancel_running"]

SHORTEST: Final = 0.1
LONGEST: Final = 100 * 366 * 86_400.0
LAST_MOMENT: Final = 32_503_680_000.0
"""The year 3000: nothing is due from there on."""
MOST_RUNS: Final = 2**53
SCHEDULE_HEADER: Final = "fastworker-schedule"
DUE_HEADER: Final = "fastworker-due"
"""Each run says in its headers by which schedule it runs, and for which time."""
_UNITS: Final = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule is due, and what happens to runs that can't be punctual. Either `every` or `cron` is said.

    Attributes:
        every: seconds from one run to the next, counted from `start`, else from the creation.
        cron: five fields (minute, hour, day of month, month, day of week), or six with the second first.
        tz: the time zone of `cron`, by its IANA name.
        start: no run before this moment.
        end: no run after this moment.
        count: how many runs there are at most.
        misfire: for runs that were missed, because no control plane ran or it was late by more than a minute: `skip`
            them, run `once` for all of them, or run them `all`.
        overlap: when the task of the run before has not ended: `allow` another beside it, `skip` the run, `queue` one
            run until then, or `cancel_running`: cancel the one before.
    """

    every: FiniteFloat | None = None
    cron: str | None = None
    tz: str = "UTC"
    start: FiniteFloat | None = None
    end: FiniteFloat | None = None
    count: int | None = None
    misfire: Misfire = "once"
    overlap: Overlap = "skip"


def check_timing(timing: Timing) -> None:
    """Refuse a timing that can't be kept.

    Raises:
        ConfigurationError: says what is allowed.
    """
    check_zone(timing.tz)
    match timing:
        case Timing(every=None, cron=str() as cron):
            check_cron(cron)
        case Timing(every=float() | int() as every, cron=None):
            if not SHORTEST <= every <= LONGEST:
                raise ConfigurationError(f"every={every!r}: use {SHORTEST:g} seconds to 100 years")
        case _:
            raise ConfigurationError("a schedule has either every=SECONDS or cron='MINUTE HOUR DAY MONTH WEEKDAY'")
    for name, moment in (("start", timing.start), ("end", timing.end)):
        if moment is not None and not 0 <= moment <= LAST_MOMENT:
            raise ConfigurationError(f"{name}={moment!r}: use a moment from 1970 to 2999")
    if timing.start is not None and timing.end is not None and timing.end < timing.start:
        raise ConfigurationError("the end is before the start: the schedule would never run")
    if timing.count is not None and not 1 <= timing.count <= MOST_RUNS:
        raise ConfigurationError(f"count={timing.count!r}: use a whole number from 1")
    for name, word, allowed in (("misfire", timing.misfire, Misfire), ("overlap", timing.overlap, Overlap)):
        if word not in get_args(allowed):
            raise ConfigurationError(f"{name}={word!r}: use one of {', '.join(get_args(allowed))}")


def next_after(timing: Timing, moment: float, anchor: float = 0.0) -> float | None:
    """The first due time later than `moment`; None if there is none. `count` is not looked at.

    Args:
        anchor: what `every` is counted from when the timing has no start: the schedule's creation.
    """
    if timing.start is not None:
        moment = max(moment, math.nextafter(timing.start, -math.inf))
    moment = max(moment, -1.0)
    if moment >= LAST_MOMENT:
        return None
    if timing.every is not None:
        due: float | None = _grid_after(timing.every, timing.start if timing.start is not None else anchor, moment)
    else:
        due = cron_after(timing.cron or "", timing.tz, math.floor(moment))
    last = LAST_MOMENT if timing.end is None else timing.end
    return due if due is not None and due <= last else None


def _grid_after(every: float, anchor: float, moment: float) -> float:
    number = max(0, math.floor((moment - anchor) / every))
    while (due := anchor + number * every) <= moment:
        number += 1
    return due


def between(timing: Timing, since: float, until: float, anchor: float = 0.0) -> Iterator[float]:
    """All due times later than `since`, up to and with `until`."""
    due = next_after(timing, since, anchor)
    while due is not None and due <= until:
        yield due
        due = next_after(timing, due, anchor)


def last_between(timing: Timing, since: float, until: float, anchor: float = 0.0) -> float | None:
    """The last of `between`, found by halving: a year of seconds costs no more than a day of hours."""
    after = partial(next_after, timing, anchor=anchor)
    due = after(since)
    if due is None or due > until:
        return None
    high = until
    while high - due >= SHORTEST / 2:
        middle = (due + high) / 2
        later = after(middle)
        if later is None or later > until:
            high = middle
        else:
            due = later
    return due


def next_runs(timing: Timing, moment: float, anchor: float = 0.0, most: int = 5) -> list[float]:
    """The next due times after `moment`, at most so many."""
    return list(islice(between(timing, moment, math.inf, anchor), most))


def firing_id(name: str, due: float) -> str:
    """The task id of one run: a UUIDv8 (RFC 9562, section 5.8) made of the schedule's name and the due time.

    The same run has the same id whoever makes it, and an id is taken in once: so no run happens twice.
    """
    value = int.from_bytes(hashlib.sha256(f"{name}\0{due:.6f}".encode("utf-8", "replace")).digest()[:16])
    value = value & ~(0xF << 76) | 0x8 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_firing_id(task_id: str) -> bool:
    """Whether the id says that a schedule made the task."""
    return task_id[14:15] == "8"


def describe(timing: Timing) -> str:
    """When it runs, in plain words."""
    if timing.every is not None:
        words = f"Every {_duration(timing.every)}"
    else:
        words = f"{cron_in_words(timing.cron or '')} ({timing.tz})"
    limits = [
        f"from {_date(timing.start)}" if timing.start is not None else "",
        f"until {_date(timing.end)}" if timing.end is not None else "",
        f"{timing.count} times" if timing.count not in (None, 1) else "",
        "once" if timing.count == 1 else "",
    ]
    return ", ".join([words, *filter(None, limits)])


def _duration(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds % size == 0:
            number = seconds / size
            return unit if number == 1 else f"{number:g} {unit}s"
    return f"{seconds:g} seconds"


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
