"""Fetches from the store what tasks need of others that ended long ago."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastworker.tasks import Task
from fastworker_server.engine import Engine
from fastworker_server.storage.sqlite import SqliteStore


async def remember_needed(engine: Engine, store: SqliteStore, missing: Callable[[], Iterable[str]]) -> None:
    """Let the engine know all that is missing, as far as the store has it; use it before anything else is awaited.

    While the store is asked, the engine may forget others: so look again, until none is missing that may be found.
    """
    found: dict[str, Task | None] = {}
    while needed := [task_id for task_id in missing() if task_id not in found]:
        found.update(dict.fromkeys(needed))
        found.update((task.id, task) for task in await store.tasks(needed))
    engine.remember(task for task in found.values() if task is not None)
