"""Clients and workers as the control plane sees them: their sessions, and the way of each message to an engine verb.

Handlers carry and the engine decides: decode, one verb, answer. After the messages that came in one turn of the event
loop, one `pump` sends on what they caused: orders to workers, ends to clients, changes to the store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Any, Final

from fastworker.errors import StoreError
from fastworker.lifecycle import TERMINAL, State
from fastworker.protocol import (
    PROTOCOL_VERSION,
    Accepted,
    Answer,
    Asked,
    Batch,
    Cancel,
    Change,
    Changes,
    Control,
    Credit,
    Ended,
    Frame,
    Goodbye,
    Handback,
    Heartbeat,
    Hello,
    MalformedFrame,
    Message,
    Outcomes,
    Query,
    Recorded,
    RefusalCode,
    Refused,
    Requeue,
    Results,
    Run,
    Stop,
    Submit,
    Watch,
    Welcome,
    decode,
    encode,
)
from fastworker.release import RELEASE
from fastworker.session import NEVER, Session
from fastworker.tasks import Task, is_task_id
from fastworker.transport import Listener, PipeId
from fastworker_server.answers import Answers, ended_of
from fastworker_server.clock import Clock
from fastworker_server.engine import Engine, Moved
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.workers import WorkerRecord

logger = logging.getLogger("fastworker.peers")

SESSION_KEPT: Final = 60.0
"""Seconds that a disconnected client's session waits for it."""
LONGEST_NAME: Final = 200
MOST_WAITING: Final = 2000
"""Messages that may wait for a peer that does not read; then its session ends, and it has to introduce itself again."""

_FOR_WORKERS = (Outcomes, Heartbeat, Handback, Asked, Credit)


class Peer:
    """One client or worker."""

    __slots__ = ("following", "forget_timer", "hello", "pipe", "session", "tick_due", "tick_timer", "worker")

    def __init__(self, session: Session, pipe: PipeId, hello: Hello) -> None:
        self.session = session
        self.pipe: PipeId | None = pipe
        self.hello = hello
        self.worker: WorkerRecord | None = None
        self.following = False
        self.tick_timer: asyncio.TimerHandle | None = None
        self.tick_due = NEVER
        self.forget_timer: asyncio.TimerHandle | None = None


