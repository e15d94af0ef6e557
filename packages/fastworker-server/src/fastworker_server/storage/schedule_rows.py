"""Schedules as rows: the schema, and the way between a `ScheduleRecord` and its row."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from pydantic import TypeAdapter
from pydantic_core import from_json

from fastworker.protocol import Schedule
from fastworker_server.schedule_record import ScheduleRecord

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS schedules (name TEXT PRIMARY KEY, schedule TEXT NOT NULL, state TEXT NOT NULL)
"""

Row = tuple[str, str, str]
Rows = dict[str, Row | None]
"""By name; None deletes."""
_SCHEDULE: TypeAdapter[Schedule] = TypeAdapter(Schedule)
_RECORD: TypeAdapter[ScheduleRecord] = TypeAdapter(ScheduleRecord)


def rows_of(records: Mapping[str, ScheduleRecord | None]) -> Rows:
    """The rows as they are to be written."""
    return {name: None if record is None else _row(name, record) for name, record in records.items()}


def _row(name: str, record: ScheduleRecord) -> Row:
    schedule = _SCHEDULE.dump_json(record.schedule, exclude_none=True).decode()
    state = _RECORD.dump_json(record, exclude={"schedule", "timer"}, exclude_none=True).decode()
    return name, schedule, state


def write(db: sqlite3.Connection, rows: Rows) -> None:
    """Write or delete, inside a transaction."""
    for name, row in rows.items():
        if row is None:
            db.execute("DELETE FROM schedules WHERE name = ?", (name,))
        else:
            db.execute("REPLACE INTO schedules VALUES (?, ?, ?)", row)


def read(db: sqlite3.Connection) -> list[ScheduleRecord]:
    """All schedules."""
    found = db.execute("SELECT schedule, state FROM schedules ORDER BY name")
    return [record_of(schedule, state) for schedule, state in found]


def record_of(schedule: str, state: str) -> ScheduleRecord:
    """The record of a row."""
    return _RECORD.validate_python({**from_json(state), "schedule": from_json(schedule)})


def size(rows: Rows) -> int:
    """Characters, roughly."""
    return sum(len(row[1]) + len(row[2]) for row in rows.values() if row is not None)
