"""The control plane's end of all sessions: which connection carries which peer, and what is to be sent to whom."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from fastworker.keys import KeyRole
from fastworker.pipe import PipeId
from fastworker.protocol import (
    PROTOCOL_VERSION,
    Batch,
    Frame,
    Hello,
    MalformedFrame,
    Message,
    RefusalCode,
    Refused,
    decode,
    encode,
)
from fastworker.release import RELEASE
from fastworker.session import NEVER, WINDOW, Session
from fastworker.transport import Listener
from fastworker_server.door import Contact, Door
from fastworker_server.rights import why_not
from fastworker_server.workers import WorkerRecord

logger = logging.getLogger("fastworker.sessions")

SESSION_KEPT: Final = 60.0
"""Seconds that the session of a disconnected peer waits for it."""
MOST_KEPT: Final = 500
"""Clients whose sessions wait; who comes back after that introduces itself again, as after a restart."""
AFTER_GOODBYE: Final = 1.0
"""Seconds that a session lives on after a goodbye, so that the peer still gets the acknowledgement."""
MOST_WAITING: Final = 8000
"""Messages that may wait for a peer that does not read; then its session ends, and it has to introduce itself again."""
MOST_IN_FLIGHT: Final = 2000
"""Requests of one peer that are being answered, and answers that it has not read: what it says then is held back."""
AT_ONCE: Final = 16
"""Of these so many are worked on, so that a peer that asks much leaves room for the others."""


class Peer:
    """One client or worker; `role` says what its key gives it the right to."""

    __slots__ = (
        "forget_timer", "held", "hello", "in_flight", "pipe", "role",
        "session", "tick_due", "tick_timer", "turnstile", "worker",
    )  # fmt: skip

    def __init__(self, session: Session, hello: Hello, role: KeyRole) -> None:
        self.session = session
        self.pipe: PipeId | None = None
        self.hello = hello
        self.role = role
        self.in_flight = 0
        self.held: list[Frame] = []
        self.turnstile = asyncio.Semaphore(AT_ONCE)
        self.worker: WorkerRecord | None = None
        self.tick_timer: asyncio.TimerHandle | None = None
        self.tick_due = NEVER
        self.forget_timer: asyncio.TimerHandle | None = None


class Receiver(Protocol):
    """Who is told what the peers say and do."""

    def received(self, peer: Peer, message: Message) -> None:
        """A message, in order and once."""

    def disconnected(self, peer: Peer) -> None:
        """The connection broke; the session waits."""

    def reconnected(self, peer: Peer) -> None:
        """The session goes on over another connection."""

    def forgotten(self, peer: Peer) -> None:
        """The session is over."""

    def is_given_up(self, peer: Peer) -> bool:
        """Whether the peer came back too late, and is to introduce itself again."""

    def turn_ended(self) -> None:
        """All messages that came together have been received."""


class Sessions:
    """All sessions of a control plane."""

    def __init__(self, listener: Listener, receiver: Receiver, door: Door) -> None:
        self.door = door
        self._listener = listener
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._by_id: dict[str, Peer] = {}
        self._by_pipe: dict[PipeId, Peer] = {}
        self._by_worker: dict[str, Peer] = {}
        self._away: dict[Peer, None] = {}  # clients that may come back; the first that went first
        self._talking: dict[Peer, None] = {}  # in the order in which they were spoken to

    def open(self) -> None:
        """Start to take messages in."""
        self._listener.open(self._received, self._connected, self._disconnected, self._receiver.turn_ended)

    def close(self) -> None:
        """Stop all timers."""
        self.door.close()
        for peer in self._by_id.values():
            cancel_timer(peer.tick_timer)
            cancel_timer(peer.forget_timer)

    def worker(self, name: str) -> Peer | None:
        """The session of a worker."""
        return self._by_worker.get(name)

    # ---- connections ---------------------------------------------------------------------------------------------

    def _connected(self, pipe: PipeId) -> None:
        self.door.meet(pipe)

    def _disconnected(self, pipe: PipeId) -> None:
        self.door.left(pipe)
        peer = self._by_pipe.pop(pipe, None)
        if peer is None or peer.pipe != pipe:
            return
        peer.pipe = None
        peer.forget_timer = self._loop.call_later(SESSION_KEPT, self.forget, peer)
        self._receiver.disconnected(peer)
        if peer.hello.role == "client":
            self._away[peer] = None
            if len(self._away) > MOST_KEPT:
                self.forget(next(iter(self._away)))

    def _rebind(self, peer: Peer, contact: Contact) -> None:
        if peer.pipe is not None:
            self._by_pipe.pop(peer.pipe, None)
        self._away.pop(peer, None)
        cancel_timer(peer.forget_timer)
        self._bind(peer, contact)
        peer.session.reconnected(self._loop.time())
        self._talking[peer] = None  # what is not acknowledged goes out again
        self._receiver.reconnected(peer)

    def _bind(self, peer: Peer, contact: Contact) -> None:
        """Let a connection carry this session, and no other."""
        before = self._by_pipe.get(contact.pipe)
        if before is not None:
            self._receiver.disconnected(before)
            self.forget(before)
        self.door.greeted(contact)
        peer.pipe = contact.pipe
        self._by_pipe[contact.pipe] = peer

    def end(self, peer: Peer) -> None:
        """The peer has said goodbye."""
        cancel_timer(peer.forget_timer)
        peer.forget_timer = self._loop.call_later(AFTER_GOODBYE, self.forget, peer)

    def give_up(self, peer: Peer) -> None:
        """Too much waits for it: end its session. If it reads again, it introduces itself again."""
        logger.warning("%s does not read what it asked for: its session ends", peer.hello.name)
        self.forget(peer)

    def forget(self, peer: Peer) -> None:
        """End a session: what the peer says in it from now on is refused."""
        self._by_id.pop(peer.session.id, None)
        if peer.pipe is not None:
            self._by_pipe.pop(peer.pipe, None)
        if self._by_worker.get(peer.hello.name) is peer:
            del self._by_worker[peer.hello.name]
        self._away.pop(peer, None)
        cancel_timer(peer.tick_timer)
        cancel_timer(peer.forget_timer)
        peer.pipe = None
        self._receiver.forgotten(peer)

    # ---- in ------------------------------------------------------------------------------------------------------

    def _received(self, pipe: PipeId, body: bytes) -> None:
        contact = self.door.contact(pipe)
        if contact is None or not self.door.may_speak(contact):
            return
        try:
            frame = decode(body)
        except MalformedFrame as error:
            self._complain(contact, error)
            return
        if contact.role is None:
            self.door.prove(contact, frame)
        else:
            self._take(contact, contact.role, frame)

    def _take(self, contact: Contact, role: KeyRole, frame: Frame) -> None:
        """A frame of a connection that may say something."""
        peer = self._by_id.get(frame.session)
        if peer is not None and self._receiver.is_given_up(peer):
            self.forget(peer)
            peer = None
        peer = peer or self._greet(contact, role, frame)
        if peer is None:
            return
        if peer.role != role:
            self._refuse(
                contact.pipe, frame.session, "not-allowed", f"this session is that of another key, a {peer.role}'s"
            )
            return
        if peer.pipe != contact.pipe:
            self._rebind(peer, contact)
        if frame.seq and (peer.held or _has_enough(peer)):
            self._hold(peer, frame)
        else:
            self._deliver(peer, frame)
        if peer.session.in_hurry or peer.held:  # an acknowledgement may have opened the window
            self._talking[peer] = None
        self._set_tick(peer)

    def _deliver(self, peer: Peer, frame: Frame) -> None:
        for message in peer.session.receive(frame, self._loop.time()):
            try:
                self._receiver.received(peer, message)
            except Exception as error:  # a fault of ours costs this message, and none of those that came with it
                logger.exception("a %s of %s could not be handled", message.kind, peer.hello.name)
                text = f"the control plane could not handle a {message.kind}: {error!r}; its log says more"
                self.say(peer, Refused("failed", text, getattr(message, "request", None)))

    def _hold(self, peer: Peer, frame: Frame) -> None:
        """Not now: it is not acknowledged either, so the peer's window closes."""
        if not peer.held:
            self.door.refused["too-many-requests"] += 1
        peer.session.acknowledge(frame.ack, self._loop.time())
        if len(peer.held) < WINDOW and all(frame.seq != held.seq for held in peer.held):
            peer.held.append(frame)

    def _release(self, peer: Peer) -> None:
        """Take in what was held back, as far as there is room now."""
        while peer.held and not _has_enough(peer) and self._by_id.get(peer.session.id) is peer:
            self._deliver(peer, peer.held.pop(0))
        self._receiver.turn_ended()
        self._set_tick(peer)

    def _complain(self, contact: Contact, error: MalformedFrame) -> None:
        if self.door.garbage(contact):
            if contact.garbage == 1:
                logger.warning("a peer sends what can't be read as a frame: %s", error)
            self._answer_no(contact.pipe, "", "malformed", f"the frame can't be read: {error}")

    def _greet(self, contact: Contact, role: KeyRole, frame: Frame) -> Peer | None:
        """A frame of a session that we don't have: a new one if it begins with a proper `Hello`, else it is refused."""
        pipe = contact.pipe
        hello = frame.items[0] if frame.seq == 1 and frame.items else None
        if not isinstance(hello, Hello):
            self._refuse(pipe, frame.session, "unknown-session", "introduce yourself with Hello")
            return None
        if hello.version != PROTOCOL_VERSION:
            self._refuse(pipe, frame.session, "version", _mismatch(hello))
            return None
        why = why_not(role, hello)
        if why is not None:
            self._refuse(pipe, frame.session, "not-allowed", why)
            return None
        other = self._by_worker.get(hello.name) if hello.role == "worker" else None
        if other is not None and other.pipe is not None and _process(other.hello) != _process(hello):
            self._refuse(pipe, frame.session, "duplicate-worker", f"another worker is called {hello.name!r}")
            return None
        if other is not None:
            self.forget(other)
        peer = self._by_id[frame.session] = Peer(Session(frame.session), hello, role)
        self._bind(peer, contact)
        if hello.role == "worker":
            self._by_worker[hello.name] = peer
        return peer

    def _refuse(self, pipe: PipeId, session: str, code: RefusalCode, message: str) -> None:
        if code != "unknown-session":  # said to everybody after a restart
            self.door.refused[code] += 1
        self._answer_no(pipe, session, code, message)

    def _answer_no(self, pipe: PipeId, session: str, code: RefusalCode, message: str) -> None:
        self._listener.send(pipe, encode(Frame(session, 0, 0, [Refused(code, message)])))

    # ---- out -----------------------------------------------------------------------------------------------------

    def say(self, peer: Peer, message: Message, size: int = 64) -> None:
        """Queue a message; it goes out with the next `flush`."""
        peer.session.post(message, size)
        self._talking[peer] = None

    def refuse(self, peer: Peer, code: RefusalCode, message: str, request: int | None = None) -> None:
        """Say no to something that a peer must not say, and count it."""
        self.door.refused[code] += 1
        self.say(peer, Refused(code, message, request))

    def say_item(self, peer: Peer, batch: type[Batch], item: object, size: int = 64) -> None:
        """Queue one item of a batch message, likewise."""
        peer.session.post_item(batch, item, size)
        self._talking[peer] = None

    def say_without_hurry(self, peer: Peer, message: Message) -> None:
        """Queue a message that can wait for something to ride on."""
        peer.session.post_without_hurry(message, self._loop.time())
        self._set_tick(peer)

    def flush(self) -> None:
        """Send what was said."""
        talking, self._talking = self._talking, {}
        for peer in talking:
            self._flush_peer(peer)
            if peer.held and not _has_enough(peer):
                self._loop.call_soon(self._release, peer)

    def _flush_peer(self, peer: Peer) -> None:
        if peer.session.backlog > MOST_WAITING:
            self.give_up(peer)
        if peer.pipe is None:
            return
        now = self._loop.time()
        for body in peer.session.outgoing(now):
            self._listener.send(peer.pipe, body)
        self._set_tick(peer)

    def _set_tick(self, peer: Peer) -> None:
        """See to it that the session is looked at when it is due, or before: a timer that is early looks again."""
        due = peer.session.due()
        if due < peer.tick_due:
            cancel_timer(peer.tick_timer)
            peer.tick_due = due
            peer.tick_timer = self._loop.call_at(due, self._tick, peer)

    def _tick(self, peer: Peer) -> None:
        peer.tick_due = NEVER
        now = self._loop.time()
        if peer.session.due() > now:
            self._set_tick(peer)
            return
        peer.session.tick(now)
        self._flush_peer(peer)


def _has_enough(peer: Peer) -> bool:
    return peer.in_flight + peer.session.backlog >= MOST_IN_FLIGHT


def _process(hello: Hello) -> tuple[str, int]:
    return hello.host, hello.pid


def _mismatch(hello: Hello) -> str:
    return (
        f"this control plane ({RELEASE}) speaks protocol {PROTOCOL_VERSION}, {hello.name} "
        f"({hello.release or 'unknown release'}) speaks {hello.version}: use the same release on both"
    )


def cancel_timer(timer: asyncio.TimerHandle | None) -> None:
    """Cancel a timer if there is one."""
    if timer is not None:
        timer.cancel()