class Peers:
    """All peers of a control plane.

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
        self._listener = listener
        self._clock = clock
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._by_session: dict[str, Peer] = {}
        self._by_pipe: dict[PipeId, Peer] = {}
        self._by_worker: dict[str, Peer] = {}
        self._watchers: dict[str, Peer | list[Peer]] = {}
        self._followers: list[Peer] = []
        self._cancels: dict[str, list[tuple[Peer, int]]] = {}
        self._to_accept: list[tuple[Peer, int]] = []
        self._to_say: list[tuple[Peer, Message]] = []
        self._to_record: dict[Peer, int] = {}
        self._talking: dict[Peer, None] = {}  # in the order in which they were spoken to
        self._work: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = NEVER
        self._known_workers: set[str] = set()
        self._garbage_from: set[PipeId] = set()

    def open(self) -> None:
        """Start to take messages in."""
        self._listener.open(self._received, self._connected, self._disconnected, self.pump)

    def close(self) -> None:
        """Stop all timers."""
        for peer in self._by_session.values():
            _cancel(peer.tick_timer)
            _cancel(peer.forget_timer)
        _cancel(self._timer)

    # ---- connections ---------------------------------------------------------------------------------------------

    def _connected(self, pipe: PipeId) -> None:
        uid = self._listener.peer_uid(pipe)
        if uid is not None and uid not in (0, os.getuid()):
            logger.warning("refused a connection of user %d to this user's socket", uid)
            self._listener.disconnect(pipe)

    def _disconnected(self, pipe: PipeId) -> None:
        self._garbage_from.discard(pipe)
        peer = self._by_pipe.pop(pipe, None)
        if peer is None or peer.pipe != pipe:
            return
        peer.pipe = None
        if peer.worker is not None:
            self._engine.disconnected(peer.worker, self._clock.now())
        peer.forget_timer = self._loop.call_later(SESSION_KEPT, self._forget, peer)
        self.pump()

    def _forget(self, peer: Peer) -> None:
        self._by_session.pop(peer.session.id, None)
        if peer.pipe is not None:
            self._by_pipe.pop(peer.pipe, None)
        if peer.hello.role == "worker" and self._by_worker.get(peer.hello.name) is peer:
            del self._by_worker[peer.hello.name]
        if peer.following:
            self._followers.remove(peer)
        _cancel(peer.tick_timer)
        _cancel(peer.forget_timer)
        peer.pipe = None

    # ---- in ------------------------------------------------------------------------------------------------------

    def _received(self, pipe: PipeId, body: bytes) -> None:
        try:
            frame = decode(body)
        except MalformedFrame as error:
            if pipe not in self._garbage_from:
                self._garbage_from.add(pipe)
                logger.warning("a peer sends what can't be read as a frame: %s", error)
            self._refuse_frame(pipe, "", "malformed", f"the frame can't be read: {error}")
            return
        peer = self._by_session.get(frame.session)
        if peer is not None and self._is_given_up(peer):
            self._forget(peer)
            peer = None
        peer = peer or self._greet(pipe, frame)
        if peer is None:
            return
        if peer.pipe != pipe:
            self._rebind(peer, pipe)
        for message in peer.session.receive(frame, self._loop.time()):
            self._handle(peer, message)
        self._set_tick(peer)

    def _greet(self, pipe: PipeId, frame: Frame) -> Peer | None:
        """A frame of a session that we don't have: a new one if it begins with `Hello`, else it is refused."""
        hello = frame.items[0] if frame.seq == 1 and frame.items else None
        if not isinstance(hello, Hello):
            self._refuse_frame(pipe, frame.session, "unknown-session", "introduce yourself with Hello")
            return None
        if hello.version != PROTOCOL_VERSION:
            text = (
                f"this control plane ({RELEASE}) speaks protocol {PROTOCOL_VERSION}, "
                f"{hello.name} ({hello.release or 'unknown release'}) speaks {hello.version}: "
                "use the same release on both"
            )
            self._refuse_frame(pipe, frame.session, "version", text)
            return None
        other = self._by_worker.get(hello.name) if hello.role == "worker" else None
        if (
            other is not None
            and other.pipe is not None
            and (other.hello.host, other.hello.pid) != (hello.host, hello.pid)
        ):
            self._refuse_frame(pipe, frame.session, "duplicate-worker", f"another worker is called {hello.name!r}")
            return None
        if other is not None:
            self._forget(other)
        peer = self._by_session[frame.session] = Peer(Session(frame.session), pipe, hello)
        self._by_pipe[pipe] = peer
        return peer

    def _is_given_up(self, peer: Peer) -> bool:
        """Whether this is a worker that came back too late: its tasks are gone, and it is to introduce itself again."""
        return peer.worker is not None and self._engine.workers.get(peer.hello.name) is not peer.worker

    def _rebind(self, peer: Peer, pipe: PipeId) -> None:
        """The peer's session goes on over another connection."""
        if peer.pipe is not None:
            self._by_pipe.pop(peer.pipe, None)
        peer.pipe = pipe
        self._by_pipe[pipe] = peer
        _cancel(peer.forget_timer)
        peer.session.reconnected(self._loop.time())
        if peer.worker is not None:
            self._engine.reconnected(peer.worker, self._clock.now())

    def _handle(self, peer: Peer, message: Message) -> None:
        now = self._clock.now()
        if peer.worker is not None:
            self._engine.heard(peer.worker, now)
        if isinstance(message, _FOR_WORKERS):
            self._handle_worker(peer, message, now)
            return
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
            case Requeue(request=request, task=task_id):
                self._answer_later(peer, request, self._requeue(task_id), self._say_when_saved)
            case Control():
                self._control(peer, message)
            case Goodbye():
                self._goodbye(peer, now)
            case _:
                self._say(peer, Refused("not-allowed", f"a {message.kind} is not for a control plane"))

    def _handle_worker(self, peer: Peer, message: Message, now: float) -> None:
        worker = peer.worker
        if worker is None and peer.hello.role == "worker":
            return  # it has said goodbye
        if worker is None:
            self._say(peer, Refused("not-allowed", f"a {message.kind} is for workers only, and you are a client"))
            return
        match message:
            case Outcomes(number=number, items=outcomes):
                self._engine.report(worker, outcomes, now)
                self._to_record[peer] = max(number, self._to_record.get(peer, 0))
            case Heartbeat(notes=notes):
                for note in notes:
                    self._engine.note(worker, note)
            case Handback(items=tokens, started=started):
                for token in tokens:
                    self._engine.hand_back(worker, token, now, started=started)
            case Asked(items=tokens):
                for token in tokens:
                    self._answer_cancels(token.id, "asked")
            case Credit(slots=slots):
                self._engine.set_slots(worker, slots)
            case _:
                pass

    # ---- one function per message --------------------------------------------------------------------------------

    def _hello(self, peer: Peer, hello: Hello, now: float) -> None:
        welcome = Welcome(self.instance, RELEASE)
        if hello.role == "worker":
            self._by_worker[hello.name] = peer
            peer.worker, welcome.drop = self._engine.join(hello, now)
            logger.info(
                "worker %s joined: %d slots, %d task functions", hello.name, hello.slots, len(hello.definitions)
            )
        self._say(peer, welcome)

    def _goodbye(self, peer: Peer, now: float) -> None:
        if peer.worker is not None:
            self._engine.leave(peer.worker, now)
            peer.worker = None
            logger.info("worker %s left", peer.hello.name)
        _cancel(peer.forget_timer)
        peer.forget_timer = self._loop.call_later(1.0, self._forget, peer)  # so that it still gets the acknowledgement

    def _submit(self, peer: Peer, message: Submit, now: float) -> None:
        refusal = self._reason_to_refuse(message)
        if refusal is not None:
            self._say(peer, Refused(refusal[0], refusal[1], message.request))
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
                self._watchers[submission.id] = peer
            elif submission.watch:
                self._watch(peer, [submission.id])
        self._to_accept.append((peer, message.request))

    def _watch(self, peer: Peer, task_ids: Iterable[str]) -> None:
        """Send the ends of these tasks: those that have ended now, the others when they do."""
        elsewhere = []
        for task_id in task_ids:
            if task_id in self._engine.tasks:
                self._add_watcher(peer, task_id)
            elif task_id in self._engine.ended:
                self._send_end(peer, self._engine.ended[task_id])
            else:
                elsewhere.append(task_id)
        if elsewhere:
            self._spawn(self._watch_stored(peer, elsewhere))

    def _add_watcher(self, peer: Peer, task_id: str) -> None:
        watching = self._watchers.get(task_id)
        if watching is None:
            self._watchers[task_id] = peer
        elif isinstance(watching, Peer):
            if watching is not peer:
                self._watchers[task_id] = [watching, peer]
        elif peer not in watching:
            watching.append(peer)

    async def _watch_stored(self, peer: Peer, task_ids: list[str]) -> None:
        found = await self._store.get_many(task_ids)
        for task_id in task_ids:
            if task_id in self._engine.tasks:  # taken in, or requeued, meanwhile
                self._add_watcher(peer, task_id)
                continue
            match self._engine.ended.get(task_id) or found.get(task_id):
                case Task() as task:
                    self._send_end(peer, task)
                case "expired":
                    self._say_item(peer, Results, Ended(task_id, State.SUCCEEDED, result_expired=True))
                case _:
                    self._say_item(peer, Results, Ended(task_id, None))

    def _send_end(self, peer: Peer, task: Task) -> None:
        ended = ended_of(task, self._clock.now())
        self._say_item(peer, Results, ended, 100 + len(ended.result or ""))

    def _cancel(self, peer: Peer, message: Cancel, now: float) -> None:
        outcome = self._engine.cancel(message.task, now)
        if outcome == "stopping":
            self._cancels.setdefault(message.task, []).append((peer, message.request))
        elif outcome == "not_found":
            self._answer_later(peer, message.request, self._answers.whether_done(message.task))
        else:
            self._say_when_saved(peer, Answer(message.request, outcome))

    def _answer_cancels(self, task_id: str, answer: str) -> None:
        for peer, request in self._cancels.pop(task_id, ()):
            self._say(peer, Answer(request, answer))

    async def _requeue(self, task_id: str) -> bool | None:
        if task_id in self._engine.tasks:
            return False
        task = self._engine.ended.get(task_id) or await self._store.get(task_id)
        if task_id in self._engine.tasks:  # somebody was faster
            return False
        task = self._engine.ended.get(task_id, task)
        if not isinstance(task, Task):
            return None
        self._engine.requeue(task, self._clock.now())
        return True

    def _control(self, peer: Peer, message: Control) -> None:
        lanes = self._engine.lanes
        match message.action:
            case "pause":
                lanes.pause(message.queue, message.name)
            case "resume":
                lanes.resume(message.queue, message.name)
            case "follow" if not peer.following:
                peer.following = True
                self._followers.append(peer)
            case "unfollow" if peer.following:
                peer.following = False
                self._followers.remove(peer)
            case _:
                pass
        if message.action in ("pause", "resume"):
            self._store.save_fact(
                "paused", {"queues": sorted(lanes.paused_queues), "names": sorted(lanes.paused_names)}
            )
        self._say_when_saved(peer, Answer(message.request))

    # ---- answers that need the store -----------------------------------------------------------------------------

    def _answer_later(
        self, peer: Peer, request: int, answer: Awaitable[Any], say: Callable[[Peer, Message, int], None] | None = None
    ) -> None:
        async def run() -> None:
            try:
                (say or self._say)(peer, Answer(request, await answer), 4096)
            except StoreError as error:
                self._say(peer, Refused("failed", str(error), request))

        self._spawn(run())

    def _spawn(self, work: Any) -> None:
        """Do something that takes a while, then pump."""

        async def run() -> None:
            try:
                await work
            except Exception:
                logger.exception("a request could not be answered")
            self.pump()

        task = self._loop.create_task(run())
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    # ---- pump: send on what has happened -------------------------------------------------------------------------

    def pump(self) -> None:
        """Fire timers, start tasks, tell everybody what has happened, commit."""
        now = self._clock.now()
        self._engine.timers.fire_due(now)
        for worker, order in self._engine.dispatch(now):
            peer = self._by_worker[worker.name]
            if self._engine.tasks[order.id].options.acks == "early":  # at most once: nobody may find it unstarted later
                self._say_when_saved(peer, Run([order]))
            else:
                self._say_item(peer, Run, order, 150 + len(order.args))
        self._send_stops()
        self._send_changes()
        self._note_workers()
        self._flush()
        self._commit()
        self._set_timer(now)

    def _send_stops(self) -> None:
        for worker, token in self._engine.stops:
            peer = self._by_worker.get(worker.name)
            if peer is not None:
                self._say_item(peer, Stop, token)
        self._engine.stops.clear()

    def _send_changes(self) -> None:
        moves, self._engine.outbox = self._engine.outbox, []
        if not moves:
            return
        self._store.save(moved.task for moved in moves)
        for moved in moves:
            if moved.after in TERMINAL:
                self._ended(moved.task)
        for peer in self._followers:
            for moved in moves:
                self._say_item(peer, Changes, _change(moved))

    def _ended(self, task: Task) -> None:
        watching = self._watchers.pop(task.id, None)
        if isinstance(watching, Peer):
            self._send_end(watching, task)
        elif watching is not None:
            for peer in watching:
                self._send_end(peer, task)
        if self._cancels:
            self._answer_cancels(task.id, "interrupted" if task.state is State.CANCELLED else "already_done")

    def _note_workers(self) -> None:
        """Keep in the store which workers there are: after a restart they are awaited."""
        if self._engine.workers.keys() != self._known_workers:
            self._known_workers = set(self._engine.workers)
            views = [worker.view(self._clock.now()) for worker in self._engine.workers.values()]
            self._store.save_fact("workers", [{"name": v.name, "host": v.host, "pid": v.pid} for v in views])

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
            self._say_item(peer, Accepted, request, 8)
        for peer, message in say:
            self._say(peer, message, 4096)
        for peer, number in record.items():
            peer.session.post_without_hurry(Recorded(number), self._loop.time())
            self._set_tick(peer)
        self._engine.forget_ended(version)
        self._flush()

    # ---- out -----------------------------------------------------------------------------------------------------

    def _say(self, peer: Peer, message: Message, size: int = 64) -> None:
        """Queue a message; it goes out at the end of this turn."""
        peer.session.post(message, size)
        self._talking[peer] = None

    def _say_when_saved(self, peer: Peer, message: Message, _size: int = 64) -> None:
        """Say it once what has happened so far is in the store: from then on it can't be undone by a crash."""
        self._to_say.append((peer, message))

    def _say_item(self, peer: Peer, batch: type[Batch], item: object, size: int = 64) -> None:
        """Queue one item of a batch message, likewise."""
        peer.session.post_item(batch, item, size)
        self._talking[peer] = None

    def _flush(self) -> None:
        if not self._talking:
            return
        talking, self._talking = self._talking, {}
        for peer in talking:
            self._flush_peer(peer)

    def _flush_peer(self, peer: Peer) -> None:
        if peer.session.backlog > MOST_WAITING:
            logger.warning("%s does not read what it asked for: its session ends", peer.hello.name)
            self._forget(peer)
        if peer.pipe is None:
            return
        now = self._loop.time()
        for body in peer.session.outgoing(now):
            if not self._listener.send(peer.pipe, body):
                peer.session.not_sent(now)
                break
        self._set_tick(peer)

    def _set_tick(self, peer: Peer) -> None:
        due = peer.session.due()
        if due != peer.tick_due:
            _cancel(peer.tick_timer)
            peer.tick_due = due
            peer.tick_timer = None if due == NEVER else self._loop.call_at(due, self._tick, peer)

    def _tick(self, peer: Peer) -> None:
        peer.tick_due = NEVER
        peer.session.tick(self._loop.time())
        self._flush_peer(peer)

    def _refuse_frame(self, pipe: PipeId, session: str, code: RefusalCode, message: str) -> None:
        self._listener.send(pipe, encode(Frame(session, 0, 0, [Refused(code, message)])))

    def _set_timer(self, now: float) -> None:
        due = self._engine.timers.next_due()
        if due == self._timer_due:
            return
        _cancel(self._timer)
        self._timer_due = due
        self._timer = None if due == NEVER else self._loop.call_later(max(0.0, due - now), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer_due = NEVER
        self.pump()


def _change(moved: Moved) -> Change:
    task = moved.task
    return Change(moved.version, task.id, task.name, moved.after, task.attempt, moved.at)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
