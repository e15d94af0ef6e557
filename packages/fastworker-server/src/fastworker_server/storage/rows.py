"""Tasks as rows: the schema, the statements, and the way between a `Task` and its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from fastworker.lifecycle import State
from fastworker.tasks import NO_TIES, Attempt, ErrorInfo, Options, Task, Ties
from fastworker_server.locks import unique_until
from fastworker_server.timers import NEVER

APPLICATION_ID: Final = 0x46574B52
"""`FWKR`: marks the file as ours (SQLite, "PRAGMA application_id")."""

FIXED: Final = (
    "seq", "id", "name", "queue", "rank", "args", "options", "submitted_at", "headers", "expires_at",
    "ties", "workflow", "unique_until",
)  # fmt: skip
MUTABLE: Final = (
    "state", "reason", "attempt", "failures", "crashes", "due_at", "started_at", "finished_at", "worker", "result",
    "result_until", "error", "inputs", "history",
)  # fmt: skip
COLUMNS: Final = ", ".join((*FIXED, *MUTABLE))

SCHEMA: Final = f"""
CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, queue TEXT NOT NULL, rank INTEGER NOT NULL,
    args TEXT NOT NULL, options TEXT NOT NULL, submitted_at REAL NOT NULL, headers TEXT, expires_at REAL,
    state TEXT NOT NULL, reason TEXT, attempt INTEGER NOT NULL, failures INTEGER NOT NULL, crashes INTEGER NOT NULL,
    due_at REAL, started_at REAL, finished_at REAL, worker TEXT, result TEXT, result_until REAL, error TEXT
);
CREATE INDEX ended ON tasks (state, seq) WHERE finished_at IS NOT NULL;
CREATE TABLE forgotten (id TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
"""

"""Format 1. What came later is in `fastworker_server.storage.migrations`."""

_CHUNKS: Final = (64, 8, 1)
"""Rows per statement. One statement for many rows takes the GIL once instead of once a row, and a third of the time."""

Row = tuple[Any, ...]
_OPTIONS: TypeAdapter[Options] = TypeAdapter(Options)
_ERROR: TypeAdapter[ErrorInfo] = TypeAdapter(ErrorInfo)
_TIES: TypeAdapter[Ties] = TypeAdapter(Ties)
_HISTORY: TypeAdapter[tuple[Attempt, ...]] = TypeAdapter(tuple[Attempt, ...])


@lru_cache(maxsize=1000)
def _options_json(options: Options) -> str:
    return _OPTIONS.dump_json(options, exclude_none=True).decode()


@lru_cache(maxsize=1000)
def _options(text: str) -> Options:
    return _OPTIONS.validate_json(text)


def insert_row(task: Task) -> Row:
    """All columns."""
    headers = to_json(task.headers).decode() if task.headers else None
    return (
        task.seq, task.id, task.name, task.queue, task.rank, task.args, _options_json(task.options),
        task.submitted_at, headers, task.expires_at, *_related(task), *_mutable(task),
    )  # fmt: skip


def update_row(task: Task) -> Row:
    """The key and the columns that change."""
    return (task.seq, *_mutable(task))


def _related(task: Task) -> Row:
    ties = task.ties
    if ties is NO_TIES:
        return (None, None, None)
    until = unique_until(task) if ties.unique is not None else NEVER
    return (
        _TIES.dump_json(ties, exclude_defaults=True).decode(), ties.workflow, until if until != NEVER else None,
    )  # fmt: skip


def _mutable(task: Task) -> Row:
    until = None
    if task.finished_at is not None and task.options.result_ttl is not None:
        until = task.finished_at + task.options.result_ttl
    error = _ERROR.dump_json(task.error).decode() if task.error is not None else None
    inputs = to_json(task.inputs).decode() if task.inputs is not None else None
    history = _HISTORY.dump_json(task.history).decode() if task.history else None
    return (
        task.state.value, task.reason, task.attempt, task.failures, task.crashes, task.due_at, task.started_at,
        task.finished_at, task.worker, task.result, until, error, inputs, history,
    )  # fmt: skip


def task_from(row: Row) -> Task:
    """The task of a row of `COLUMNS`."""
    (seq, task_id, name, queue, rank, args, options, submitted_at, headers, expires_at, ties, _workflow,
     _unique, state, reason, attempt, failures, crashes, due_at, started_at, finished_at, worker, result, _until, error,
     inputs, history) = row  # fmt: skip
    return Task(
        seq, task_id, name, args, _options(options), queue, rank, submitted_at,
        headers=from_json(headers) if headers else None,
        expires_at=expires_at, state=State(state), reason=reason, attempt=attempt, failures=failures, crashes=crashes,
        due_at=due_at, started_at=started_at, finished_at=finished_at, worker=worker, result=result,
        error=_ERROR.validate_json(error) if error else None,
        ties=_TIES.validate_json(ties) if ties else NO_TIES,
        inputs=from_json(inputs) if inputs else None,
        history=_HISTORY.validate_json(history) if history else (),
        stored=True,
    )  # fmt: skip


def statements(make_sql: Callable[[int], str], rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
    """The statements, each with its parameters, that write all rows, in chunks."""
    start = 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            yield make_sql(size), [value for row in rows[start : start + size] for value in row]
            start += size


@cache
def insert_sql(count: int) -> str:
    """Insert so many rows of `insert_row`. An id that is there already is left as it is."""
    row = "(" + ", ".join("?" * (len(FIXED) + len(MUTABLE))) + ")"
    return f"INSERT INTO tasks ({COLUMNS}) VALUES {', '.join([row] * count)} ON CONFLICT (id) DO NOTHING"


@cache
def replace_sql(count: int) -> str:
    """The same for tasks that are there already and of which something fixed has changed."""
    return insert_sql(count).replace("INSERT", "REPLACE", 1).removesuffix(" ON CONFLICT (id) DO NOTHING")


@cache
def update_sql(count: int) -> str:
    """Update so many rows of `update_row`."""
    row = "(" + ", ".join("?" * (1 + len(MUTABLE))) + ")"
    sets = ", ".join(f"{column} = new.{column}" for column in MUTABLE)
    return (
        f"WITH new (seq, {', '.join(MUTABLE)}) AS (VALUES {', '.join([row] * count)}) "
        f"UPDATE tasks SET {sets} FROM new WHERE tasks.seq = new.seq"
    )
