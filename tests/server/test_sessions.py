"""What a control plane does with the messages of its peers, when it does something wrong itself."""

from __future__ import annotations

import asyncio
import logging

import pytest

from fastworker.connection import Connection
from fastworker.protocol import PROTOCOL_VERSION, Answer, Cancel, Hello, Message, Query, Refused, Welcome
from fastworker.transport import Listener
from fastworker_server.door import Door
from fastworker_server.sessions import Peer, Sessions
from tests.core.eventually import eventually

URL = "inproc://clumsy"


class Clumsy:
    """Answers questions, and fails at whatever is to be cancelled."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.listener = Listener(loop)
        self.sessions = Sessions(self.listener, self, Door(self.listener, 10))
        self.sessions.open()
        self.listener.listen(URL)

    def received(self, peer: Peer, message: Message) -> None:
        """A message, in order and once."""
        match message:
            case Hello():
                self.sessions.say(peer, Welcome("clumsy", "1"))
            case Query(request=request):
                self.sessions.say(peer, Answer(request, "well"))
            case Cancel():
                raise ZeroDivisionError("it was nothing")
            case _:
                pass

    def turn_ended(self) -> None:
        """All messages that came together have been received."""
        self.sessions.flush()

    def disconnected(self, peer: Peer) -> None:
        """It went."""

    reconnected = forgotten = disconnected

    def is_given_up(self, peer: Peer) -> bool:
        """Nobody is."""
        return False

    def close(self) -> None:
        """Hang up."""
        self.sessions.close()
        self.listener.close()


async def test_a_message_that_breaks_its_handler_costs_none_of_those_that_came_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[Message] = []
    clumsy = Clumsy()
    client = Connection(
        URL,
        None,
        hello=lambda: Hello("client", PROTOCOL_VERSION, "one"),
        on_message=heard.append,
        on_welcome=lambda _: None,
    )
    try:
        await client.open(10)
        for order in (Query(1, "stats"), Query(2, "stats"), Cancel(3, "a task"), Query(4, "stats")):
            client.post(order)  # the last three go in one frame
        await eventually(lambda: len(heard) == 4)
    finally:
        await client.close()
        clumsy.close()
    text = "the control plane could not handle a cancel: ZeroDivisionError('it was nothing'); its log says more"
    assert heard == [Answer(1, "well"), Answer(2, "well"), Refused("failed", text, 3), Answer(4, "well")]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "a cancel of one could not be handled"
    assert record.exc_info is not None
