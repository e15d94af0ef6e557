"""What the store keeps of the engine beside its tasks: written when it has changed, taken back at the next start."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from fastworker.limits import TaskLimits
from fastworker_server.engine import Engine
from fastworker_server.storage.recovery import Facts
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.workers import WorkerPlace, WorkerRecord

_LIMITS: TypeAdapter[dict[str, TaskLimits]] = TypeAdapter(dict[str, TaskLimits])


class EngineFacts:
    """Writes them: workers, the names of secret parameters, limits, holds, pauses."""

    def __init__(self, engine: Engine, store: SqliteStore) -> None:
        self._engine = engine
        self._store = store
        self._noted: dict[str, int] = {}  # the revision of each that the store was given last
        self._stored_places = 0  # likewise, and it is saved

    def knows(self, worker: WorkerRecord) -> bool:
        """Whether the store knows this worker, and where it runs: else the next control plane would not await it."""
        return worker.place_change <= self._stored_places

    def note(self, now: float) -> None:
        """Give the store what has changed."""
        engine = self._engine
        limits, catalog = engine.limits, engine.catalog
        self._note_workers()
        self._note("secrets", catalog.revision, catalog.with_secrets)
        self._note("limits", limits.revision, lambda: limits.set_by_client)
        self._note("counted", limits.revision, lambda: dict(limits.counted))
        self._note("holds", limits.holds_revision, partial(limits.holds, now))
        self._note("paused", engine.lanes.revision + engine.worker_pauses, partial(_paused, engine))

    def _note_workers(self) -> None:
        """After a restart they are awaited, also those that were still awaited."""
        engine, revision = self._engine, self._engine.place_changes
        if self._note("workers", revision, lambda: [place._asdict() for place in engine.places().values()]):
            self._store.when_saved(partial(setattr, self, "_stored_places", revision))

    def _note(self, name: str, revision: int, fact: Callable[[], Any]) -> bool:
        """Whether it has changed."""
        if self._noted.get(name, 0) == revision:
            return False
        self._noted[name] = revision
        self._store.save_fact(name, fact())
        return True


def restore(engine: Engine, facts: Facts, now: float) -> list[WorkerPlace]:
    """Give a new engine what the store has kept of the one before; the workers that it had."""
    paused: dict[str, Any] = facts.get("paused", {})
    by: dict[str, tuple[str, float]] = paused.get("by", {})
    for queue in paused.get("queues", []):
        engine.lanes.pause(queue, None, *by.get(f"queue {queue}", ()))
    for name in paused.get("names", []):
        engine.lanes.pause(None, name, *by.get(f"name {name}", ()))
    for name in paused.get("workers", []):
        engine.pause_worker(name, paused=True)
    engine.limits.set_by_client.update(_LIMITS.validate_python(facts.get("limits", {})))
    engine.limits.counted.update(facts.get("counted", {}))
    engine.limits.restore_holds(facts.get("holds", []), now)
    engine.catalog.restore_secrets(facts.get("secrets", {}))
    return [WorkerPlace(**worker) for worker in facts.get("workers", [])]


def _paused(engine: Engine) -> dict[str, Any]:
    lanes = engine.lanes
    return {
        "queues": sorted(lanes.paused_queues),
        "names": sorted(lanes.paused_names),
        "workers": sorted(engine.paused_workers),
        "by": {f"{pause.what} {pause.target}": (pause.by, pause.at) for pause in lanes.pauses.values()},
    }
