"""Task options as users write them, checked and turned into `Options`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from fastworker.errors import ConfigurationError
from fastworker.retry import backoff_from
from fastworker.tasks import (
    Acks,
    Backoff,
    BackoffKind,
    OnDuplicate,
    OnUpstreamFailure,
    Options,
    Priority,
    UniqueWhile,
)
from fastworker.ties import (
    NO_RULES,
    KeyFunction,
    TieRules,
    check_idempotency_key,
    check_key,
    check_on_duplicate,
    check_on_upstream_failure,
    check_unique,
)

Seconds = float | timedelta
MAX_RETRIES = 10_000


class DefinitionOptions(TypedDict, total=False):
    """What `@task` and `options()` both take. See `Options` and `TieRules` for the meaning."""

    priority: Priority | str
    queue: str
    retries: int
    backoff: Backoff | BackoffKind | float
    timeout: Seconds
    hard_timeout: Seconds
    expires: Seconds
    result_ttl: Seconds
    acks: Acks
    tags: Sequence[str]
    key: KeyFunction | str
    fair_key: KeyFunction | str
    unique: UniqueWhile | Seconds
    unique_key: KeyFunction | str
    on_duplicate: OnDuplicate
    on_upstream_failure: OnUpstreamFailure


class SubmitOptions(DefinitionOptions, total=False):
    """What only one submission can say. An `eta` without a time zone is local time."""

    delay: Seconds
    eta: datetime | float
    idempotency_key: str


def check_names(owner: str, said: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that don't exist.

    Raises:
        ConfigurationError: names those that do.
    """
    for name in said:
        if name not in known:
            raise ConfigurationError(f"{owner}: there is no option {name!r}; there are {', '.join(known)}")


def make_options(owner: str, **said: Unpack[SubmitOptions]) -> tuple[Options, TieRules]:
    """The options that were said; `owner` is named in errors.

    Raises:
        ConfigurationError: names the option and what it may be.
    """
    check_names(owner, said, _CHECKS)
    options: dict[str, Any] = {}
    rules: dict[str, Any] = {}
    for name, value in said.items():
        if value is None:
            continue
        try:
            (rules if name in _TIE_CHECKS else options)[name] = _CHECKS[name](value)
        except (ConfigurationError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{owner}: {name}={value!r}: {error}") from None
    return Options(**options), TieRules(**rules) if rules else NO_RULES


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


_TIE_CHECKS: dict[str, Callable[[Any], Any]] = {
    "key": check_key,
    "fair_key": check_key,
    "unique": check_unique,
    "unique_key": check_key,
    "on_duplicate": check_on_duplicate,
    "idempotency_key": check_idempotency_key,
    "on_upstream_failure": check_on_upstream_failure,
}
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "priority": _priority,
    "queue": _queue,
    "retries": _retries,
    "backoff": backoff_from,
    "timeout": lambda value: _seconds(value, positive=True),
    "hard_timeout": lambda value: _seconds(value, positive=True),
    "expires": lambda value: _seconds(value, positive=True),
    "result_ttl": _seconds,
    "delay": _seconds,
    "eta": _moment,
    "acks": _acks,
    "tags": _tags,
    **_TIE_CHECKS,
}
