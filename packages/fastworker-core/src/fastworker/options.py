"""Task options as users write them, checked and turned into `Options`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from fastworker.errors import ConfigurationError
from fastworker.retry import backoff_from
from fastworker.tasks import Acks, Backoff, BackoffKind, Options, Priority

Seconds = float | timedelta
MAX_RETRIES = 10_000


class DefinitionOptions(TypedDict, total=False):
    """What `@task` and `options()` both take. See `Options` for the meaning."""

    priority: Priority | str
    queue: str
    retries: int
    backoff: Backoff | BackoffKind | float
    timeout: Seconds
    expires: Seconds
    result_ttl: Seconds
    acks: Acks
    tags: Sequence[str]


class SubmitOptions(DefinitionOptions, total=False):
    """What only one submission can say. An `eta` without a time zone is local time."""

    delay: Seconds
    eta: datetime | float


def check_names(owner: str, said: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that don't exist.

    Raises:
        ConfigurationError: names those that do.
    """
    for name in said:
        if name not in known:
            raise ConfigurationError(f"{owner}: there is no option {name!r}; there are {', '.join(known)}")


def make_options(owner: str, **said: Unpack[SubmitOptions]) -> Options:
    """The options that were said; `owner` is named in errors.

    Raises:
        ConfigurationError: names the option and what it may be.
    """
    checks: dict[str, Any] = {
        "priority": _priority,
        "queue": _queue,
        "retries": _retries,
        "backoff": backoff_from,
        "timeout": lambda value: _seconds(value, positive=True),
        "expires": lambda value: _seconds(value, positive=True),
        "result_ttl": _seconds,
        "delay": _seconds,
        "eta": _moment,
        "acks": _acks,
        "tags": _tags,
    }
    check_names(owner, said, checks)
    options: dict[str, Any] = {}
    for name, value in said.items():
        if value is None:
            continue
        try:
            options[name] = checks[name](value)
        except (ConfigurationError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{owner}: {name}={value!r}: {error}") from None
    return Options(**options)


def _priority(value: str) -> Priority:
    text = str(getattr(value, "value", value)).lower()
    if text not in list(Priority):
        raise ConfigurationError(f"use one of {', '.join(Priority)}")
    return Priority(text)


def _queue(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 200:
        raise ConfigurationError("use a name of 1 to 200 characters")
    return value


def _retries(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_RETRIES:
        raise ConfigurationError(f"use a whole number from 0 to {MAX_RETRIES}")
    return value


def _seconds(value: Seconds, *, positive: bool = False) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not math.isfinite(seconds) or seconds < 0 or (positive and seconds == 0):
        raise ConfigurationError(f"use {'more than' if positive else 'at least'} 0 seconds, or a timedelta")
    return seconds


def _moment(value: datetime | float) -> float:
    seconds = value.timestamp() if isinstance(value, datetime) else float(value)
    if not math.isfinite(seconds):
        raise ConfigurationError("use a datetime, or seconds since 1970")
    return seconds


def _acks(value: Acks) -> Acks:
    if value not in ("late", "early"):
        raise ConfigurationError("use 'late' (a lost attempt is run again) or 'early' (at most once)")
    return value


def _tags(value: Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(tag, str) for tag in value):
        raise ConfigurationError("use a list of words")
    return tuple(value)
