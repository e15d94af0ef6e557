"""From each message to one verb of the engine.

Handlers carry and the engine decides: decode, one verb, answer. What follows from the verbs is the pump's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Coroutine
from typing import Any

from fastworker.errors import ConfigurationError, ScheduleError, StoreError, TooManySchedules
from fastworker.protocol import (
    Answer,
    Asked,
    Cancel,
    Control,
    Credit,
    Goodbye,
    Handback,
    Heartbeat,
    Hello,
    Message,
    Outcomes,
    Query,
    Refused,
    Requeue,
    Schedule,
    Submit,
    Watch,
    Welcome,
)
from fastworker.protocol import Schedules as SchedulesOrder
from fastworker.release import RELEASE
from fastworker.search import EVERYTHING, TaskFilter, to_text
from fastworker.tasks import Priority, is_task_id
from fastworker.transport import Listener
from fastworker_server.answers import Answers
from fastworker_server.audit import Audit
from fastworker_server.bulk import Bulk
from fastworker_server.clock import Clock
from fastworker_server.door import Door
from fastworker_server.engine import Engine
from fastworker_server.needed import ready_to_requeue
from fastworker_server.observer import Observer
from fastworker_server.pump import ANSWER_BYTES, Pump
from fastworker_server.rights import why_not
from fastworker_server.schedules import Schedules
from fastworker_server.sessions import Peer, Sessions
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.submissions import Submissions
from fastworker_server.waiting import Waiting
from fastworker_server.workers import WorkerRecord

logger = logging.getLogger("fastworker.peers")

_FOR_WORKERS = (Outcomes, Heartbeat, Handback, Asked, Credit)


class Peers:
    """All clients and workers of a control plane.

    Args:
        engine: decides.
        schedules: submit by themselves.
        store: keeps.
        listener: carries.
        door: lets in.
        clock: tells the time to the engine.
        answers: answers questions.
        observer: counts.
        bulk: does things to many tasks.
        audit: writes down who did what.
        insecure: whether some connections are not encrypted.
    """

    def __init__(
        self,
        engine: Engine,
        schedules: Schedules,
        store: SqliteStore,
        listener: Listener,
        door: Door,
        clock: Clock,
        answers: Answers,
        observer: Observer,
        bulk: Bulk,
        audit: Audit,
        *,
        insecure: bool = False,
    ) -> None:
        self.instance = secrets.token_hex(8)
        self._engine = engine
        self._schedules = schedules
        self._store = store
        self._clock = clock
        self._answers = answers
        self._bulk = bulk
        self._audit = audit
        self._insecure = insecure or None
        self._loop = asyncio.get_running_loop()
        self._sessions = Sessions(listener, self, door)
        self._waiting = Waiting(engine, store, self._sessions, clock)
        self._pump = Pump(engine, store, self._sessions, self._waiting, clock, observer, schedules)
        self._submissions = Submissions(engine, store, self._sessions, self._waiting, self._pump, clock, self._spawn)
        self._work: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Start to take messages in."""
        self._sessions.open()

    def close(self) -> None:
        """Stop all timers."""
        self._sessions.close()
        self._pump.stop()

    def pump(self) -> None:
        """Send on what has happened."""
        self._pump.run()

    def last_pump(self) -> None:
        """The same for the last time: the counts of the charts are kept with it."""
        self._pump.run()
        self._pump.keep_counts()

    # ---- what the sessions tell ----------------------------------------------------------------------------------

    def turn_ended(self) -> None:
        """All messages that came together have been received."""
        self._pump.run()

    def disconnected(self, peer: Peer) -> None:
        """A peer's connection broke; it may come back."""
        if peer.worker is not None:
            self._engine.disconnected(peer.worker, self._clock.now())
        self._pump.run()

    def reconnected(self, peer: Peer) -> None:
        """It came back, with its session."""
        if peer.worker is not None:
            self._engine.reconnected(peer.worker, self._clock.now())

    def forgotten(self, peer: Peer) -> None:
        """Its session is over."""
        self._waiting.unfollow(peer)
        self._waiting.stop_listening(peer)

    def is_given_up(self, peer: Peer) -> bool:
        """Whether this is a worker that came back too late: its tasks are gone, and it is to introduce itself again."""
        return peer.worker is not None and self._engine.workers.get(peer.hello.name) is not peer.worker

    def received(self, peer: Peer, message: Message) -> None:
        """A message, in order and once."""
        now = self._clock.now()
        why = why_not(peer.role, message)
        if why is not None:
            self._sessions.refuse(peer, "not-allowed", why, getattr(message, "request", None))
            return
        if isinstance(message, _FOR_WORKERS):
            self._received_from_worker(peer, message, now)
            return
        if peer.worker is not None:
            self._engine.heard(peer.worker, now)
        match message:
            case Hello():
                self._hello(peer, message, now)
            case Submit():
                self._submissions.submit(peer, message, now)
            case Watch(items=task_ids, live=live):
                for task_id in task_ids if live else ():
                    self._waiting.listen(peer, task_id)
                self._submissions.watch(peer, task_ids)
            case Query(request=request):
                self._answer_later(peer, request, self._answers.answer(message))
            case Cancel():
                self._cancel(peer, message, now)
            case Requeue():
                self._in_turn(peer, self._requeue(peer, message))
            case Control():
                self._control(peer, message, now)
            case SchedulesOrder():
                self._in_turn(peer, self._schedule(peer, message))
            case Goodbye():
                self._goodbye(peer, now)
            case _:
                self._sessions.refuse(peer, "not-allowed", f"a {message.kind} is not for a control plane")

    def _received_from_worker(self, peer: Peer, message: Message, now: float) -> None:
        worker = peer.worker
        if worker is None and peer.hello.role == "worker":
            return  # it has said goodbye
        if worker is None:
            text = f"a {message.kind} is for workers only, and you are a client"
            self._sessions.refuse(peer, "not-allowed", text)
            return
        self._engine.heard(worker, now)
        match message:
            case Outcomes(number=number, items=outcomes):
                self._engine.report(worker, outcomes, now)
                self._pump.record(peer, number)
            case Heartbeat(notes=notes, memory=memory):
                self._engine.holds(worker, memory)
                for note in notes:
                    if self._engine.note(worker, note):
                        self._waiting.tell_note(note)
            case Handback(items=tokens, started=started):
                for token in tokens:
                    self._engine.hand_back(worker, token, now, started=started)
            case Asked(items=tokens):
                for token in tokens:
                    self._waiting.answer_cancels(token.id, "asked")
            case Credit(slots=slots):
                self._engine.set_slots(worker, slots)
            case _:
                pass

    # ---- coming and going ----------------------------------------------------------------------------------------

    def _hello(self, peer: Peer, hello: Hello, now: float) -> None:
        welcome = Welcome(self.instance, RELEASE, insecure=self._insecure)
        if hello.role == "worker":
            peer.worker, welcome.drop = self._engine.join(hello, now)
            self._schedules.announce(hello.definitions, now)
            logger.info("worker %s joined: %s", hello.name, _describe(peer.worker))
        self._sessions.say(peer, welcome)

    def _goodbye(self, peer: Peer, now: float) -> None:
        if peer.worker is not None:
            self._engine.leave(peer.worker, now)
            peer.worker = None
            logger.info("worker %s left", peer.hello.name)
        self._sessions.end(peer)

    # ---- orders of clients ---------------------------------------------------------------------------------------

    def _cancel(self, peer: Peer, message: Cancel, now: float) -> None:
        self._note(message.by, "cancel", message.task)
        if message.workflow:
            self._in_turn(peer, self._cancel_workflow(peer, message))
            return
        outcome = self._engine.cancel(message.task, now)
        if outcome == "stopping":
            self._waiting.await_cancel(peer, message.request, message.task)
        elif outcome == "not_found":
            self._answer_later(peer, message.request, self._answers.whether_done(message.task))
        else:
            self._pump.say_when_saved(peer, Answer(message.request, outcome))

    async def _cancel_workflow(self, peer: Peer, message: Cancel) -> None:
        task = await self._answers.find(message.task)
        count = None
        if task is not None:
            count = self._engine.cancel_workflow(task.ties.workflow or task.id, self._clock.now())
        self._pump.say_when_saved(peer, Answer(message.request, count))

    async def _requeue(self, peer: Peer, message: Requeue) -> None:
        self._note(message.by, "retry", message.task)
        found = await self._answers.find(message.task)
        ended = await ready_to_requeue(self._engine, self._store, [found] if found is not None else [])
        queued = bool(ended) and message.task not in self._bulk.deleting
        if queued:
            self._engine.requeue(ended[0], self._clock.now(), message.args)
        exists = queued or message.task in self._engine.tasks
        self._pump.say_when_saved(peer, Answer(message.request, queued if exists else None))

    def _control(self, peer: Peer, message: Control, now: float) -> None:
        engine = self._engine
        answer: int | str | None = None
        self._note(message.by, message.action, _target(message))
        match message:
            case Control(action="pause" | "resume", worker=str() as worker):
                engine.pause_worker(worker, paused=message.action == "pause")
            case Control(action="pause"):
                engine.lanes.pause(message.queue, message.name, message.by or peer.hello.name, now)
            case Control(action="resume"):
                engine.lanes.resume(message.queue, message.name)
            case Control(action="limit", name=str() as name):
                engine.limits.set(name, message.limits)
                engine.limits_changed([name], now)
            case Control(action="reprioritise", task=str() as task_id, priority=Priority() as priority):
                answer = engine.reprioritise(task_id, priority, now)
            case Control(
                action="retry" | "cancel" | "delete" | "reprioritise" as action, filter=TaskFilter() as wanted
            ):
                answer = self._bulk.start(action, wanted, message.by or peer.hello.name, message.priority)
            case Control(action="stop", name=str() as job):
                answer = self._bulk.stop(job)
            case Control(action="note"):
                pass
            case Control(action="follow"):
                answer = self._waiting.follow(peer, message.after)
            case Control(action="unfollow"):
                self._waiting.unfollow(peer)
            case _:
                text = f"a control that wants to {message.action} has to say what"
                self._sessions.say(peer, Refused("malformed", text, message.request))
                return
        self._pump.say_when_saved(peer, Answer(message.request, answer))

    def _note(self, by: str | None, action: str, target: str) -> None:
        """Write down who did what; what nobody puts a name to is no person's doing."""
        if by is not None:
            self._spawn(self._audit.note(by, action, target, self._clock.now()))

    async def _schedule(self, peer: Peer, order: SchedulesOrder) -> None:
        if self._store.failure is not None:
            self._sessions.say(peer, Refused("failed", self._store.failure, order.request))
            return
        try:
            data = await self._change_schedule(order)
        except TooManySchedules as error:
            self._sessions.say(peer, Refused("too-many-schedules", str(error), order.request))
        except (ConfigurationError, ScheduleError) as error:
            self._sessions.say(peer, Refused("schedule", str(error), order.request))
        else:
            self._pump.say_when_saved(peer, Answer(order.request, data))

    async def _change_schedule(self, order: SchedulesOrder) -> str | bool:
        schedules, name = self._schedules, order.name
        match order:
            case SchedulesOrder(action="add", schedule=Schedule() as schedule):
                return schedules.add(schedule, self._clock.now())
            case SchedulesOrder(action="run", task=str() as task) if is_task_id(task):
                ran = name in schedules.records and await self._store.get(task) is not None
                return ran or schedules.run_now(name, task, self._clock.now())
            case SchedulesOrder(action="pause"):
                return schedules.pause(name, self._clock.now())
            case SchedulesOrder(action="resume"):
                return schedules.resume(name, self._clock.now())
            case SchedulesOrder(action="remove"):
                return schedules.remove(name)
        raise ConfigurationError("to add takes a schedule, to run takes a task id")

    # ---- what takes a while --------------------------------------------------------------------------------------

    def _answer_later(self, peer: Peer, request: int, answer: Awaitable[Any]) -> None:
        async def run() -> None:
            try:
                self._sessions.say(peer, Answer(request, await answer), ANSWER_BYTES)
            except StoreError as error:
                self._sessions.say(peer, Refused("failed", str(error), request))
            except Exception as error:  # whatever it is, nobody is to wait for an answer for ever
                logger.exception("request %d of %s could not be answered", request, peer.hello.name)
                self._sessions.say(peer, Refused("failed", f"the control plane could not answer: {error}", request))

        self._in_turn(peer, run())

    def _in_turn(self, peer: Peer, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside the other messages; of one peer, a few at a time."""

        async def run() -> None:
            try:
                async with peer.turnstile:
                    await work
            finally:
                peer.in_flight -= 1

        peer.in_flight += 1
        self._spawn(run())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside the other messages, then pump."""

        async def run() -> None:
            try:
                await work
            except Exception:
                logger.exception("a request could not be answered")
            self._pump.run()

        task = self._loop.create_task(run())
        self._work.add(task)
        task.add_done_callback(self._work.discard)


def _target(message: Control) -> str:
    """What an order is about, for the audit."""
    if message.queue is not None:
        return f"queue {message.queue}"
    named = message.worker or message.task or message.name
    return named or to_text(message.filter or EVERYTHING) or "all tasks"


def _describe(worker: WorkerRecord) -> str:
    return f"{worker.slots} slots, {len(worker.names)} task functions"
