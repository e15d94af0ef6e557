"""The store's contract, held by the file and the memory alike, and what a file alone must do."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from fastworker.errors import StoreDamaged, StoreError, StoreInUse, StoreTooNew
from fastworker.lifecycle import State
from fastworker.tasks import DEFAULTS, ErrorInfo, Options, Priority, Task, new_task_id
from fastworker_server.storage.kinds import by_state
from fastworker_server.storage.migrations import FORMAT
from fastworker_server.storage.recovery import Recovered
from fastworker_server.storage.sqlite import SqliteStore

NOW = 1_800_000_000.0
MakeStore = Callable[[], SqliteStore]


def a_task(seq: int, state: State = State.QUEUED, **fields: object) -> Task:
    task = Task(seq, new_task_id(), "add", "[1, 2]", DEFAULTS, "default", 2, NOW, state=state)
    for name, value in fields.items():
        setattr(task, name, value)
    return task


def ended(seq: int, state: State = State.SUCCEEDED, at: float = NOW) -> Task:
    return a_task(seq, state, finished_at=at, result="3" if state is State.SUCCEEDED else None)


@asynccontextmanager
async def opened(store: SqliteStore) -> AsyncIterator[tuple[SqliteStore, Recovered]]:
    recovered = await store.open()
    try:
        yield store, recovered
    finally:
        await store.close()


@pytest.fixture(params=["file", "file with sync full", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = {
        "file": lambda: SqliteStore(tmp_path / "store"),
        "file with sync full": lambda: SqliteStore(tmp_path / "store", "full"),
        "memory": lambda: SqliteStore(None),
    }[request.param]()
    async with opened(made) as (store, _):
        yield store


# ---- the contract ------------------------------------------------------------------------------------------------


async def test_a_saved_task_is_found_as_it_was(store: SqliteStore) -> None:
    options = Options(priority=Priority.HIGH, retries=3, tags=("a", "b"), queue="q", acks="early", result_ttl=60.0)
    task = Task(
        7, new_task_id(), "näme", '{"x": "ü"}', options, "q", 1, NOW, headers={"traceparent": "00-1"},
        expires_at=NOW + 5, state=State.FAILED, reason="error", attempt=4, failures=3, crashes=1, due_at=None,
        started_at=NOW + 1, finished_at=NOW + 2, worker="w", error=ErrorInfo("E", "m", "t", "p"),
    )  # fmt: skip
    store.save([task])
    await store.saved()
    found = await store.get(task.id)
    assert isinstance(found, Task)
    task.stored = True
    assert found == task


async def test_of_many_changes_the_last_one_is_stored(store: SqliteStore) -> None:
    task = a_task(1)
    store.save([task])
    task.state, task.attempt, task.worker = State.RUNNING, 1, "w"
    store.save([task])
    await store.saved()
    task.state, task.finished_at, task.result = State.SUCCEEDED, NOW, "3"
    store.save([task])
    await store.saved()
    found = await store.get(task.id)
    assert isinstance(found, Task)
    assert (found.state, found.attempt, found.result) == (State.SUCCEEDED, 1, "3")


@pytest.mark.parametrize("count", [1, 7, 8, 63, 64, 65, 200, 1000])
async def test_batches_of_any_size_are_stored_whole(store: SqliteStore, count: int) -> None:
    tasks = [a_task(seq) for seq in range(1, count + 1)]
    store.save(tasks)
    await store.saved()
    for task in tasks:
        task.attempt = task.seq
    store.save(tasks)
    await store.saved()
    found = await store.get_many([task.id for task in tasks])
    assert {task_id: task.attempt for task_id, task in found.items() if isinstance(task, Task)} == {
        task.id: task.seq for task in tasks
    }


async def test_a_callback_comes_after_its_commit_and_in_order(store: SqliteStore) -> None:
    heard: list[int] = []
    for seq in range(1, 20):
        store.save([a_task(seq)])
        store.when_saved(partial(heard.append, seq))
        store.flush()
    await store.saved()
    assert heard == list(range(1, 20))


async def test_an_unknown_task_is_not_found(store: SqliteStore) -> None:
    assert await store.get(new_task_id()) is None
    assert await store.get_many([new_task_id()]) == {}


async def test_an_id_is_stored_once(store: SqliteStore) -> None:
    first = ended(1)
    twin = a_task(2, id=first.id)
    store.save([first])
    await store.saved()
    store.save([twin])
    await store.saved()
    found = await store.get(first.id)
    assert isinstance(found, Task)
    assert (found.seq, found.state) == (1, State.SUCCEEDED)


async def test_lists_are_newest_first_filtered_and_paged(store: SqliteStore) -> None:
    tasks = [ended(seq, State.FAILED if seq % 3 == 0 else State.SUCCEEDED) for seq in range(1, 31)]
    tasks += [a_task(31, name="mul"), a_task(32, queue="mail")]
    store.save(tasks)
    await store.saved()

    async def seqs(
        state: State | None = None, name: str | None = None, queue: str | None = None, before: int | None = None
    ) -> list[int]:
        return [task.seq for task in await store.list(state, name, queue, 5, before)]

    assert await seqs() == [32, 31, 30, 29, 28]
    assert await seqs(State.FAILED) == [30, 27, 24, 21, 18]
    assert await seqs(State.FAILED, before=18) == [15, 12, 9, 6, 3]
    assert await seqs(State.QUEUED) == [32, 31]
    assert await seqs(name="mul") == [31]
    assert await seqs(queue="mail") == [32]


async def test_the_oldest_ended_tasks_are_forgotten_and_say_so(store: SqliteStore) -> None:
    tasks = [ended(seq, at=NOW + seq) for seq in range(1, 11)]
    waiting = a_task(11)
    store.save([*tasks, waiting])
    await store.saved()
    assert by_state(await store.forget(keep=4, keep_for=1e9, now=NOW + 100)) == {State.SUCCEEDED: 6}
    assert [await store.get(task.id) for task in tasks[:6]] == ["expired"] * 6
    kept = [task.id for task in [*tasks[6:], waiting]]
    assert set(await store.get_many(kept)) == set(kept)
    assert await store.get_many([tasks[0].id]) == {tasks[0].id: "expired"}
    assert by_state(await store.forget(keep=100, keep_for=50, now=NOW + 100)) == {State.SUCCEEDED: 4}


async def test_a_result_whose_time_is_over_is_deleted(store: SqliteStore) -> None:
    task = a_task(1, State.SUCCEEDED, finished_at=NOW, result="3", options=Options(result_ttl=10.0))
    store.save([task])
    await store.saved()
    await store.forget(keep=100, keep_for=1e9, now=NOW + 9)
    found = await store.get(task.id)
    assert isinstance(found, Task)
    assert found.result == "3"
    await store.forget(keep=100, keep_for=1e9, now=NOW + 11)
    found = await store.get(task.id)
    assert isinstance(found, Task)
    assert found.result is None


# ---- files -------------------------------------------------------------------------------------------------------


async def test_open_tasks_counts_and_facts_are_there_after_a_restart(tmp_path: Path) -> None:
    open_tasks = [
        a_task(1),
        a_task(2, State.RUNNING, attempt=1, worker="w"),
        a_task(3, State.RETRYING, due_at=NOW + 60, failures=1),
        a_task(4, State.SCHEDULED, due_at=NOW + 60),
    ]
    async with opened(SqliteStore(tmp_path)) as (store, recovered):
        assert (recovered.tasks, recovered.next_seq) == ([], 1)
        store.save([*open_tasks, ended(5), ended(6, State.FAILED)])
        store.save_fact("workers", [{"name": "w"}])
    async with opened(SqliteStore(tmp_path)) as (_, recovered):
        assert recovered.tasks == open_tasks
        assert recovered.counts == {State.SUCCEEDED: 1, State.FAILED: 1}
        assert recovered.next_seq == 7
        assert recovered.facts == {"workers": [{"name": "w"}]}


async def test_the_folder_ignores_itself_in_git(tmp_path: Path) -> None:
    async with opened(SqliteStore(tmp_path / ".fastworker")):
        assert (tmp_path / ".fastworker" / ".gitignore").read_text() == "*\n"


async def test_a_store_in_use_is_refused_with_the_process_that_has_it(tmp_path: Path) -> None:
    async with opened(SqliteStore(tmp_path)):
        with pytest.raises(StoreInUse, match=r"another control plane \(process \d+\)"):
            await SqliteStore(tmp_path).open()
    async with opened(SqliteStore(tmp_path)):
        pass


@pytest.mark.parametrize("damage", ["garbage", "torn", "foreign"])
async def test_what_is_not_a_store_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "queue.db"
    if damage == "garbage":
        path.write_bytes(b"this is not a database at all" * 300)
    elif damage == "foreign":
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE theirs (x)")
        db.close()
    else:
        async with opened(SqliteStore(tmp_path)) as (store, _):
            store.save([ended(seq) for seq in range(1, 2000)])
        content = bytearray(path.read_bytes())
        content[8192:20_000] = bytes(11_808)
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match=r"queue\.db can't be read as a store"):
        await SqliteStore(tmp_path).open()
    assert path.read_bytes() == before


async def test_the_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    async with opened(SqliteStore(tmp_path)):
        pass
    with sqlite3.connect(tmp_path / "queue.db") as db:
        db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    db.close()
    with pytest.raises(StoreTooNew, match="upgrade"):
        await SqliteStore(tmp_path).open()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be used for the store"):
        await SqliteStore(tmp_path / "file" / "store").open()


@pytest.mark.parametrize("sync", ["normal", "full"])
async def test_nothing_is_acknowledged_while_the_disk_takes_nothing_and_nothing_is_lost(
    tmp_path: Path, sync: str
) -> None:
    task = a_task(1)
    heard: list[str] = []
    async with opened(SqliteStore(tmp_path, "full" if sync == "full" else "normal")) as (store, _):
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")  # a full disk, as SQLite sees it
        task.args = "[" + "1, " * 50_000 + "1]"
        store.save([task])
        store.when_saved(lambda: heard.append("saved"))
        await store.saved(try_once=True)
        assert heard == []
        assert store.failure is not None
        assert "full" in store.failure
        store._db.execute("PRAGMA max_page_count = 1000000")
        await store.saved()
        assert heard == ["saved"]
        assert store.failure is None
    async with opened(SqliteStore(tmp_path)) as (_, recovered):
        assert [found.args for found in recovered.tasks] == [task.args]


# ---- checkpoints -------------------------------------------------------------------------------------------------


def times_begun(folder: Path) -> int:
    """How often the write-ahead log has begun anew (SQLite, "The WAL Header")."""
    return int.from_bytes((folder / "queue.db-wal").read_bytes()[12:16], "big")


@pytest.mark.parametrize("sync", ["normal", "full"])
async def test_the_log_is_moved_into_the_database_while_commits_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: Literal["normal", "full"]
) -> None:
    monkeypatch.setattr("fastworker_server.storage.checkpoints.AFTER", 100)
    async with opened(SqliteStore(tmp_path, sync)) as (store, _):
        store.save([a_task(0)])
        await store.saved()
        began, saved, deadline = times_begun(tmp_path), 0, time.monotonic() + 20
        while times_begun(tmp_path) < began + 3:
            assert time.monotonic() < deadline
            saved += 1
            store.save([a_task(saved)])
            await store.saved()
            await asyncio.sleep(0)  # a small commit is made without a pause
    async with opened(SqliteStore(tmp_path)) as (_, recovered):
        assert [task.seq for task in recovered.tasks] == list(range(saved + 1))


async def test_who_waits_for_a_commit_does_not_wait_for_the_chores_behind_it(store: SqliteStore) -> None:
    heard, go_on = asyncio.Event(), threading.Event()
    store.save([a_task(1)])
    store.when_saved(heard.set)
    chore = store.do(lambda _db: go_on.wait(10))
    await asyncio.wait_for(heard.wait(), 5)
    go_on.set()
    assert await chore
