"""A control plane that does what a test tells it to: real sockets and real sessions, no engine."""

from __future__ import annotations

import asyncio
from typing import Any

from fastworker.pipe import PipeId
from fastworker.protocol import Frame, Hello, Message, Outcomes, Recorded, Refused, Token, Welcome, decode, encode
from fastworker.session import Session
from fastworker.transport import Listener


class FakeControlPlane:
    """Welcomes every peer, writes down what they say, and says what it is told to say.

    Attributes:
        welcomes: whether `Hello` is answered.
        records: whether outcomes are answered with `Recorded`.
        drop: what the next `Welcome` tells workers to drop.
        refuses: a refusal that each first frame is answered with.
        hellos: all that came.
        got: all other messages that came, in order.
        frames: how many frames brought something new.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.welcomes = True
        self.records = True
        self.drop: list[Token] = []
        self.refuses: Refused | None = None
        self.hellos: list[Hello] = []
        self.got: list[Message] = []
        self.frames = 0
        self.pipes: list[PipeId] = []
        self.sessions: dict[str, Session] = {}
        self._pipe_of: dict[str, PipeId] = {}
        self._loop = asyncio.get_running_loop()
        self._listener: Listener | None = None
        self._timer: asyncio.TimerHandle | None = None

    # ---- life ----------------------------------------------------------------------------------------------------

    def start(self) -> FakeControlPlane:
        """Listen."""
        self._listener = Listener(self._loop)
        self._listener.open(self._received, self.pipes.append, self._disconnected, self._flush)
        self._listener.listen(self.url)
        return self

    def stop(self) -> None:
        """Be gone, without a word."""
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def forget(self) -> None:
        """Lose the memory of all sessions, as a restart does."""
        self.sessions.clear()
        self._pipe_of.clear()

    def disconnect(self) -> None:
        """Break all connections; the sessions stay."""
        assert self._listener is not None
        for pipe in list(self.pipes):
            self._listener.disconnect(pipe)

    # ---- what is said --------------------------------------------------------------------------------------------

    def say(self, *messages: Message) -> None:
        """Say this to the peer that came last."""
        session = list(self.sessions.values())[-1]
        for message in messages:
            session.post(message)
        self._flush()

    def say_bytes(self, body: bytes) -> None:
        """Send this to the peer that came last, whatever it is."""
        assert self._listener is not None
        assert self._listener.send(self.pipes[-1], body)

    def heard[T](self, kind: type[T]) -> list[T]:
        """All messages of a kind that came."""
        return [message for message in self.got if isinstance(message, kind)]

    # ---- inside --------------------------------------------------------------------------------------------------

    def _disconnected(self, pipe: PipeId) -> None:
        self.pipes.remove(pipe)

    def _received(self, pipe: PipeId, body: bytes) -> None:
        frame = decode(body)
        session = self.sessions.get(frame.session)
        if session is None:
            if frame.seq != 1 or self.refuses is not None:
                refused = self.refuses or Refused("unknown-session", "who are you?")
                assert self._listener is not None
                self._listener.send(pipe, encode(Frame(frame.session, 0, 0, [refused])))
                return
            session = self.sessions[frame.session] = Session(frame.session)
        if self._pipe_of.get(frame.session, pipe) != pipe:
            session.reconnected(self._loop.time())
        self._pipe_of[frame.session] = pipe
        messages = session.receive(frame, self._loop.time())
        self.frames += bool(messages)
        for message in messages:
            self._handle(session, message)

    def _handle(self, session: Session, message: Any) -> None:
        match message:
            case Hello():
                self.hellos.append(message)
                if self.welcomes:
                    session.post(Welcome("instance", "release", self.drop))
            case Outcomes(number=number):
                self.got.append(message)
                if self.records:
                    session.post(Recorded(number))
            case _:
                self.got.append(message)

    def _flush(self) -> None:
        if self._listener is None or self._listener.closed:
            return
        now = self._loop.time()
        for name, session in self.sessions.items():
            session.tick(now)
            for body in session.outgoing(now):
                self._listener.send(self._pipe_of[name], body)
        if self._timer is not None:
            self._timer.cancel()
        due = min((session.due() for session in self.sessions.values()), default=now + 1.0)
        self._timer = self._loop.call_at(min(due, now + 1.0), self._flush)
