"""When a worker gets its orders: at once, or once the store knows what a crash must not forget."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from fastworker.protocol import PROTOCOL_VERSION, Batch, Hello, Message, Run
from fastworker.session import Session
from fastworker_server.pump import Pump
from fastworker_server.schedules import Schedules
from fastworker_server.sessions import Peer
from fastworker_server.storage.sqlite import SqliteStore
from tests.server.stage import Stage


class Worker:
    """One worker of a pump, connected to it by this object: it notes whatever is sent."""

    def __init__(self, stage: Stage, store: SqliteStore) -> None:
        here = cast(Any, self)
        self.ordered: list[str] = []
        self.peer = Peer(Session(), Hello("worker", PROTOCOL_VERSION, "w"), "worker")
        self.peer.pipe = 1
        self.pump = Pump(stage.engine, store, here, here, here, here, Schedules(stage.engine))
        self._stage = stage

    def now(self) -> float:
        """The time on stage."""
        return self._stage.now

    def worker(self, _name: str) -> Peer:
        """Its connection."""
        return self.peer

    def say_item(self, _peer: Peer, _batch: type[Batch], item: Any, _size: int) -> None:
        """An order together with others."""
        self.ordered.append(item.id)

    def say(self, _peer: Peer, message: Message, _size: int) -> None:
        """An order that was held back."""
        assert isinstance(message, Run)
        self.ordered.extend(order.id for order in message.items)

    def flush(self) -> None:
        """All has been sent."""

    def tell(self, _moves: object) -> None:
        """Nobody watches, and nobody counts."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path, sync="full")  # each commit takes a while
    await store.open()
    yield store
    await store.close()


async def test_a_worker_gets_its_first_orders_once_the_store_knows_it_and_the_next_ones_at_once(
    store: SqliteStore,
) -> None:
    """The control plane that comes after a crash must await it, or its tasks would run twice."""
    stage = Stage()
    worker = Worker(stage, store)
    stage.join("w", 2)
    stage.submit("first")
    worker.pump.run()
    assert worker.ordered == []
    await store.saved()
    assert worker.ordered == ["first"]
    stage.submit("second")
    worker.pump.run()
    assert worker.ordered == ["first", "second"]
    worker.pump.stop()


async def test_who_acknowledges_early_starts_once_the_start_is_stored(store: SqliteStore) -> None:
    stage = Stage()
    worker = Worker(stage, store)
    stage.join("w", 2)
    worker.pump.run()
    await store.saved()
    stage.submit("once", acks="early")
    worker.pump.run()
    assert worker.ordered == []
    await store.saved()
    assert worker.ordered == ["once"]
    worker.pump.stop()
