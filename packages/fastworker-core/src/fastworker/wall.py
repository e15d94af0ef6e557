"""The clock on the wall: cron expressions in time zones.

Which dates and times an expression means is cronsim's business; it is asked without a time zone. What daylight saving
makes of them is decided here, as Debian's cron does it:

- An expression for certain times (neither its minute nor its hour begins with `*`) is due once for each time that it
  names: if the clock skips that time, at the moment of the change; if the clock shows it twice, at the first.
- Any other expression is due whenever the clock on the wall shows a time that it names.

cronsim can do time zones too, but where the clock changes by half an hour (Australia/Lord_Howe) it misses runs.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from fastworker.errors import ConfigurationError

LONGEST_CRON: Final = 256
FIELDS: Final = ("second", "minute", "hour", "day of month", "month", "day of week")
_ALLOWED: Final = (
    "there are second 0-59, minute 0-59, hour 0-23, day of month 1-31 (as many as the month has), "
    "month 1-12 or JAN-DEC, day of week 0-7 (0 and 7 are Sunday) or SUN-SAT; with lists 1,2 ranges 1-5 and steps */10"
)
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - times on the wall have no zone
_WEEK: Final = 7 * 86_400
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}")
_ANY_DAY: Final = datetime(2000, 1, 1)  # noqa: DTZ001


def check_cron(cron: str) -> None:
    """Refuse what is not a cron expression, or never due.

    Raises:
        ConfigurationError: names the field that is wrong, or says what is allowed.
    """
    if len(cron) > LONGEST_CRON:
        raise ConfigurationError(f"cron has {len(cron):,} characters: at most {LONGEST_CRON} are allowed")
    if len(cron.split()) not in (5, 6):
        raise ConfigurationError(
            f"cron={cron!r}: use five fields ({', '.join(FIELDS[1:])}), or six with the second first"
        )
    try:
        parsed = CronSim(cron, _ANY_DAY)
    except CronSimError as error:
        raise ConfigurationError(f"cron={cron!r}: {str(error).lower()}; {_ALLOWED}") from None
    if not _has_a_date(parsed):
        raise ConfigurationError(f"cron={cron!r}: no year has such a date")


def _has_a_date(parsed: CronSim) -> bool:
    """Whether some year has a day that the expression means. cronsim would look for it for 50 years."""
    kinds = {kind: first for month in parsed.months for kind, first in _kinds_of(month)}
    return any(
        parsed.match_day(first + timedelta(days=day)) for (_, length), first in kinds.items() for day in range(length)
    )


@cache
def _kinds_of(month: int) -> list[tuple[tuple[int, int], date]]:
    """A month of each kind that this one can be: its first weekday, its length, and the first day of such a month."""
    kinds = {monthrange(year, month): date(year, month, 1) for year in range(2000, 2028)}  # then they come again
    return list(kinds.items())


def check_zone(name: str) -> None:
    """Refuse what is not a time zone.

    Raises:
        ConfigurationError: says what is allowed.
    """
    try:
        if not _ZONE.fullmatch(name):
            raise ValueError
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ConfigurationError(f"tz={name[:64]!r} is not a time zone: use a name such as 'Europe/Berlin'") from None


def cron_in_words(cron: str) -> str:
    """What the expression means, in English."""
    words: str = CronSim(cron, _ANY_DAY).explain()
    return words


@lru_cache(maxsize=4096)
def cron_after(cron: str, tz: str, second: int) -> int | None:
    """The first due time later than `second`; None if there is none for 50 years."""
    minute, hour = cron.split()[-5:-3]
    if minute.startswith("*") or hour.startswith("*"):
        return _whenever_shown(cron, ZoneInfo(tz), second)
    return _once_each(cron, ZoneInfo(tz), second)


def _once_each(cron: str, zone: ZoneInfo, second: int) -> int | None:
    """For an expression that names certain times."""
    for wall in CronSim(cron, _wall(second + _offset(zone, second))):
        due = _moment_of(wall, zone)
        if due > second:  # not so when the clock shows this hour for the second time
            return due
    return None


def _moment_of(wall: datetime, zone: ZoneInfo) -> int:
    moment = int(wall.replace(tzinfo=zone, fold=0).timestamp())
    if moment + _offset(zone, moment) == _number(wall):
        return moment
    return _change(zone, moment - 86_400, moment) or moment  # the clock skips it


def _whenever_shown(cron: str, zone: ZoneInfo, second: int) -> int | None:
    """For an expression that names no certain times."""
    since, offset = second, _offset(zone, second)
    shown = second + offset
    while True:
        found = next(CronSim(cron, _wall(shown)), None)
        if found is None:
            return None
        due = _number(found) - offset
        change = _change(zone, since, due)
        if change is None:
            return due
        since, offset = change, _offset(zone, change)
        shown = change - 1 + offset


def _change(zone: ZoneInfo, since: int, until: int) -> int | None:
    """The first second after `since`, up to `until`, from which the clock is another one."""
    offset = _offset(zone, since)
    low = high = since
    while high < until and _offset(zone, high) == offset:
        low, high = high, min(until, high + _WEEK)
    if _offset(zone, high) == offset:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
    return high


def _offset(zone: ZoneInfo, moment: int) -> int:
    """Seconds that the clock on the wall is ahead of UTC."""
    offset = datetime.fromtimestamp(moment, UTC).astimezone(zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def _wall(number: int) -> datetime:
    return _EPOCH + timedelta(seconds=number)


def _number(wall: datetime) -> int:
    return (wall - _EPOCH) // timedelta(seconds=1)
