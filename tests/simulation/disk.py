"""The disk: an SQLite database in memory that outlives the control plane, and threads that take virtual time.

What was not committed when the control plane is killed never was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from random import Random
from typing import Any

from fastworker.lifecycle import State
from fastworker.tasks import Task
from fastworker_server.storage import rows
from tests.simulation.world import Process, World


class _Connection(sqlite3.Connection):
    """Refuses to begin a transaction while the disk fails, and is never really closed."""

    disk: Disk | None = None

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if sql.startswith("BEGIN") and self.disk is not None and self.disk.failing:
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *args)

    def close(self) -> None:
        """The next control plane opens it again."""


class Disk:
    """What outlives the control plane."""

    def __init__(self, world: World, random: Random, latency: tuple[float, float]) -> None:
        self.world = world
        self.random = random
        self.latency = latency
        self.failing = False
        self.trap: Callable[[], None] | None = None
        self.trap_after = False
        self._db = sqlite3.connect(":memory:", isolation_level=None, factory=_Connection)
        self._db.disk = self

    def connect(self, _path: object) -> sqlite3.Connection:
        """Stands for opening the file."""
        return self._db

    def drop(self) -> None:
        """The simulation is over."""
        sqlite3.Connection.close(self._db)

    def task(self, task_id: str) -> Task | None:
        """What is committed of a task."""
        row = self._db.execute(f"SELECT {rows.COLUMNS} FROM tasks WHERE id = ?", (task_id,)).fetchone()
        return rows.task_from(row) if row else None

    def tasks(self) -> dict[str, Task]:
        """All that is committed."""
        found = self._db.execute(f"SELECT {rows.COLUMNS} FROM tasks")
        return {task.id: task for task in map(rows.task_from, found)}

    def states(self) -> dict[str, State]:
        """The committed states."""
        if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
            return {}
        return {task_id: State(state) for task_id, state in self._db.execute("SELECT id, state FROM tasks")}

    def fact(self, name: str) -> str:
        """What is committed of a fact, as JSON."""
        found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(found[0]) if found else ""


class SimExecutor:
    """Stands for a `ThreadPoolExecutor` with one thread: each call takes a while, one after the other."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process
        self._busy_until = 0.0

    def submit(self, call: Callable[..., Any], /, *args: Any) -> None:
        """Do the call; it tells its end to the event loop a moment later, as from a thread."""
        world, random = self._disk.world, self._disk.random
        self._busy_until = max(world.now, self._busy_until) + random.uniform(*self._disk.latency)
        self._process.loop.call_io(self._busy_until, self._do, call, *args)

    def _do(self, call: Callable[..., Any], *args: Any) -> None:
        """The call, or a crash just before or just after it."""
        trap, self._disk.trap = self._disk.trap, None
        if trap is None:
            call(*args)
            return
        if self._disk.trap_after:
            call(*args)
        trap()

    def shutdown(self, wait: bool = True) -> None:
        """Nothing to do."""
