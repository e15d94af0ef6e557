"""The store on SQLite: one writer, group commit.

What changes while a commit is under way goes into the next one, each task once, in the state that it has by then.
A small commit is made right in the event loop where it only copies to the page cache (`sync normal`): about 40 µs, less
than the way to the writer thread and back. Whatever may wait for the disk (large commits, `sync full`) is the writer
thread's. Checkpoints wait for it longest, so they have a thread of their own, beside the commits: see
`fastworker_server.storage.checkpoints`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from filelock import FileLock, Timeout
from pydantic_core import to_json

from fastworker.errors import StoreDamaged, StoreError, StoreInUse, StoreTooNew
from fastworker.lifecycle import OPEN, State
from fastworker.tasks import Task
from fastworker_server.schedule_record import ScheduleRecord
from fastworker_server.storage import rows, schedule_rows
from fastworker_server.storage.checkpoints import Checkpoints
from fastworker_server.storage.indexer import Indexer
from fastworker_server.storage.kinds import Kind
from fastworker_server.storage.migrations import FORMAT, migrate
from fastworker_server.storage.recovery import Facts, Recovered, recover, tasks_with_ids
from fastworker_server.storage.transaction import transaction

logger = logging.getLogger("fastworker.store")

CHECKED_UP_TO: Final = 512 * 1024 * 1024
"""Bytes of a store that is checked whole at the start; larger ones would take too long."""
SMALL: Final = 16_384
"""Bytes up to which a commit is made in the event loop."""
ROW_BYTES: Final = 400
"""Of a row without its payloads, with its share of the indexes."""
PAGE: Final = 4096
SHARED_PAGES: Final = 60
SOON: Final = 0.005
"""Seconds that a commit nobody waits for may wait for company."""
TRY_AGAIN_AFTER: Final = 0.5
FORGOTTEN_FOR: Final = 30 * 86_400.0
"""How long the ids of forgotten tasks are kept, so that they say `expired` and not `not found`."""
SWEEP: Final = 5000

Found = Task | Literal["expired"]


@dataclass(slots=True)
class _Batch:
    inserts: list[rows.Row]
    replacements: list[rows.Row]
    updates: list[rows.Row]
    facts: Facts
    schedules: schedule_rows.Rows
    tasks: list[Task]
    callbacks: list[Callable[[], None]]
    chores: list[Callable[[], None]]
    size: int

    @property
    def pages(self) -> int:
        """About how many pages it writes: each row several, in the table and its indexes, but many rows share them."""
        return 3 + min(2 * len(self.tasks), SHARED_PAGES) + self.size // PAGE + SHARED_PAGES // 2 * len(self.chores)


class SqliteStore:
    """Tasks in an SQLite file, or in memory.

    Args:
        folder: where `queue.db` is; None keeps everything in memory.
        sync: `normal` survives the death of any process, `full` also a loss of power.
    """

    def __init__(self, folder: Path | None, sync: Literal["normal", "full"] = "normal") -> None:
        self._folder = folder
        self._path = folder / "queue.db" if folder is not None else None
        self._sync = sync
        self._lock = FileLock(folder / "queue.db.lock") if folder is not None else None
        self._dirty: dict[int, Task] = {}
        self._facts: Facts = {}
        self._schedules: schedule_rows.Rows = {}
        self._callbacks: list[Callable[[], None]] = []
        self._chores: list[Callable[[], None]] = []
        self._writing = False
        self._soon: asyncio.TimerHandle | None = None
        self._checkpoints: Checkpoints | None = None
        self._swept = 0
        self.indexer = Indexer(self.do)
        self.failure: str | None = None
        self.deletions = 0
        """How often tasks were deleted: what was read before may be there no more."""

    # ---- open and close ------------------------------------------------------------------------------------------

    async def open(self) -> Recovered:
        """Open the store, and read what is to go on.

        Raises:
            StoreInUse: another control plane has it open.
            StoreDamaged: the file is not a readable store.
            StoreTooNew: a newer FastWorker wrote it.
        """
        self._loop = asyncio.get_running_loop()
        self._prepare_folder()
        self._writer = ThreadPoolExecutor(1, "fastworker-store")
        self._reader = self._writer if self._path is None else ThreadPoolExecutor(1, "fastworker-store-reader")
        try:
            return await self._loop.run_in_executor(self._writer, self._open_file)
        except sqlite3.DatabaseError as error:
            self._let_go()
            raise StoreDamaged(_damaged(self._path, error)) from error
        except BaseException:
            self._let_go()
            raise

    def _prepare_folder(self) -> None:
        if self._folder is None or self._lock is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            ignore = self._folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            self._lock.acquire(timeout=0)
        except Timeout:
            holder = _read_or_empty(self._folder / "queue.db.pid")
            raise StoreInUse(
                f"{self._path} is in use by another control plane{f' (process {holder})' if holder else ''}: "
                "stop that one, or choose another folder with --store-path"
            ) from None
        except OSError as error:
            raise StoreError(f"{self._folder} can't be used for the store: {error.strerror}") from error
        (self._folder / "queue.db.pid").write_text(f"{os.getpid()}")

    def _open_file(self) -> Recovered:
        self._db = _connect(self._path)
        self._db_for_reading = self._db
        self._check()
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA synchronous = {self._sync}")
        self._db.execute("PRAGMA wal_autocheckpoint = 0")
        self.indexer.open(self._db, self._loop)
        if self._path is not None:
            self._db_for_reading = _connect(self._path)
            self._db_for_reading.execute("PRAGMA query_only = 1")
            beside = _connect(self._path)
            beside.execute(f"PRAGMA synchronous = {self._sync}")
            self._checkpoints = Checkpoints(beside, self._path, self._loop, self.do)
        self._db.execute(schedule_rows.SCHEMA)
        return recover(self._db)

    def _check(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        ours = self._db.execute("PRAGMA application_id").fetchone()[0] == rows.APPLICATION_ID
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables:
            self._db.executescript(rows.SCHEMA)
            migrate(self._db)
            return
        if not ours:
            raise sqlite3.DatabaseError("it is a database, but not of FastWorker")
        if version > FORMAT:
            raise StoreTooNew(
                f"{self._path} was written by a newer FastWorker (format {version}, this one reads up to "
                f"{FORMAT}): upgrade this one, or choose another folder with --store-path"
            )
        if self._path is not None and self._path.stat().st_size <= CHECKED_UP_TO:
            problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
        migrate(self._db)

    async def close(self) -> None:
        """Write what is left, and close."""
        self.indexer.close()
        await self.saved(try_once=True)
        if self._checkpoints is not None:
            await self._checkpoints.stop()
        await self._loop.run_in_executor(self._reader, self._db_for_reading.close)
        await self._loop.run_in_executor(self._writer, self._db.close)
        if self._checkpoints is not None:
            self._checkpoints.close()
        self._let_go()

    def _let_go(self) -> None:
        self._writer.shutdown(wait=False)
        self._reader.shutdown(wait=False)
        if self._lock is not None:
            self._lock.release()

    # ---- write ---------------------------------------------------------------------------------------------------

    def save(self, tasks: Iterable[Task]) -> None:
        """Write these tasks with the next commit."""
        for task in tasks:
            self._dirty[task.seq] = task

    def save_fact(self, name: str, value: Any) -> None:
        """Write a fact about the control plane with the next commit."""
        self._facts[name] = value

    def save_schedules(self, records: Mapping[str, ScheduleRecord | None]) -> None:
        """Write these schedules as they are now with the next commit, and delete those that are None."""
        self._schedules |= schedule_rows.rows_of(records)

    def when_saved(self, callback: Callable[[], None]) -> None:
        """Call once all that was given to `save` so far is committed."""
        self._callbacks.append(callback)

    def flush(self) -> None:
        """Start a commit, unless one is under way: that one's end will start it."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._writing or not (self._dirty or self._facts or self._schedules or self._callbacks or self._chores):
            return
        self._writing = True
        tasks = list(self._dirty.values())
        batch = _Batch(
            [rows.insert_row(task) for task in tasks if not task.stored],
            [rows.insert_row(task) for task in tasks if task.stored and task.rewrite],
            [rows.update_row(task) for task in tasks if task.stored and not task.rewrite],
            self._facts,
            self._schedules,
            tasks,
            self._callbacks,
            self._chores,
            sum(ROW_BYTES + len(task.args) + len(task.result or "") for task in tasks)
            + schedule_rows.size(self._schedules),
        )
        for task in tasks:
            task.rewrite = False
        self._dirty, self._facts, self._schedules, self._callbacks, self._chores = {}, {}, {}, [], []
        if batch.size <= SMALL and not batch.chores and self._sync == "normal":
            self._written(batch, self._commit(batch))
        else:
            self._writer.submit(self._write, batch)

    def flush_soon(self) -> None:
        """Start a commit in a moment, together with what else is given until then."""
        if (
            self._soon is None
            and not self._writing
            and (self._dirty or self._facts or self._schedules or self._callbacks)
        ):
            self._soon = self._loop.call_later(SOON, self.flush)

    async def saved(self, *, try_once: bool = False) -> None:
        """Wait until all that was given to `save` so far is committed.

        Args:
            try_once: give up if the disk does not take it.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        self.when_saved(lambda: None if done.done() else done.set_result(None))
        self.flush()
        while not done.done() and not (try_once and self.failure):
            await asyncio.wait([done], timeout=0.05)

    def _write(self, batch: _Batch) -> None:
        """In the writer thread: one commit, and chores, for which nobody waits who waits for the commit."""
        error = self._commit(batch)
        if error is not None or not batch.chores:
            self._loop.call_soon_threadsafe(self._written, batch, error)
            return
        self._loop.call_soon_threadsafe(self._acknowledge, batch)
        for chore in batch.chores:
            chore()
        self._loop.call_soon_threadsafe(self._go_on)

    def _commit(self, batch: _Batch) -> sqlite3.Error | None:
        try:
            with transaction(self._db):
                for make_sql, new in (
                    (rows.insert_sql, batch.inserts),
                    (rows.replace_sql, batch.replacements),
                    (rows.update_sql, batch.updates),
                ):
                    for sql, values in rows.statements(make_sql, new):
                        self._db.execute(sql, values)
                for name, value in batch.facts.items():
                    self._db.execute("REPLACE INTO facts VALUES (?, ?)", (name, to_json(value).decode()))
                schedule_rows.write(self._db, batch.schedules)
        except sqlite3.Error as error:
            return error
        return None

    def _written(self, batch: _Batch, error: sqlite3.Error | None) -> None:
        if error is not None:
            self._writing = False
            self._try_again(batch, error)
            return
        self._acknowledge(batch)
        self._go_on()

    def _go_on(self) -> None:
        """The next commit may begin."""
        self._writing = False
        self.flush()

    def _acknowledge(self, batch: _Batch) -> None:
        """It is committed."""
        if self.failure is not None:
            logger.warning("the store can be written again")
            self.failure = None
        for task in batch.tasks:
            task.stored = True
        for callback in batch.callbacks:
            callback()
        self.indexer.written(len(batch.inserts))
        if self._checkpoints is not None:
            self._checkpoints.written(batch.pages)

    def _try_again(self, batch: _Batch, error: sqlite3.Error) -> None:
        """Nothing is acknowledged that is not written: keep it all, and try again soon."""
        if self.failure is None:
            logger.error("the store can't be written (%s); submissions are refused until it can", error)
        self.failure = f"the store {self._path} can't be written: {error}"
        for task in batch.tasks:
            task.rewrite = task.stored
            self._dirty.setdefault(task.seq, task)
        self._facts = {**batch.facts, **self._facts}
        self._schedules = {**batch.schedules, **self._schedules}
        self._callbacks = [*batch.callbacks, *self._callbacks]
        self._chores = [*batch.chores, *self._chores]
        self._loop.call_later(TRY_AGAIN_AFTER, self.flush)

    def do[T](self, chore: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        """Do something in the writer thread, after what was given to `save` so far is committed."""
        done: asyncio.Future[T] = self._loop.create_future()

        def run() -> None:
            try:
                self._loop.call_soon_threadsafe(_answer, done, chore(self._db))
            except sqlite3.Error as error:
                self._loop.call_soon_threadsafe(_fail, done, StoreError(f"the store {self._path} failed: {error}"))

        self._chores.append(run)
        self.flush()
        return done

    # ---- read ----------------------------------------------------------------------------------------------------

    def read[T](self, query: Callable[[sqlite3.Connection], T]) -> Awaitable[T]:
        return self._loop.run_in_executor(self._reader, query, self._db_for_reading)

    async def get(self, task_id: str) -> Found | None:
        """One task; `expired` if it was forgotten, None if it never was."""
        return (await self.get_many([task_id])).get(task_id)

    async def get_many(self, task_ids: Sequence[str]) -> dict[str, Found]:
        """Those of the tasks that the store has, or had; `expired` stands for one that was forgotten."""
        return await self.read(partial(_get_many, task_ids=task_ids))

    async def tasks(self, task_ids: Sequence[str]) -> Sequence[Task]:
        """Those of the tasks that the store has."""
        return await self.read(partial(tasks_with_ids, task_ids=task_ids))

    async def of_workflow(self, workflow: str) -> Sequence[Task]:
        """The tasks of a workflow, oldest first, as far as they are committed."""
        return await self.read(partial(_of_workflow, workflow=workflow))

    async def list(
        self, state: State | None, name: str | None, queue: str | None, limit: int, before: int | None
    ) -> Sequence[Task]:
        """Tasks, newest first, as far as they are committed."""
        return await self.read(
            partial(_list, where={"state": state, "name": name, "queue": queue}, limit=limit, before=before)
        )

    # ---- forget --------------------------------------------------------------------------------------------------

    async def forget(self, keep: int, keep_for: float, now: float) -> Counter[Kind]:
        """Delete ended tasks that are too old or too many, and results whose time is over: a few at a time.

        Returns:
            How many tasks of each kind were deleted.
        """
        return await self.do(lambda _db: self._forget(keep, keep_for, now))

    async def delete(self, tasks: Sequence[tuple[int, str]], now: float) -> None:
        """Delete ended tasks: sequence number and id of each."""

        def run(_db: sqlite3.Connection) -> None:
            with transaction(self._db):
                self._delete(tasks, now)

        await self.do(run)

    def _delete(self, tasks: Sequence[tuple[int, str]], now: float) -> None:
        self.deletions += bool(tasks)
        self._db.executemany("DELETE FROM tasks WHERE seq = ?", [(seq,) for seq, _ in tasks])
        self._db.executemany("REPLACE INTO forgotten VALUES (?, ?)", [(task_id, now) for _, task_id in tasks])
        self.indexer.forget(self._db, [seq for seq, _ in tasks])

    def _forget(self, keep: int, keep_for: float, now: float) -> Counter[Kind]:
        ended = self._db.execute("SELECT count(*) FROM tasks WHERE finished_at IS NOT NULL").fetchone()[0]
        old = self._db.execute(
            "SELECT seq, id, state, finished_at, name, queue, rank FROM tasks WHERE finished_at IS NOT NULL "
            "ORDER BY seq LIMIT ?",
            (SWEEP,),
        ).fetchall()
        gone = [row for n, row in enumerate(old) if n < ended - keep or row[3] < now - keep_for]
        last = self._db.execute("SELECT max(seq) FROM tasks").fetchone()[0] or 0
        with transaction(self._db):
            self._delete([(row[0], row[1]) for row in gone], now)
            self._db.execute("DELETE FROM forgotten WHERE at < ?", (now - FORGOTTEN_FOR,))
            self._db.execute(
                "UPDATE tasks SET result = NULL WHERE seq > ? AND seq <= ? AND result_until < ? AND result IS NOT NULL",
                (self._swept, self._swept + SWEEP, now),
            )
        self._swept = 0 if self._swept + SWEEP >= last else self._swept + SWEEP
        return Counter(Kind(row[4], row[5], row[6], State(row[2])) for row in gone)


def _answer[T](future: asyncio.Future[T], answer: T) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[Any], error: StoreError) -> None:
    if not future.done():
        future.set_exception(error)


def _connect(path: Path | None) -> sqlite3.Connection:
    return sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False, timeout=10)


def _get_many(db: sqlite3.Connection, task_ids: Sequence[str]) -> dict[str, Found]:
    ids = (to_json(task_ids).decode(),)
    chosen = "id IN (SELECT value FROM json_each(?))"
    found: dict[str, Found] = {row[0]: "expired" for row in db.execute(f"SELECT id FROM forgotten WHERE {chosen}", ids)}
    found.update((task.id, task) for task in tasks_with_ids(db, task_ids))
    return found


def _of_workflow(db: sqlite3.Connection, workflow: str) -> Sequence[Task]:
    found = db.execute(
        f"SELECT {rows.COLUMNS} FROM tasks WHERE workflow = ? OR id = ? ORDER BY seq", (workflow, workflow)
    )
    return [rows.task_from(row) for row in found]


def _list(db: sqlite3.Connection, where: dict[str, Any], limit: int, before: int | None) -> Sequence[Task]:
    asked = {f"{column} = ?": value for column, value in where.items() if value is not None}
    if before is not None:
        asked["seq < ?"] = before
    if where["state"] is not None and where["state"] not in OPEN:
        asked["finished_at IS NOT NULL AND ?"] = 1  # lets SQLite use the index of ended tasks
    condition = " AND ".join(asked) or "1"
    found = db.execute(
        f"SELECT {rows.COLUMNS} FROM tasks WHERE {condition} ORDER BY seq DESC LIMIT ?", [*asked.values(), limit]
    )
    return [rows.task_from(row) for row in found]


def _read_or_empty(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _damaged(path: Path | None, error: sqlite3.Error) -> str:
    return (
        f"{path} can't be read as a store: {error}. It was left untouched. To start with an empty queue, move it "
        f"and its companions away (mv {path} {path}.damaged); `sqlite3 {path}.damaged .recover` may save what it holds"
    )
