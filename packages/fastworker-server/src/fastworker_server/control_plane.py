"""The control plane: puts engine, store, listener and own workers together, and stops them in the right order."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections import Counter
from random import Random

from pydantic import TypeAdapter

from fastworker.addresses import is_encrypted, is_insecure, listening_addresses
from fastworker.credentials import Certificates, accepted_credentials
from fastworker.limits import TaskLimits
from fastworker.settings import Settings
from fastworker.transport import Listener
from fastworker_server.answers import Answers
from fastworker_server.audit import Audit
from fastworker_server.bulk import Bulk
from fastworker_server.clock import Clock
from fastworker_server.door import Door
from fastworker_server.engine import Engine
from fastworker_server.engine_facts import restore
from fastworker_server.key_watch import watch_keys
from fastworker_server.observer import Observer
from fastworker_server.onlookers import Onlookers
from fastworker_server.peers import Peers
from fastworker_server.queue import Patience
from fastworker_server.schedules import Schedules
from fastworker_server.storage.kinds import Kind
from fastworker_server.storage.recovery import Recovered
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.tally import Tally
from fastworker_server.workers import WorkerPlace

logger = logging.getLogger("fastworker.control_plane")

FORGET_EVERY = 60.0
_LIMITS = TypeAdapter(dict[str, TaskLimits])


class ControlPlane:
    """The process that decides.

    Args:
        settings: see `Settings`; `listen` empty means the user's socket and `DEFAULT_TCP`.
        clock: the time; default: that of this machine.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or Clock()
        self.addresses = listening_addresses(settings)
        self._chores: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the store, recover, listen: in this order, so that no peer meets a control plane without its memory.

        Raises:
            ConfigurationError: there is no usable key.
            StoreError: the store can't be used.
            AddressInUse: another process listens at one of the addresses.
        """
        settings = self.settings
        encrypted = any(map(is_encrypted, self.addresses))
        accepted = accepted_credentials(settings) if encrypted else ()
        self.store = SqliteStore(settings.store_path if settings.store == "sqlite" else None, settings.sync)
        recovered = await self.store.open()
        self.engine = Engine(_patience(settings), Random(), recovered.next_seq)
        self.engine.version = int(self.clock.now() * 1_000_000)  # so that it never goes back, over restarts
        self.tally = Tally()
        self.onlookers = Onlookers(self.engine)
        self.schedules = Schedules(self.engine, self.onlookers.schedule)
        self._recover(recovered)
        self.listener = Listener(asyncio.get_running_loop())
        self.door = Door(self.listener, settings.max_connections)
        observer = Observer(self.engine, self.tally, self.store.indexer, self.onlookers)
        observer.rings.restore(recovered.facts.get("rings", {}))
        self.bulk = Bulk(self.engine, self.store, self.tally, self.clock, lambda: self.peers.pump())
        audit = Audit(self.store)
        answers = Answers(
            self.engine,
            self.schedules,
            self.store,
            self.tally,
            observer,
            self.bulk,
            audit,
            self.clock,
            self.describe_store(),
            lambda: self.addresses,
            self._refused,
        )
        self.peers = Peers(
            self.engine,
            self.schedules,
            self.store,
            self.listener,
            self.door,
            self.clock,
            answers,
            observer,
            self.bulk,
            audit,
            insecure=any(map(is_insecure, self.addresses)),
        )
        answers.instance = self.peers.instance
        try:
            self.peers.open()
            keys = () if isinstance(accepted, Certificates) else accepted
            self.door.accept(keys)
            for url in self.addresses:
                self.listener.listen(url, accepted if is_encrypted(url) else ())
        except BaseException:
            self.listener.close()
            await self.store.close()
            raise
        self._chores = [asyncio.create_task(self._forget_forever())]
        if keys and settings.key is None:
            self._chores.append(asyncio.create_task(watch_keys(keys, self.listener, self.door)))
        self.peers.pump()
        self.onlookers.begin()

    async def stop(self) -> None:
        """Stop: first the mouth, then the memory. Workers go on and report to the next control plane."""
        for chore in self._chores:
            chore.cancel()
        self.bulk.close()
        self.peers.last_pump()
        await self.store.saved(try_once=True)
        self.peers.close()
        self.listener.close()
        await self.store.close()
        await self.onlookers.end()

    def own_worker_died(self, pid: int) -> None:
        """A child has ended: its tasks need not wait for it to come back."""
        here = platform.node()
        for worker in [w for w in self.engine.workers.values() if w.own and w.place == (w.name, here, pid)]:
            self.engine.leave(worker, self.clock.now())
        self.peers.pump()

    def describe_store(self) -> str:
        """What the store is, for people."""
        if self.settings.store == "memory":
            return "memory (the queue is lost when this process ends)"
        return f"{self.settings.store_path / 'queue.db'} (sync {self.settings.sync})"

    def _refused(self) -> dict[str, int]:
        """How many connections and messages were refused since the start, by reason."""
        return {**self.listener.refused, **self.door.refused}

    def _recover(self, recovered: Recovered) -> None:
        now = self.clock.now()
        self.engine.counts.update(recovered.counts)
        self.tally.add(recovered.kinds)
        self.tally.add(Counter(Kind(task.name, task.queue, task.rank, task.state) for task in recovered.tasks))
        self.engine.locks.restore(recovered.locks)
        self.engine.remember(recovered.upstream)
        self.engine.limits.earlier(recovered.starts)
        workers = restore(self.engine, recovered.facts, now)
        alive = [worker for worker in workers if _may_live(worker)]
        self.engine.recover(recovered.tasks, alive, now)
        self.schedules.recover(recovered.schedules, now)
        if recovered.tasks:
            logger.info("recovered %d open tasks; %d workers are awaited", len(recovered.tasks), len(alive))

    async def _forget_forever(self) -> None:
        """Delete what is kept no longer, a little every minute."""
        while True:
            await asyncio.sleep(FORGET_EVERY)
            gone = await self.store.forget(self.settings.keep_finished, self.settings.keep_for, self.clock.now())
            self.tally.remove(gone)
            for kind, count in gone.items():
                self.engine.counts[kind.state] -= count


def _patience(settings: Settings) -> Patience:
    return Patience(settings.lease, settings.silence, settings.reconnect, settings.recovery, settings.max_crashes)


def _may_live(worker: WorkerPlace) -> bool:
    """Whether a worker of the earlier control plane may come back. On this host its process can be looked at."""
    if worker.host != platform.node():
        return True
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
