"""Finds tasks by a filter: pages, counts, groups of failures. Runs in the store's reader thread.

A page is read from the index that fits the filter best, newest first, from where the page before ended. What no index
answers is looked through backwards in stretches, for as long as `LOOK_FOR`; then the page says where it stopped.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fastworker.found import Facets, FailureGroup
from fastworker.lifecycle import TERMINAL, State
from fastworker.search import TaskFilter
from fastworker.tasks import PRIORITIES
from fastworker_server.storage.words import LONGEST_TEXT, candidates, mark

LOOK_FOR: Final = 0.02
"""Seconds for a page."""
COUNT_FOR: Final = 0.008
"""Seconds for the counts beside it."""
FIRST_STRETCH: Final = 2000
MOST_COUNTED: Final = 1000
MOST_BRANCHES: Final = 60
MOST_OF_AN_ID: Final = 1000
"""Tasks that are looked at whose id begins as asked: the newest. Eight characters of an id stand for 65 seconds."""
SHORTEST_WORD: Final = 3
"""Characters that a word must have for the index of trigrams."""

Kind = tuple[str, State]
"""Task name and state."""


@dataclass(slots=True)
class FoundSeqs:
    """Sequence numbers, newest first; `next` and `complete` as in `TaskPage`."""

    seqs: list[int]
    next: int | None = None
    complete: bool = True


@dataclass(slots=True)
class _Conditions:
    """Conditions on a row `t` of `tasks`, with their values."""

    texts: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, text: str, *values: Any) -> None:
        self.texts.append(text)
        self.values += values

    def among(self, column: str, values: Sequence[Any]) -> None:
        if values:
            self.add(f"{column} IN ({', '.join('?' * len(values))})", *values)


@dataclass(slots=True)
class _Branch:
    """One statement that gives `seq`, newest first, between two bounds and up to a limit."""

    source: str
    seq: str
    conditions: _Conditions

    def run(self, db: sqlite3.Connection, low: int, high: int, limit: int) -> Iterable[int]:
        where = " AND ".join([*self.conditions.texts, f"{self.seq} >= ?", f"{self.seq} < ?"])
        sql = f"SELECT {self.seq} FROM {self.source} WHERE {where} ORDER BY {self.seq} DESC LIMIT ?"
        return [row[0] for row in db.execute(sql, [*self.conditions.values, low, high, limit])]


def find(
    db: sqlite3.Connection,
    wanted: TaskFilter,
    kinds: Sequence[Kind],
    limit: int,
    before: int | None,
    words: bool,
    seconds: float = LOOK_FOR,
) -> FoundSeqs:
    """One page.

    Args:
        kinds: the names and states that the filter's names, states, queues and priorities leave.
        before: only smaller sequence numbers.
        words: whether there is an index of words.
        seconds: how long it may look through what no index answers.
    """
    low, high = _bounds(db, wanted, before)
    if not kinds or low >= high:
        return FoundSeqs([])
    if wanted.ids:
        return _page(_by_ids(wanted).run(db, low, high, limit + 1), limit)
    driver = _driving_words(wanted) if words else None
    branches = [] if driver else _branches(wanted, kinds)
    if branches and not _is_slow(wanted):
        return _page(_merged(db, branches, low, high, limit + 1), limit)
    if driver is None:
        return _look_through(db, branches or [_all(wanted)], low, high, limit, seconds)
    indexed = max(low, min(high, mark(db) + 1))
    page = _look_through(db, branches or [_all(wanted)], indexed, high, limit, seconds)
    if page.next is not None or indexed <= low:
        return page
    if len(page.seqs) == limit:
        return FoundSeqs(page.seqs, indexed)
    return _join(page, _look_through(db, _with_words(wanted, driver), low, indexed, limit - len(page.seqs), seconds))


def _join(newer: FoundSeqs, older: FoundSeqs) -> FoundSeqs:
    return FoundSeqs(newer.seqs + older.seqs, older.next, older.complete)


def _page(seqs: Iterable[int], limit: int) -> FoundSeqs:
    found = list(seqs)
    return FoundSeqs(found[:limit], found[limit - 1] if len(found) > limit else None)


def _merged(db: sqlite3.Connection, branches: Sequence[_Branch], low: int, high: int, limit: int) -> list[int]:
    found = {seq for branch in branches for seq in branch.run(db, low, high, limit)}
    return sorted(found, reverse=True)[:limit]


def _look_through(
    db: sqlite3.Connection, branches: Sequence[_Branch], low: int, high: int, limit: int, seconds: float
) -> FoundSeqs:
    """Stretch by stretch backwards, each as long as the time that is left allows."""
    began = at = time.monotonic()
    found: list[int] = []
    stretch = FIRST_STRETCH
    while high > low and len(found) <= limit:
        if at - began > seconds:
            return FoundSeqs(found, high, complete=False)
        bottom = max(low, high - stretch)
        found += _merged(db, branches, bottom, high, limit + 1 - len(found))
        high = bottom
        took, at = time.monotonic() - at, time.monotonic()
        left = max(0.0, seconds - (at - began))
        stretch = int(stretch * max(0.25, min(4.0, 0.5 * left / max(took, 1e-6))))
    return _page(found, limit)


# ---- from the filter to conditions -------------------------------------------------------------------------------


def _bounds(db: sqlite3.Connection, wanted: TaskFilter, before: int | None) -> tuple[int, int]:
    last = db.execute("SELECT max(seq) FROM tasks").fetchone()[0] or 0
    high = last + 1 if before is None else min(last + 1, before)
    if wanted.before is not None:
        high = min(high, _first_since(db, wanted.before, last))
    return (0 if wanted.after is None else _first_since(db, wanted.after, last)), high


def _first_since(db: sqlite3.Connection, moment: float, last: int) -> int:
    """The first task that was not submitted before: times grow with the sequence numbers."""
    low, high = 0, last + 1
    while low < high:
        middle = (low + high) // 2
        row = db.execute(
            "SELECT seq, submitted_at FROM tasks WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,)
        ).fetchone()
        if row is None or row[1] >= moment:
            high = middle
        else:
            low = row[0] + 1
    return low


def _like(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


_ARGS: Final = f"substr(t.args, 1, {LONGEST_TEXT}) LIKE ? ESCAPE '\\'"
_ERROR: Final = (
    "EXISTS (SELECT 1 FROM failures f WHERE f.seq = t.seq AND "
    "f.type || ' ' || f.message || ' ' || f.place LIKE ? ESCAPE '\\')"
)


def _coarse(wanted: TaskFilter) -> _Conditions:
    """What `kinds` only narrows down."""
    said = _Conditions()
    said.among("t.queue", wanted.queues)
    said.among("t.rank", [priority.rank for priority in wanted.priorities])
    return said


def _residual(wanted: TaskFilter) -> _Conditions:
    """Everything but names, states and ids."""
    said = _coarse(wanted)
    if wanted.worker is not None:
        said.add("t.worker = ?", wanted.worker)
    if wanted.longer is not None:
        said.add("t.finished_at - t.started_at > ?", wanted.longer)
    for tag in wanted.tags:
        said.add("EXISTS (SELECT 1 FROM json_each(t.options, '$.tags') WHERE value = ?)", tag)
    for column, value in (("type", wanted.type), ("place", wanted.place)):
        if value is not None:
            said.add(f"EXISTS (SELECT 1 FROM failures f WHERE f.seq = t.seq AND f.{column} = ?)", value)
    for text in wanted.args:
        said.add(_ARGS, _like(text))
    for text in wanted.error:
        said.add(_ERROR, _like(text))
    for word in wanted.words:
        said.add(f"(t.name LIKE ? ESCAPE '\\' OR {_ARGS} OR {_ERROR})", *[_like(word)] * 3)
    return said


def _is_group(wanted: TaskFilter) -> bool:
    """Whether failures of one name, exception and place are asked for: there is an index for just that."""
    return len(wanted.names) == 1 and wanted.type is not None and wanted.place is not None


def _is_slow(wanted: TaskFilter) -> bool:
    """Whether something is asked for that no index answers."""
    if _is_group(wanted):
        wanted = wanted.but(type=None, place=None)
    fast = TaskFilter(states=wanted.states, names=wanted.names, queues=wanted.queues, priorities=wanted.priorities)
    return wanted.but(before=None, after=None) != fast


def _exactly(wanted: TaskFilter, said: _Conditions) -> _Conditions:
    said.among("t.name", wanted.names)
    said.among("t.state", wanted.states)
    return said


# ---- where to look -----------------------------------------------------------------------------------------------


def _branches(wanted: TaskFilter, kinds: Sequence[Kind]) -> list[_Branch]:
    """One branch per index that helps; none if too many would."""
    if wanted.type is not None or wanted.place is not None or wanted.error:
        return [_Branch("failures g CROSS JOIN tasks t ON t.seq = g.seq", "g.seq", _of_group(wanted))]
    if wanted.states and not (wanted.names or wanted.queues or wanted.priorities):
        return [_of_state(state, _residual(wanted)) for state in wanted.states]
    ended = [kind for kind in kinds if kind[1] in TERMINAL]
    if not (wanted.states or wanted.names or wanted.queues or wanted.priorities) or len(ended) > MOST_BRANCHES:
        return []
    still_open = [_of_names(names, state, _residual(wanted)) for state, names in _open_names(kinds).items()]
    return [*still_open, *(_of_kind(name, state, _residual(wanted)) for name, state in ended)]


def _open_names(kinds: Sequence[Kind]) -> dict[State, list[str]]:
    names: dict[State, list[str]] = {}
    for name, state in kinds:
        if state not in TERMINAL:
            names.setdefault(state, []).append(name)
    return names


def _of_names(names: Sequence[str], state: State, said: _Conditions) -> _Branch:
    said.among("t.name", names)
    return _of_state(state, said)


def _of_state(state: State, said: _Conditions) -> _Branch:
    index = "ended" if state in TERMINAL else "unfinished"
    said.add(f"? = t.state AND t.finished_at IS {'NOT ' if state in TERMINAL else ''}NULL", state.value)
    return _Branch(f"tasks t INDEXED BY {index}", "t.seq", said)


def _of_kind(name: str, state: State, said: _Conditions) -> _Branch:
    said.add("t.name = ? AND ? = t.state AND t.finished_at IS NOT NULL", name, state.value)
    return _Branch("tasks t INDEXED BY ended_by_name", "t.seq", said)


def _of_group(wanted: TaskFilter) -> _Conditions:
    if _is_group(wanted):
        said = _exactly(wanted, _residual(wanted.but(type=None, place=None)))
        said.add("g.name = ? AND g.type = ? AND g.place = ?", wanted.names[0], wanted.type, wanted.place)
        return said
    said = _exactly(wanted, _residual(wanted))
    if wanted.type is not None and len(wanted.names) == 1:
        said.add("g.name = ? AND g.type = ?", wanted.names[0], wanted.type)
    return said


def _all(wanted: TaskFilter) -> _Branch:
    return _Branch("tasks t", "t.seq", _exactly(wanted, _residual(wanted)))


def _by_ids(wanted: TaskFilter) -> _Branch:
    said = _exactly(wanted, _residual(wanted))
    one = f"SELECT seq FROM (SELECT seq FROM tasks WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT {MOST_OF_AN_ID})"
    bounds = [bound for beginning in wanted.ids for bound in (beginning, f"{beginning}~")]
    said.add(f"t.seq IN ({' UNION ALL '.join([one] * len(wanted.ids))})", *bounds)
    return _Branch("tasks t", "t.seq", said)


def _driving_words(wanted: TaskFilter) -> str | None:
    """The word that is probably the rarest: with the most digits, then the longest."""
    long_enough = [word for word in (*wanted.args, *wanted.error, *wanted.words) if len(word) >= SHORTEST_WORD]
    return max(long_enough, key=lambda word: (sum(map(str.isdigit, word)), len(word)), default=None)


def _with_words(wanted: TaskFilter, word: str) -> list[_Branch]:
    tables = ["arguments"] if word in wanted.args else ["errors"] if word in wanted.error else ["arguments", "errors"]
    branches = []
    for table in tables:
        said = _Conditions([f"{table} MATCH ?"], [candidates(word)])
        rest = _exactly(wanted, _residual(wanted))
        said.texts += rest.texts
        said.values += rest.values
        branches.append(_Branch(f"{table} CROSS JOIN tasks t ON t.seq = {table}.rowid", f"{table}.rowid", said))
    return branches


# ---- counts and groups -------------------------------------------------------------------------------------------


def count(db: sqlite3.Connection, found: FoundSeqs) -> Facets:
    """What was found, counted."""
    marks = ", ".join("?" * len(found.seqs))
    states, names, queues, ranks = Counter[str](), Counter[str](), Counter[str](), Counter[int]()
    by_name: dict[str, dict[str, int]] = {}
    for state, name, queue, rank in db.execute(
        f"SELECT state, name, queue, rank FROM tasks WHERE seq IN ({marks})", found.seqs
    ):
        states[state] += 1
        names[name] += 1
        queues[queue] += 1
        ranks[rank] += 1
        by_name.setdefault(name, Counter())[state] += 1
    priorities = {PRIORITIES[rank].value: number for rank, number in sorted(ranks.items())}
    return Facets(len(found.seqs), found.next is None, dict(states), dict(names), dict(queues), priorities, by_name)


def failure_groups(db: sqlite3.Connection, limit: int) -> list[FailureGroup]:
    """Failed tasks by name, exception and place, the latest submitted first."""
    groups = db.execute(
        "SELECT name, type, place, number, (SELECT max(seq) FROM failures f WHERE f.name = c.name AND f.type = c.type "
        "AND f.place = c.place) AS latest FROM failures_counted c ORDER BY latest DESC LIMIT ?",
        (limit,),
    ).fetchall()
    latest = {
        row[0]: row[1:]
        for row in db.execute(
            "SELECT t.seq, t.id, t.finished_at, f.message FROM tasks t JOIN failures f ON f.seq = t.seq "
            f"WHERE t.seq IN ({', '.join('?' * len(groups))})",
            [group[4] for group in groups],
        )
    }
    return [
        FailureGroup(name, kind, place, number, latest[seq][2], latest[seq][0], latest[seq][1])
        for name, kind, place, number, seq in groups
        if seq in latest
    ]
