"""Whom the next control plane would await: what the store knows of the workers, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fastworker_server.engine_facts import EngineFacts, restore
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.workers import WorkerPlace
from tests.server.stage import Stage


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    store = SqliteStore(None)
    await store.open()
    yield store
    await store.close()


async def test_a_worker_is_known_once_it_is_saved(store: SqliteStore) -> None:
    stage = Stage()
    facts = EngineFacts(stage.engine, store)
    worker = stage.join("w")
    assert not facts.knows(worker)
    facts.note(stage.now)
    assert not facts.knows(worker)
    await store.saved()
    assert facts.knows(worker)


async def test_one_that_left_and_came_again_is_not_known_by_what_was_saved_before(store: SqliteStore) -> None:
    """Between its leaving and its coming a commit may lie that does not have it."""
    stage = Stage()
    facts = EngineFacts(stage.engine, store)
    worker = stage.join("w")
    facts.note(stage.now)
    await store.saved()
    stage.engine.leave(worker, stage.now)
    facts.note(stage.now)
    again = stage.join("w")
    assert not facts.knows(again)
    facts.note(stage.now)
    await store.saved()
    assert facts.knows(again)


async def test_one_that_begins_a_new_session_stays_known_and_one_from_elsewhere_does_not(store: SqliteStore) -> None:
    stage = Stage()
    facts = EngineFacts(stage.engine, store)
    stage.join("w")
    facts.note(stage.now)
    await store.saved()
    assert facts.knows(stage.join("w"))
    assert not facts.knows(stage.join("w", pid=2))


async def test_one_that_was_awaited_is_known_when_it_comes(store: SqliteStore) -> None:
    stage = Stage()
    facts = EngineFacts(stage.engine, store)
    workers = restore(stage.engine, {"workers": [{"name": "w", "host": "host", "pid": 1}]}, stage.now)
    stage.engine.recover([], workers, stage.now)
    assert workers == [WorkerPlace("w", "host", 1)]
    assert facts.knows(stage.join("w"))
