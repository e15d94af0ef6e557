"""Who is told what happens: those who read, for as long as they do."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fastworker.protocol import PROTOCOL_VERSION, Changes, Frame, Hello, decode
from fastworker.session import Session
from fastworker_server.clock import Clock
from fastworker_server.sessions import Peer, Sessions
from fastworker_server.waiting import Waiting
from tests.server.stage import Stage


class Followers:
    """Sessions whose connections are this object: it takes whatever is sent."""

    def __init__(self, stage: Stage) -> None:
        self.frames: dict[int, list[Frame]] = {}
        self.sessions = Sessions(cast(Any, self), cast(Any, self), cast(Any, None))
        self.waiting = Waiting(stage.engine, cast(Any, None), self.sessions, Clock())

    def follow(self, number: int) -> Peer:
        """A client that follows."""
        peer = Peer(Session(), Hello("client", PROTOCOL_VERSION, f"follower {number}"), "client")
        peer.pipe = number
        self.waiting.follow(peer, None)
        return peer

    def send(self, pipe: int, body: bytes) -> bool:
        """A frame to one of them."""
        self.frames.setdefault(pipe, []).append(decode(body))
        return True

    def forgotten(self, peer: Peer) -> None:
        """A session is over."""
        self.waiting.unfollow(peer)

    def heard(self, number: int) -> int:
        """How many changes somebody was sent."""
        items = [item for frame in self.frames[number] for item in frame.items]
        return sum(len(item.items) for item in items if isinstance(item, Changes))


async def test_who_follows_and_does_not_read_is_given_up_and_the_others_are_told_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    for number in range(1000):
        stage.submit(f"t{number}")
    followers = Followers(stage)
    deaf, reader = followers.follow(1), followers.follow(2)
    for _ in range(300):
        followers.waiting.tell(stage.engine.outbox)
        followers.sessions.flush()
        reader.session.acknowledge(followers.frames[2][-1].seq, 0.0)
    assert "follower 1 does not read what it asked for" in caplog.text
    assert deaf.session.backlog <= 102
    assert followers.heard(1) < 20_000
    assert followers.heard(2) == 300_000
