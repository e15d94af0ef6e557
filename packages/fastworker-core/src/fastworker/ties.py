"""The options that tie a task to others, as users write them: keys, uniqueness, idempotency, upstream failures."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

from fastworker.context import running_task
from fastworker.errors import ConfigurationError, InvalidArguments
from fastworker.tasks import OnDuplicate, OnUpstreamFailure, Ties, UniqueWhile

KeyFunction = Callable[..., object]
"""Gets the arguments of the call; what it returns becomes a text. None: no key."""
LONGEST_KEY = 500


@dataclass(frozen=True, slots=True)
class TieRules:
    """How the ties of a task are made. `None` means: not said here, so the next in line decides.

    Attributes:
        key: whose limits count: a text, or a function of the arguments.
        fair_key: whose turn it is, likewise.
        unique: while the task is `queued`, until it has ended (`running`), or for so many seconds, there is no other
            one with the same arguments.
        unique_key: what else than the arguments makes two tasks the same.
        on_duplicate: `return_existing`, `reject` or `replace`.
        idempotency_key: for one name and key, there is one task, for as long as it is kept.
        on_upstream_failure: `fail`, `run` or `ignore`.
    """

    key: KeyFunction | str | None = None
    fair_key: KeyFunction | str | None = None
    unique: UniqueWhile | float | None = None
    unique_key: KeyFunction | str | None = None
    on_duplicate: OnDuplicate | None = None
    idempotency_key: str | None = None
    on_upstream_failure: OnUpstreamFailure | None = None

    def over(self, other: TieRules) -> TieRules:
        """These rules where they say something, the other's where they don't."""
        said = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        return replace(other, **said) if said else other

    def ties(
        self, name: str, payload: str, args: Sequence[Any], kwargs: Mapping[str, Any], needs: tuple[str, ...] = ()
    ) -> Ties | None:
        """The ties of one call; None if there are none.

        Raises:
            InvalidArguments: a key function raised.
        """
        running = running_task()
        parent = running.id if running is not None else None
        if self is NO_RULES and not needs and parent is None:
            return None

        key, fair_key = self.keys(name, args, kwargs)
        unique = None
        if self.unique is not None:
            same = _key(name, "unique_key", self.unique_key, args, kwargs)
            unique = f"{name}:{same if same is not None else hashlib.sha256(payload.encode()).hexdigest()[:32]}"
        return Ties(
            key=key,
            fair_key=fair_key,
            unique=unique,
            unique_while=self.unique if self.unique is not None else "running",
            on_duplicate=self.on_duplicate or "return_existing",
            needs=needs,
            on_upstream_failure=self.on_upstream_failure or "fail",
            parent=parent,
        )

    def keys(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """The key and the fair key of one call.

        Raises:
            InvalidArguments: a key function raised.
        """
        return _key(name, "key", self.key, args, kwargs), _key(name, "fair_key", self.fair_key, args, kwargs)


NO_RULES = TieRules()
_NAMES = tuple(field.name for field in fields(TieRules))


def _key(name: str, which: str, rule: KeyFunction | str | None, args: Any, kwargs: Any) -> str | None:
    if not callable(rule):
        return rule
    try:
        value = rule(*args, **kwargs)
        text = None if value is None else str(value)
    except Exception as error:
        raise InvalidArguments(f"{name}: the function of {which} raised {type(error).__name__}: {error}") from error
    if text is not None and len(text) > LONGEST_KEY:
        raise InvalidArguments(f"{name}: {which} has {len(text)} characters; {LONGEST_KEY} are the most")
    return text


# ---- checks of what users write --------------------------------------------------------------------------------------


def check_key(value: object) -> Any:
    """A key: a text or a function."""
    if callable(value) or (isinstance(value, str) and 0 < len(value) <= LONGEST_KEY):
        return value
    raise ConfigurationError(f"use a text of 1 to {LONGEST_KEY} characters, or a function of the task's arguments")


def check_idempotency_key(value: object) -> str:
    """An idempotency key."""
    if isinstance(value, str) and 0 < len(value) <= LONGEST_KEY:
        return value
    raise ConfigurationError(f"use a text of 1 to {LONGEST_KEY} characters")


def check_unique(value: object) -> UniqueWhile | float:
    """How long a task is unique."""
    if value == "queued":
        return "queued"
    if value == "running" or value is True:
        return "running"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < math.inf:
        return float(seconds)
    raise ConfigurationError("use 'queued', 'running', seconds or a timedelta")


def check_on_duplicate(value: OnDuplicate) -> OnDuplicate:
    """What becomes of a duplicate."""
    if value not in ("return_existing", "reject", "replace"):
        raise ConfigurationError("use 'return_existing', 'reject' or 'replace'")
    return value


def check_on_upstream_failure(value: OnUpstreamFailure) -> OnUpstreamFailure:
    """What becomes of a task if one that it needs does not succeed."""
    if value not in ("fail", "run", "ignore"):
        raise ConfigurationError("use 'fail', 'run' (with an UpstreamFailure in its place) or 'ignore'")
    return value
