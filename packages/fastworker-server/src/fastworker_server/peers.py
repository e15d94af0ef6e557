"""From each message to one verb of the engine.

Handlers carry and the engine decides: decode, one verb, answer. What follows from the verbs is the pump's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, Final

from fastworker.errors import StoreError
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
    RefusalCode,
    Refused,
    Requeue,
    Submit,
    Watch,
    Welcome,
)
from fastworker.release import RELEASE
from fastworker.tasks import Task, is_task_id
from fastworker.transport import Listener
from fastworker_server.answers import Answers
from fastworker_server.clock import Clock
from fastworker_server.engine import Engine
from fastworker_server.pump import ANSWER_BYTES, Pump
from fastworker_server.sessions import Peer, Sessions
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.waiting import Waiting
from fastworker_server.workers import WorkerRecord

logger = logging.getLogger("fastworker.peers")

LONGEST_NAME: Final = 200

_FOR_WORKERS = (Outcomes, Heartbeat, Handback, Asked, Credit)


class Peers:
    """All clients and workers of a control plane.

    Args:
        engine: decides.
        store: keeps.
        listener: carries.
        clock: tells the time to the engine.
        answers: answers questions.
    """

    def __init__(self, engine: Engine, store: SqliteStore, listener: Listener, clock: Clock, answers: Answers) -> None:
        self.instance = secrets.token_hex(8)
        self._engine = engine
        self._store = store
        self._clock = clock
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._sessions = Sessions(listener, self)
        self._waiting = Waiting(engine, store, self._sessions, clock)
        self._pump = Pump(engine, store, self._sessions, self._waiting, clock)
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

    def is_given_up(self, peer: Peer) -> bool:
        """Whether this is a worker that came back too late: its tasks are gone, and it is to introduce itself again."""
        return peer.worker is not None and self._engine.workers.get(peer.hello.name) is not peer.worker

    def received(self, peer: Peer, message: Message) -> None:
        """A message, in order and once."""
        now = self._clock.now()
        if isinstance(message, _FOR_WORKERS):
            self._received_from_worker(peer, message, now)
            return
        if peer.worker is not None:
            self._engine.heard(peer.worker, now)
        match message:
            case Hello():
                self._hello(peer, message, now)
            case Submit():
                self._submit(peer, message, now)
            case Watch(items=task_ids):
                self._watch(peer, task_ids)
            case Query(request=request):
                self._answer_later(peer, request, self._answers.answer(message))
            case Cancel():
                self._cancel(peer, message, now)
            case Requeue():
                self._spawn(self._requeue(peer, message))
            case Control():
                self._control(peer, message)
            case Goodbye():
                self._goodbye(peer, now)
            case _:
                self._sessions.say(peer, Refused("not-allowed", f"a {message.kind} is not for a control plane"))

    def _received_from_worker(self, peer: Peer, message: Message, now: float) -> None:
        worker = peer.worker
        if worker is None and peer.hello.role == "worker":
            return  # it has said goodbye
        if worker is None:
            text = f"a {message.kind} is for workers only, and you are a client"
            self._sessions.say(peer, Refused("not-allowed", text))
            return
        self._engine.heard(worker, now)
        match message:
            case Outcomes(number=number, items=outcomes):
                self._engine.report(worker, outcomes, now)
                self._pump.record(peer, number)
            case Heartbeat(notes=notes):
                for note in notes:
                    self._engine.note(worker, note)
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
        welcome = Welcome(self.instance, RELEASE)
        if hello.role == "worker":
            peer.worker, welcome.drop = self._engine.join(hello, now)
            logger.info("worker %s joined: %s", hello.name, _describe(peer.worker))
        self._sessions.say(peer, welcome)

    def _goodbye(self, peer: Peer, now: float) -> None:
        if peer.worker is not None:
            self._engine.leave(peer.worker, now)
            peer.worker = None
            logger.info("worker %s left", peer.hello.name)
        self._sessions.end(peer)

    # ---- submissions ---------------------------------------------------------------------------------------------

    def _submit(self, peer: Peer, message: Submit, now: float) -> None:
        refusal = self._reason_to_refuse(message)
        if refusal is not None:
            self._sessions.say(peer, Refused(*refusal, message.request))
            return
        again = [task.id for task in message.tasks if task.again and task.id not in self._engine.tasks]
        if again:
            self._spawn(self._submit_again(peer, message, again))
        else:
            self._take_in(peer, message, now)

    def _reason_to_refuse(self, message: Submit) -> tuple[RefusalCode, str] | None:
        if self._store.failure is not None:
            return "failed", self._store.failure
        for task in message.tasks:
            if not is_task_id(task.id):
                return "malformed", f"{task.id!r} is not a task id: use a UUID"
            if not task.name or len(task.name) > LONGEST_NAME:
                return "malformed", f"a task name has 1 to {LONGEST_NAME} characters"
        if message.strict:
            known = set().union(*(worker.names for worker in self._engine.workers.values()))
            unknown = sorted({task.name for task in message.tasks} - known)
            if unknown:
                return "unknown-task", f"no connected worker knows {', '.join(map(repr, unknown))}"
        return None

    async def _submit_again(self, peer: Peer, message: Submit, task_ids: list[str]) -> None:
        """A request that may have been taken in before: its ended tasks are in the store."""
        known = await self._store.known(task_ids)
        message.tasks = [task for task in message.tasks if task.id not in known]
        self._take_in(peer, message, self._clock.now())
        self._watch(peer, known)

    def _take_in(self, peer: Peer, message: Submit, now: float) -> None:
        for submission in message.tasks:
            new = self._engine.submit(submission, now) is not None
            if submission.watch and new:
                self._waiting.watch_new(peer, submission.id)
            elif submission.watch:
                self._watch(peer, [submission.id])
        self._pump.accept(peer, message.request)

    def _watch(self, peer: Peer, task_ids: Iterable[str]) -> None:
        elsewhere = self._waiting.watch(peer, task_ids)
        if elsewhere:
            self._spawn(self._waiting.watch_stored(peer, elsewhere))

    # ---- orders of clients ---------------------------------------------------------------------------------------

    def _cancel(self, peer: Peer, message: Cancel, now: float) -> None:
        outcome = self._engine.cancel(message.task, now)
        if outcome == "stopping":
            self._waiting.await_cancel(peer, message.request, message.task)
        elif outcome == "not_found":
            self._answer_later(peer, message.request, self._answers.whether_done(message.task))
        else:
            self._pump.say_when_saved(peer, Answer(message.request, outcome))

    async def _requeue(self, peer: Peer, message: Requeue) -> None:
        stored = None if message.task in self._engine.tasks else await self._answers.find(message.task)
        task = self._engine.ended.get(message.task, stored)
        queued = isinstance(task, Task) and message.task not in self._engine.tasks
        if queued and task is not None:
            self._engine.requeue(task, self._clock.now())
        exists = queued or message.task in self._engine.tasks
        self._pump.say_when_saved(peer, Answer(message.request, queued if exists else None))

    def _control(self, peer: Peer, message: Control) -> None:
        lanes = self._engine.lanes
        match message.action:
            case "pause":
                lanes.pause(message.queue, message.name)
            case "resume":
                lanes.resume(message.queue, message.name)
            case "follow":
                self._waiting.follow(peer)
            case "unfollow":
                self._waiting.unfollow(peer)
        paused = {"queues": sorted(lanes.paused_queues), "names": sorted(lanes.paused_names)}
        self._store.save_fact("paused", paused)
        self._pump.say_when_saved(peer, Answer(message.request))

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


def _describe(worker: WorkerRecord) -> str:
    return f"{worker.slots} slots, {len(worker.names)} task functions"
