"""What a store tells the next control plane: needs, locks, starts; and what it makes of a store of the first format."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from fastworker.lifecycle import State
from fastworker.tasks import DEFAULTS, NO_TIES, Attempt, ErrorInfo, Priority, Task, Ties, new_task_id
from fastworker_server.storage import rows
from fastworker_server.storage.migrations import FORMAT
from fastworker_server.storage.recovery import Recovered
from fastworker_server.storage.sqlite import SqliteStore

FIRST_FORMAT = """
CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, queue TEXT NOT NULL, rank INTEGER NOT NULL,
    args TEXT NOT NULL, options TEXT NOT NULL, submitted_at REAL NOT NULL, headers TEXT, expires_at REAL,
    state TEXT NOT NULL, reason TEXT, attempt INTEGER NOT NULL, failures INTEGER NOT NULL, crashes INTEGER NOT NULL,
    due_at REAL, started_at REAL, finished_at REAL, worker TEXT, result TEXT, result_until REAL, error TEXT
);
CREATE INDEX ended ON tasks (state, seq) WHERE finished_at IS NOT NULL;
CREATE TABLE forgotten (id TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = 0x46574B52;
PRAGMA user_version = 1;
"""
"""As the first release of the store made it."""

HISTORY = (Attempt(1, "w", 1.0, 2.0, "failed", ErrorInfo("builtins.ValueError", "bad luck", "Traceback …", "a.py:1")),)


def a_task(seq: int, state: State = State.QUEUED, **fields: Any) -> Task:
    task = Task(seq, new_task_id(), "add", "[1, 2]", DEFAULTS, "default", 2, time.time(), state=state)
    for name, value in fields.items():
        setattr(task, name, value)
    return task


async def reopened(folder: Path, *tasks: Task, **facts: Any) -> Recovered:
    """Save these, and close; what the next one finds."""
    store = SqliteStore(folder)
    await store.open()
    store.save(tasks)
    for name, value in facts.items():
        store.save_fact(name, value)
    await store.close()
    store = SqliteStore(folder)
    recovered = await store.open()
    await store.close()
    return recovered


# ---- ties ------------------------------------------------------------------------------------------------------------


async def test_ties_inputs_and_history_are_kept(tmp_path: Path) -> None:
    ties = Ties("anna", "tenant", "lock", 60.0, "reject", ("x", "y"), "run", "flow", "parent", "nightly")
    tasks = [
        a_task(1, ties=ties, inputs={"x": "1", "y": ""}, history=HISTORY),
        a_task(2, ties=NO_TIES),
        a_task(3, State.WAITING, ties=Ties(needs=("x",), workflow="x")),
    ]
    recovered = await reopened(tmp_path, *tasks)
    assert recovered.tasks == tasks
    assert [task.history for task in recovered.tasks] == [HISTORY, (), ()]


async def test_what_is_fixed_otherwise_can_be_rewritten(tmp_path: Path) -> None:
    """Other arguments, another priority, options that became known later."""
    store = SqliteStore(tmp_path)
    await store.open()
    task = a_task(1)
    store.save([task, a_task(2)])
    await store.saved()
    task.args, task.rank, task.queue, task.rewrite = "[7]", Priority.HIGH.rank, "mail", True
    store.save([task])
    await store.saved()
    assert not task.rewrite
    task.attempt = 3
    store.save([task])
    await store.close()
    [found, _] = (await reopened(tmp_path)).tasks
    assert (found.args, found.rank, found.queue, found.attempt) == ("[7]", 1, "mail", 3)


async def test_the_ended_tasks_that_waiting_ones_need_are_read_back(tmp_path: Path) -> None:
    done, unneeded = (a_task(n, State.SUCCEEDED, finished_at=time.time(), result=str(n)) for n in (1, 2))
    still_open = a_task(3)
    waiting = a_task(4, State.WAITING, ties=Ties(needs=(done.id, still_open.id, "forgotten")))
    recovered = await reopened(tmp_path, done, unneeded, still_open, waiting)
    assert [(task.id, task.result) for task in recovered.upstream] == [(done.id, "1")]


async def test_a_join_of_ten_thousand_is_read_back(tmp_path: Path) -> None:
    done = [a_task(n, State.SUCCEEDED, finished_at=time.time(), result="1") for n in range(1, 10_001)]
    waiting = a_task(20_000, State.WAITING, ties=Ties(needs=tuple(task.id for task in done)))
    recovered = await reopened(tmp_path, *done, waiting)
    assert len(recovered.upstream) == 10_000


async def test_the_tasks_of_a_workflow_are_found_in_their_order(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open()
    first = a_task(1)
    others = [a_task(n, ties=Ties(needs=(first.id,), workflow=first.id)) for n in (2, 3)]
    store.save([*reversed(others), first, a_task(4, ties=Ties(workflow="another"))])
    await store.saved()
    assert [task.seq for task in await store.of_workflow(first.id)] == [1, 2, 3]
    await store.close()


# ---- locks and starts ------------------------------------------------------------------------------------------------


async def test_locks_for_a_time_that_are_still_held_are_read_back(tmp_path: Path) -> None:
    now = time.time()

    def locked(seq: int, state: State, name: str, kept: Any, at: float) -> Task:
        return a_task(
            seq, state, ties=Ties(unique=name, unique_while=kept), submitted_at=at, finished_at=at, result="1"
        )

    held = locked(1, State.SUCCEEDED, "held", 600.0, now - 60)
    recovered = await reopened(
        tmp_path,
        held,
        locked(2, State.FAILED, "failed", 600.0, now - 60),
        locked(3, State.SUCCEEDED, "over", 60.0, now - 600),
        locked(4, State.CANCELLED, "cancelled", 600.0, now - 60),
        locked(5, State.SUCCEEDED, "dead with its task", "running", now - 60),
    )
    assert {(name, task_id) for name, task_id, _ in recovered.locks if name == "held"} == {("held", held.id)}
    assert {name for name, _, _ in recovered.locks} == {"held", "failed"}
    assert recovered.locks[0][2] == held.submitted_at + 600.0


async def test_recent_starts_are_read_back_only_for_names_with_a_rate(tmp_path: Path) -> None:
    now = time.time()
    tasks = [
        a_task(1, State.RUNNING, attempt=1, started_at=now - 10, ties=Ties(key="anna")),
        a_task(2, State.SUCCEEDED, attempt=1, started_at=now - 50, finished_at=now, result="1"),
        a_task(3, State.SUCCEEDED, attempt=1, started_at=now - 70, finished_at=now, result="1"),
        a_task(4, State.RUNNING, attempt=1, started_at=now - 10, name="unlimited"),
        a_task(5),
    ]
    recovered = await reopened(tmp_path, *tasks, counted={"add": (60.0, now - 1000)})
    assert sorted(recovered.starts, key=lambda start: start[2]) == [
        ("add", None, tasks[1].started_at),
        ("add", "anna", tasks[0].started_at),
    ]
    later = await reopened(tmp_path, counted={"add": (60.0, now - 20)})
    assert later.starts == [("add", "anna", tasks[0].started_at)]
    assert (await reopened(tmp_path, counted={})).starts == []


# ---- a store of the first format -------------------------------------------------------------------------------------


def first_format(folder: Path) -> list[str]:
    """A store as the first format had it, with a task of each kind; their ids."""
    folder.mkdir(exist_ok=True)
    ids = [new_task_id() for _ in range(4)]
    error = json.dumps({"type": "builtins.ValueError", "message": "bad luck", "traceback": "", "place": "a.py:1 in f"})
    now = time.time()
    found = [
        (1, ids[0], "succeeded", 1, now, now, '"w"', "3", None),
        (2, ids[1], "failed", 2, now, now, '"w"', None, error),
        (3, ids[2], "queued", 0, None, None, None, None, None),
        (4, ids[3], "running", 1, now, None, '"w"', None, None),
    ]
    with sqlite3.connect(folder / "queue.db") as db:
        db.executescript(FIRST_FORMAT)
        db.executemany(
            "INSERT INTO tasks (seq, id, state, attempt, started_at, finished_at, worker, result, error, name, queue, "
            "rank, args, options, submitted_at, failures, crashes) "
            f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'add', 'default', 2, '[1, 2]', '{{\"retries\":1}}', {now}, 0, 0)",
            found,
        )
        db.execute("INSERT INTO facts VALUES ('workers', '[]')")
        db.execute("INSERT INTO forgotten VALUES ('long gone', 1.0)")
    db.close()
    return ids


async def test_a_store_of_the_first_format_goes_on_with_all_that_it_has(tmp_path: Path) -> None:
    ids = first_format(tmp_path)
    store = SqliteStore(tmp_path)
    recovered = await store.open()
    assert [(task.id, task.state, task.options.retries) for task in recovered.tasks] == [
        (ids[2], State.QUEUED, 1),
        (ids[3], State.RUNNING, 1),
    ]
    assert all((task.ties, task.inputs, task.history) == (NO_TIES, None, ()) for task in recovered.tasks)
    assert (recovered.next_seq, recovered.counts) == (5, {State.SUCCEEDED: 1, State.FAILED: 1})
    assert await store.get("long gone") == "expired"
    found = await store.get(ids[1])
    assert isinstance(found, Task)
    assert found.error == ErrorInfo("builtins.ValueError", "bad luck", "", "a.py:1 in f")

    [queued, _] = recovered.tasks
    queued.ties, queued.rewrite = Ties(key="anna"), True
    store.save([queued, a_task(5, State.WAITING, ties=Ties(needs=(ids[0],)))])
    await store.close()
    again = await reopened(tmp_path)
    assert [task.ties.key for task in again.tasks] == ["anna", None, None]
    assert [task.id for task in again.upstream] == [ids[0]]


async def test_both_ways_to_the_present_format_end_at_the_same_schema(tmp_path: Path) -> None:
    first_format(tmp_path / "old")
    await reopened(tmp_path / "old")
    await reopened(tmp_path / "new")

    def schema(folder: Path) -> tuple[int, set[tuple[str, str]], set[str]]:
        with sqlite3.connect(folder / "queue.db") as db:
            things = set(db.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))
            columns = {row[1] for row in db.execute("PRAGMA table_info(tasks)")}
            version = db.execute("PRAGMA user_version").fetchone()[0]
        db.close()
        return version, things, columns

    assert schema(tmp_path / "old") == schema(tmp_path / "new")
    version, _, columns = schema(tmp_path / "old")
    assert version == FORMAT
    assert columns >= {*rows.FIXED, *rows.MUTABLE}
