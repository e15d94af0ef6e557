"""Tasks that are to run again, and what they need, where only the store has it."""

from __future__ import annotations

import asyncio
from copy import copy

from fastworker.lifecycle import State
from fastworker.tasks import new_task_id
from fastworker_server.needed import ready_to_requeue
from fastworker_server.storage.sqlite import SqliteStore
from tests.server.stage import Stage
from tests.server.test_dependencies import submit


async def forgotten() -> tuple[Stage, SqliteStore, str, str]:
    """A task was cancelled while it waited for another, which failed; only the store has them."""
    stage, store = Stage(), SqliteStore(None)
    await store.open()
    needed, waiting = new_task_id(), new_task_id()
    stage.join()
    submit(stage, needed)
    submit(stage, waiting, needed)
    stage.engine.cancel(waiting, stage.now)
    stage.started()
    stage.report(needed, "failed")
    store.save([stage.task(needed), stage.task(waiting)])
    await store.saved()
    stage.engine.ended.clear()
    return stage, store, needed, waiting


async def test_what_a_task_needs_is_known_before_it_is_queued_again() -> None:
    stage, store, needed, waiting = await forgotten()
    stored = await store.tasks([waiting])
    [ready] = await ready_to_requeue(stage.engine, store, stored)
    assert needed in stage.engine.ended
    stage.engine.requeue(ready, stage.now)
    assert stage.state(waiting) is State.FAILED
    await store.close()


async def test_a_task_that_ran_and_ended_again_meanwhile_is_taken_as_it_is_now() -> None:
    stage, store, _, waiting = await forgotten()
    stored = await store.tasks([waiting])
    asking = asyncio.ensure_future(ready_to_requeue(stage.engine, store, stored))
    await asyncio.sleep(0)
    newer = copy(stored[0])
    stage.engine.remember([newer])
    [ready] = await asking
    assert ready is newer
    await store.close()


async def test_a_task_that_is_open_again_is_not_ready() -> None:
    stage, store, needed, _ = await forgotten()
    stored = await store.tasks([needed])
    stage.engine.requeue(stored[0], stage.now)
    assert await ready_to_requeue(stage.engine, store, stored) == []
    await store.close()
