"""Schedules as users write them, checked and turned into a `Timing`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final, TypedDict, Unpack
from zoneinfo import ZoneInfo

from fastworker.errors import ConfigurationError, TaskDefinitionError
from fastworker.options import DefinitionOptions
from fastworker.schedule import Misfire, Overlap, Timing, check_timing
from fastworker.wall import check_zone

Moment = datetime | float | str
_MOMENTS: Final = "use a datetime, seconds since 1970, or text such as '2027-01-31 09:00'"


class TimingOptions(TypedDict, total=False):
    """When a schedule is due. See `Timing` for the meaning; a moment without a time zone is one of the zone `tz`."""

    every: float | timedelta
    cron: str
    tz: str
    start: Moment
    end: Moment
    count: int
    misfire: Misfire
    overlap: Overlap


class ScheduleOptions(TimingOptions, total=False):
    """What `@task` takes to run a task by itself. The last three are the words of fastworker 0.3.0."""

    repeat_interval: float
    repeat_count: int
    repeat_until: str


class TaskOptions(DefinitionOptions, ScheduleOptions, total=False):
    """All that `@task` takes."""


class RunOptions(DefinitionOptions, TimingOptions, total=False):
    """All that a schedule made at run time takes."""


_OLD_WORDS: Final = {"repeat_interval": "every", "repeat_count": "count", "repeat_until": "end"}


def split_options(said: TaskOptions | RunOptions) -> tuple[DefinitionOptions, ScheduleOptions]:
    """The options of the task, and those of its schedule that were said."""
    mine = ScheduleOptions.__annotations__
    how = {name: value for name, value in said.items() if name not in mine}
    when = {name: value for name, value in said.items() if name in mine and value is not None}
    return how, when  # type: ignore[return-value]


def make_timing(owner: str, **said: Unpack[ScheduleOptions]) -> Timing:
    """The timing that was said; `owner` is named in errors.

    Raises:
        ConfigurationError: names the option and what it may be.
    """
    try:
        timing = _timing(**_in_today_s_words(said))
        check_timing(timing)
    except ConfigurationError as error:
        raise ConfigurationError(f"{owner}: {error}") from None
    except OverflowError as error:
        raise ConfigurationError(f"{owner}: a number or a date is too large: {error}") from None
    return timing


def _timing(**said: Unpack[TimingOptions]) -> Timing:
    zone_name = _text("tz", said.get("tz", "UTC"))
    check_zone(zone_name)
    zone = ZoneInfo(zone_name)
    misfire = said.get("misfire", "once")
    return Timing(
        every=_seconds(said["every"]) if "every" in said else None,
        cron=_text("cron", said["cron"]) if "cron" in said else None,
        tz=zone_name,
        start=_moment("start", said["start"], zone) if "start" in said else None,
        end=_moment("end", said["end"], zone) if "end" in said else None,
        count=_count(said["count"]) if "count" in said else None,
        misfire=misfire,
        overlap=said.get("overlap", "queue" if misfire == "all" else "skip"),
    )


def check_runs_without_arguments(function: Callable[..., Any], name: str) -> None:
    """Refuse a schedule for a function that can't be called without arguments.

    Raises:
        TaskDefinitionError: names the parameters.
    """
    parameters = inspect.signature(function).parameters.values()
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in optional]
    if needed:
        raise TaskDefinitionError(
            f"{name} has a schedule, which runs it without arguments: give {', '.join(needed)} a default, "
            "or make the schedule with client.add_schedule()"
        )


def _in_today_s_words(said: Mapping[str, Any]) -> TimingOptions:
    words: dict[str, Any] = {}
    for name, value in said.items():
        today = _OLD_WORDS.get(name, name)
        if today in words or (today != name and today in said):
            raise ConfigurationError(f"{name} is the old word for {today}: say one of them")
        words[today] = value
    if "repeat_until" in said:
        words["end"] = _local(said["repeat_until"])
    return words  # type: ignore[return-value]


def _local(value: Moment) -> Moment:
    """0.3.0 meant the clock of the machine."""
    moment = _read("repeat_until", value) if isinstance(value, str) else value
    try:
        return moment.astimezone() if isinstance(moment, datetime) else moment
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"repeat_until={value!r} is a date that no clock here reaches: {error}") from None


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name}={value!r}: use text")
    return value


def _seconds(value: object) -> float:
    match value:
        case timedelta():
            return value.total_seconds()
        case bool():
            pass
        case int() | float():
            return float(value)
    raise ConfigurationError(f"every={value!r}: use seconds, or a timedelta")


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"count={value!r}: use a whole number from 1")
    return value


def _moment(name: str, value: object, zone: tzinfo) -> float:
    moment = _read(name, value) if isinstance(value, str) else value
    match moment:
        case datetime():
            return (moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)).timestamp()
        case bool():
            pass
        case int() | float():
            return float(moment)
    raise ConfigurationError(
        f"{name}={value!r}: use a datetime, seconds since 1970, or text such as '2027-01-31 09:00'"
    )


def _read(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text[:64])
    except ValueError:
        raise ConfigurationError(f"{name}={text[:64]!r}: {_MOMENTS}") from None
