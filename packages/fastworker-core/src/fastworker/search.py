"""The search for tasks: the one search box as text, and what it means.

`parse('state:failed name:mail args:"order 17" took>5 timed out')` gives a `TaskFilter`, `to_text` the text again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import Field

from fastworker.errors import InvalidSearch
from fastworker.lifecycle import State
from fastworker.tasks import PRIORITIES, Priority, is_task_id

MOST_TERMS: Final = 50
LONGEST_SEARCH: Final = 2000
KEYS: Final = (
    "state", "name", "id", "queue", "priority", "worker", "tag", "args", "error", "type", "place", "before", "after",
)  # fmt: skip
STATES: Final = tuple(state for state in State if state is not State.NEW)
FIRST_MOMENT: Final = -62_135_596_800.0
LAST_MOMENT: Final = 253_402_300_799.0
"""The years 1 to 9999: others can't be written as dates."""
LONGEST_RUN: Final = 1e10
HELP: Final = f"{', '.join(f'{key}:' for key in KEYS)} and took>"

Moment = Annotated[float, Field(ge=FIRST_MOMENT, le=LAST_MOMENT)]
Length = Annotated[float, Field(ge=0.0, le=LONGEST_RUN)]

_TOKEN = re.compile(r'\s*(?:(?P<key>[A-Za-z]+)(?P<mark>[:>]))?(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>\S*))')
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks are meant. Those that fit everything said here; where several values stand, any of them.

    Attributes:
        words: each stands in the name, in the arguments or in the error.
        states, names, ids, queues, priorities: one of these. An id may be its beginning, from 8 characters.
        worker: the worker that has or had it.
        tags, args, error: each is a tag, stands in the arguments, stands in the type, message or place of the error.
        type, place: of the error, as in `ErrorInfo`.
        before, after: it was submitted then, in seconds since 1970.
        longer: its last attempt took more than so many seconds.
    """

    words: tuple[str, ...] = ()
    states: tuple[State, ...] = ()
    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    priorities: tuple[Priority, ...] = ()
    worker: str | None = None
    tags: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    error: tuple[str, ...] = ()
    type: str | None = None
    place: str | None = None
    before: Moment | None = None
    after: Moment | None = None
    longer: Length | None = None

    def __bool__(self) -> bool:
        return self != EVERYTHING

    def but(self, **changes: Any) -> TaskFilter:
        """The same with some values changed."""
        return replace(self, **changes)


EVERYTHING: Final = TaskFilter()


@dataclass(slots=True)
class _Said:
    """What has been read so far."""

    now: float
    many: dict[str, list[Any]] = field(default_factory=dict)
    one: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, *values: Any) -> None:
        known = self.many.setdefault(name, [])
        known += [value for value in values if value not in known]

    def set(self, name: str, value: Any) -> None:
        self.one[name] = value


def parse(text: str, now: float) -> TaskFilter:
    """What the text of the search box means.

    Args:
        now: seconds since 1970, for `after:2h`, "two hours ago".

    Raises:
        InvalidSearch: says what is not understood, and what may stand there.
    """
    if len(text) > LONGEST_SEARCH:
        raise InvalidSearch(f"a search has at most {LONGEST_SEARCH} characters")
    said = _Said(now)
    for count, (key, mark, value, quoted) in enumerate(_tokens(text)):
        if count == MOST_TERMS:
            raise InvalidSearch(f"a search has at most {MOST_TERMS} terms")
        if key is None and is_task_id(value) and not quoted:
            said.add("ids", value.lower())
        elif key is None:
            said.add("words", value)
        elif (key, mark) == ("took", ">"):
            said.set("longer", _length(value))
        elif mark == ":" and key in _READERS:
            _READERS[key](said, value)
        else:
            raise InvalidSearch(
                f"there is no {key}{mark} in a search; there are {HELP}. "
                f'To search for the words, put them in quotes: "{key}{mark}{value}"'
            )
    many: dict[str, Any] = {name: tuple(values) for name, values in said.many.items()}
    return TaskFilter(**many, **said.one)


def _tokens(text: str) -> Iterator[tuple[str | None, str | None, str, bool]]:
    """Key, `:` or `>`, value, and whether the value stood in quotes."""
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        assert found is not None  # it matches any text
        at = found.end()
        key, mark, plain = found["key"], found["mark"], found["plain"]
        if key is not None and plain is not None and _is_no_key(key, plain):
            key, mark, plain = None, None, f"{key}{mark}{plain}"
        value = plain if plain is not None else re.sub(r"\\(.)", r"\1", found["quoted"])
        if key is not None and not value:
            raise InvalidSearch(f"after {key}{mark} something must stand, without a space between")
        if value:
            yield key.lower() if key else None, mark, value, plain is None


def _is_no_key(key: str, rest: str) -> bool:
    """An address (`https://…`), or the beginning of a pasted error (`ValueError:`)."""
    return rest.startswith("//") or (key != key.lower() and key.lower() not in (*KEYS, "took"))


# ---- values ------------------------------------------------------------------------------------------------------


def _state(said: _Said, value: str) -> None:
    for word in value.lower().split(","):
        if word not in STATES:
            raise InvalidSearch(f"state:{word} does not exist; there are {', '.join(STATES)}")
        said.add("states", State(word))


def _priority(said: _Said, value: str) -> None:
    for word in value.lower().split(","):
        if word not in list(PRIORITIES):
            raise InvalidSearch(f"priority:{word} does not exist; there are {', '.join(PRIORITIES)}")
        said.add("priorities", Priority(word))


def _id(said: _Said, value: str) -> None:
    if len(value) < 8 or not value.replace("-", "").isalnum():
        raise InvalidSearch("after id: stands a task id, or at least its first 8 characters")
    said.add("ids", value.lower())


def _moment(key: str) -> Callable[[_Said, str], None]:
    def read(said: _Said, value: str) -> None:
        said.set(key, _moment_of(key, value, said.now))

    return read


def _moment_of(key: str, value: str, now: float) -> float:
    ago = _AGO.fullmatch(value)
    try:
        moment = now - float(ago[1]) * _UNITS[ago[2]] if ago is not None else _date(value)
    except (ValueError, OverflowError):
        moment = math.nan
    if not FIRST_MOMENT <= moment <= LAST_MOMENT:
        raise InvalidSearch(
            f"{key}:{value} is not a time; write {key}:2h for two hours ago (s, m, h, d), "
            f"or a date in UTC such as {key}:2026-11-20 or {key}:2026-11-20T08:30"
        )
    return moment


def _date(value: str) -> float:
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _length(value: str) -> float:
    length = _LENGTH.fullmatch(value)
    seconds = float(length[1]) * _UNITS[length[2] or "s"] if length is not None else math.nan
    if not seconds <= LONGEST_RUN:
        raise InvalidSearch(f"took>{value} is not a duration; write seconds, or a number with ms, s, m, h or d")
    return seconds


def _several(name: str) -> Callable[[_Said, str], None]:
    return lambda said, value: said.add(name, value)


def _single(name: str) -> Callable[[_Said, str], None]:
    return lambda said, value: said.set(name, value)


_READERS: Final[dict[str, Callable[[_Said, str], None]]] = {
    "state": _state,
    "name": _several("names"),
    "id": _id,
    "queue": _several("queues"),
    "priority": _priority,
    "worker": _single("worker"),
    "tag": _several("tags"),
    "args": _several("args"),
    "error": _several("error"),
    "type": _single("type"),
    "place": _single("place"),
    "before": _moment("before"),
    "after": _moment("after"),
}


# ---- back to text ------------------------------------------------------------------------------------------------


def to_text(wanted: TaskFilter) -> str:
    """The text that `parse` reads as this filter; times to the microsecond."""
    terms = [_word(word) for word in wanted.words]
    for key, values in (
        ("state", wanted.states),
        ("name", wanted.names),
        ("id", wanted.ids),
        ("queue", wanted.queues),
        ("priority", wanted.priorities),
        ("tag", wanted.tags),
        ("args", wanted.args),
        ("error", wanted.error),
    ):
        terms += [f"{key}:{_quoted(value)}" for value in values]
    for key, value in (("worker", wanted.worker), ("type", wanted.type), ("place", wanted.place)):
        terms += [f"{key}:{_quoted(value)}"] if value is not None else []
    for key, moment in (("before", wanted.before), ("after", wanted.after)):
        terms += [f"{key}:{_iso(moment)}"] if moment is not None else []
    if wanted.longer is not None:
        terms.append(f"took>{f'{wanted.longer:f}'.rstrip('0').rstrip('.')}")
    return " ".join(terms)


def _word(value: str) -> str:
    plain = not re.match(r"[A-Za-z]+[:>]", value) and not is_task_id(value)
    return _quoted(value) if plain else _in_quotes(value)


def _quoted(value: str) -> str:
    return value if value and not re.search(r'[\s"\\]', value) and not value.startswith("//") else _in_quotes(value)


def _in_quotes(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
