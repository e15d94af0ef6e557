"""Fetches from the store what tasks need of others that ended long ago."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

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


async def ready_to_requeue(engine: Engine, store: SqliteStore, tasks: Sequence[Task]) -> list[Task]:
    """Of these, as they are now, those that have ended; the engine knows all that they need."""

    def ended() -> list[Task]:  # asked anew after each wait: others may run them again, and they may end again
        return [engine.ended.get(task.id, task) for task in tasks if task.id not in engine.tasks]

    def missing() -> list[str]:
        return [need for task in ended() for need in engine.missing_to_requeue(task)]

    await remember_needed(engine, store, missing)
    return ended()
