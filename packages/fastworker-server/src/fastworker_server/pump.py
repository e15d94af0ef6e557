"""What follows from the messages of one turn of the event loop: orders, answers, a commit, and what waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Final

from fastworker.protocol import Accepted, Message, Recorded, Run, Stop
from fastworker.schedule import is_firing_id
from fastworker.tasks import Task
from fastworker_server.clock import Clock
from fastworker_server.engine import Engine
from fastworker_server.engine_facts import EngineFacts
from fastworker_server.observer import Observer
from fastworker_server.schedules import Schedules
from fastworker_server.sessions import Peer, Sessions, cancel_timer
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.timers import NEVER
from fastworker_server.waiting import Waiting
from fastworker_server.workers import WorkerRecord

ANSWER_BYTES = 4096
"""What an answer is reckoned at in a frame."""
KEEP_COUNTS_EVERY: Final = 1.0
"""Seconds between two times that the store gets the counts of the charts: so much a kill can take from them."""


class Pump:
    """Reads the engine's outbox, for everybody. Acknowledgements wait here for the commit that makes them true."""

    def __init__(
        self,
        engine: Engine,
        store: SqliteStore,
        sessions: Sessions,
        waiting: Waiting,
        clock: Clock,
        observer: Observer,
        schedules: Schedules,
    ) -> None:
        self._engine = engine
        self._store = store
        self._sessions = sessions
        self._waiting = waiting
        self._clock = clock
        self._observer = observer
        self._schedules = schedules
        self._loop = asyncio.get_running_loop()
        self._to_accept: list[tuple[Peer, int]] = []
        self._to_say: list[tuple[Peer, Message]] = []
        self._to_record: dict[Peer, int] = {}
        self._held_orders: set[str] = set()
        self._facts = EngineFacts(engine, store)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = NEVER
        self._keeping: asyncio.TimerHandle | None = None

    def accept(self, peer: Peer, request: int) -> None:
        """Once it is stored, tell the client that its submit request was taken in."""
        self._to_accept.append((peer, request))

    def record(self, peer: Peer, number: int) -> None:
        """Once they are stored, tell the worker that it may forget its outcomes up to this number."""
        self._to_record[peer] = max(number, self._to_record.get(peer, 0))

    def say_when_saved(self, peer: Peer, message: Message) -> None:
        """Say it once what has happened so far is stored: from then on no crash can undo it."""
        self._to_say.append((peer, message))

    def run(self) -> None:
        """Fire timers, start tasks, tell everybody what has happened, commit."""
        now = self._clock.now()
        self._engine.timers.fire_due(now)
        self._schedules.follow(self._engine.outbox, now)
        self._send_orders(now)
        self._send_stops()
        moves, self._engine.outbox = self._engine.outbox, []
        if moves:
            self._waiting.tell(moves)
        self._sessions.flush()  # first of all: others wait for it
        if moves:
            self._store.save(moved.task for moved in moves)
            self._observer.tell(moves)
            self._keep_counts_soon()
        self._store.save_schedules(self._schedules.take_changes())
        self._facts.note(now)
        self._commit()
        self._set_timer(now)

    def stop(self) -> None:
        """Stop the timers."""
        cancel_timer(self._timer)
        cancel_timer(self._keeping)

    # ---- orders --------------------------------------------------------------------------------------------------

    def _send_orders(self, now: float) -> None:
        for worker, order in self._engine.dispatch(now):
            peer = self._sessions.worker(worker.name)
            if peer is None:
                continue  # its lease will end, and the task goes back in the queue
            if self._must_be_stored_first(self._engine.tasks[order.id], worker):
                self._held_orders.add(order.id)
                self.say_when_saved(peer, Run([order]))
            else:
                self._sessions.say_item(peer, Run, order, 150 + len(order.args))

    def _must_be_stored_first(self, task: Task, worker: WorkerRecord) -> bool:
        """Whether no worker may know of its start before the store does.

        Nobody may find it unstarted after a crash, and no schedule forget that it has run. What needs others must not
        run before their ends are safe: it would be found running without what it was given. And no worker may work
        that the next control plane would not await.
        """
        return (
            task.options.acks == "early"
            or bool(task.inputs)
            or (is_firing_id(task.id) and not task.stored)
            or not self._facts.knows(worker)
        )

    def _send_stops(self) -> None:
        for worker, token in self._engine.stops:
            peer = self._sessions.worker(worker.name)
            if peer is None:
                continue
            if token.id in self._held_orders:
                self.say_when_saved(peer, Stop([token]))  # not before the order
            else:
                self._sessions.say_item(peer, Stop, token)
        self._engine.stops.clear()

    # ---- commit --------------------------------------------------------------------------------------------------

    def _keep_counts_soon(self) -> None:
        if self._keeping is None:
            self._keeping = self._loop.call_later(KEEP_COUNTS_EVERY, self._keep_counts)

    def _keep_counts(self) -> None:
        self._keeping = None
        self.keep_counts()
        self._store.flush_soon()

    def keep_counts(self) -> None:
        """Keep in the store what the charts show."""
        self._store.save_fact("rings", self._observer.rings.kept())

    def _commit(self) -> None:
        """Commit at once if somebody waits for it. The rest is in no hurry: a worker keeps what is not recorded."""
        if self._to_accept or self._to_say or self._to_record:
            accept, self._to_accept = self._to_accept, []
            say, self._to_say = self._to_say, []
            record, self._to_record = self._to_record, {}
            self._store.when_saved(partial(self._committed, accept, say, record, self._engine.version))
            if accept or say:
                self._store.flush()
        self._store.flush_soon()

    def _committed(
        self,
        accept: Iterable[tuple[Peer, int]],
        say: Iterable[tuple[Peer, Message]],
        record: dict[Peer, int],
        version: int,
    ) -> None:
        """What was taken in is safe: say so."""
        for peer, request in accept:
            self._sessions.say_item(peer, Accepted, request, 8)
        for peer, message in say:
            self._sessions.say(peer, message, ANSWER_BYTES)
            if isinstance(message, Run):
                self._held_orders.difference_update(order.id for order in message.items)
        for peer, number in record.items():
            self._sessions.say_without_hurry(peer, Recorded(number))
        self._engine.forget_ended(version)
        self._sessions.flush()

    # ---- time ----------------------------------------------------------------------------------------------------

    def _set_timer(self, now: float) -> None:
        due = self._engine.timers.next_due()
        if due == self._timer_due:
            return
        cancel_timer(self._timer)
        self._timer_due = due
        self._timer = None if due == NEVER else self._loop.call_later(max(0.0, due - now), self._fired)

    def _fired(self) -> None:
        self._timer_due = NEVER
        self.run()
