"""What a store held when it was opened: all that an engine needs to go on."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import from_json, to_json

from fastworker.lifecycle import OPEN, State
from fastworker.tasks import Task
from fastworker_server.schedule_record import ScheduleRecord
from fastworker_server.storage import rows, schedule_rows
from fastworker_server.storage.kinds import Kind, by_state, ended_kinds

Facts = dict[str, Any]


@dataclass(slots=True)
class Recovered:
    """What is to go on.

    Attributes:
        tasks: the open ones.
        upstream: the ended ones that waiting tasks need.
        locks: of ended tasks that are unique for a time: name, task id, until when.
        starts: of tasks with a rate limit, those that count still: task name, limit key, when.
        counts: of ended tasks, by state.
        kinds: of ended tasks, how many there are of each.
        facts: about the control plane.
        schedules: all.
    """

    tasks: list[Task]
    counts: dict[State, int]
    next_seq: int
    facts: Facts = field(default_factory=dict)
    upstream: list[Task] = field(default_factory=list)
    locks: list[tuple[str, str, float]] = field(default_factory=list)
    starts: list[tuple[str, str | None, float]] = field(default_factory=list)
    kinds: Counter[Kind] = field(default_factory=Counter)
    schedules: list[ScheduleRecord] = field(default_factory=list)


def recover(db: sqlite3.Connection) -> Recovered:
    """Read it all."""
    marks = ", ".join("?" * len(OPEN))
    found = db.execute(
        f"SELECT {rows.COLUMNS} FROM tasks WHERE finished_at IS NULL AND state IN ({marks}) ORDER BY seq", list(OPEN)
    )
    tasks = [rows.task_from(row) for row in found]
    kinds = ended_kinds(db)
    last = db.execute("SELECT max(seq) FROM tasks").fetchone()[0] or 0
    facts = {name: from_json(value) for name, value in db.execute("SELECT name, value FROM facts")}
    return Recovered(
        tasks,
        by_state(kinds),
        last + 1,
        facts,
        _upstream(db, tasks),
        _locks(db),
        _starts(db, facts.get("counted", {})),
        kinds,
        schedules=schedule_rows.read(db),
    )


def tasks_with_ids(db: sqlite3.Connection, task_ids: Iterable[str]) -> list[Task]:
    """Those of the tasks that are kept."""
    ids = to_json(list(task_ids)).decode()
    found = db.execute(f"SELECT {rows.COLUMNS} FROM tasks WHERE id IN (SELECT value FROM json_each(?))", (ids,))
    return [rows.task_from(row) for row in found]


def _upstream(db: sqlite3.Connection, tasks: list[Task]) -> list[Task]:
    still_open = {task.id for task in tasks}
    needed = {need for task in tasks if task.state is State.WAITING for need in task.ties.needs}
    return tasks_with_ids(db, needed - still_open)


def _locks(db: sqlite3.Connection) -> list[tuple[str, str, float]]:
    found = db.execute(
        "SELECT json_extract(ties, '$.unique'), id, unique_until FROM tasks "
        "WHERE unique_until > ? AND state IN ('succeeded', 'failed') ORDER BY unique_until DESC",
        (time.time(),),
    )
    return found.fetchall()


def _starts(db: sqlite3.Connection, counted: dict[str, tuple[float, float]]) -> list[tuple[str, str | None, float]]:
    """Reads the whole table, but only where there are rate limits. Attempts that failed are in the history.

    Args:
        counted: by name, the longest period of its rates, and since when starts count.
    """
    starts: list[tuple[str, str | None, float]] = []
    for name, (period, since) in counted.items():
        found = db.execute(_STARTS, {"name": name, "since": max(since, time.time() - period)})
        starts += [(name, key, started) for _, key, started in found]
    return starts


_STARTS: Final = """
SELECT seq, json_extract(ties, '$.key'), started_at FROM tasks WHERE name = :name AND started_at > :since
UNION
SELECT seq, json_extract(ties, '$.key'), json_extract(attempt.value, '$.started_at') AS started
FROM tasks, json_each(tasks.history) AS attempt WHERE name = :name AND started_at > :since AND started > :since
"""
