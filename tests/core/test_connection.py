"""A peer's connection: one session after another, over whatever happens to sockets and control planes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fastworker.connection import SENT_TOGETHER, Connection, refusal
from fastworker.errors import (
    ConnectionFailed,
    NotAllowed,
    PayloadTooLarge,
    ProtocolMismatch,
    UnknownTask,
)
from fastworker.errors import Refused as RefusedError
from fastworker.keys import Key
from fastworker.protocol import (
    PROTOCOL_VERSION,
    Answer,
    Cancel,
    Frame,
    Goodbye,
    Hello,
    Message,
    RefusalCode,
    Refused,
    Watch,
    Welcome,
    encode,
)
from fastworker.session import WINDOW
from tests.core.eventually import eventually, for_a_while
from tests.core.fake_control_plane import FakeControlPlane


class Client:
    """A connection, and all that came through it."""

    def __init__(self, url: str, key: Key | None = None) -> None:
        self.got: list[Message] = []
        self.welcomes: list[Welcome] = []
        self.at_welcome: Callable[[], None] = lambda: None
        self.connection = Connection(url, key, hello=self._hello, on_message=self.got.append, on_welcome=self._welcomed)

    def _hello(self) -> Hello:
        return Hello("client", PROTOCOL_VERSION, "me")

    def _welcomed(self, welcome: Welcome) -> None:
        self.welcomes.append(welcome)
        self.at_welcome()


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[FakeControlPlane]:
    """A control plane that listens."""
    plane = FakeControlPlane(f"ipc://{tmp_path}/s").start()
    yield plane
    plane.stop()


@pytest.fixture
async def client(plane: FakeControlPlane) -> AsyncIterator[Client]:
    """A client that is welcome."""
    client = Client(plane.url)
    await client.connection.open(10)
    yield client
    await client.connection.close(0.2)


# ---- begin and end -------------------------------------------------------------------------------------------


async def test_a_connection_introduces_itself_and_is_welcomed(plane: FakeControlPlane, client: Client) -> None:
    assert plane.hellos == [Hello("client", PROTOCOL_VERSION, "me")]
    assert client.welcomes == [Welcome("instance", "release")]
    assert client.connection.connected


async def test_what_is_said_on_both_sides_arrives_in_order(plane: FakeControlPlane, client: Client) -> None:
    for n in range(200):
        client.connection.post(Cancel(n, "id"))
        if n % 50 == 0:
            plane.say(Answer(n))
    await eventually(lambda: len(plane.got) == 200)
    assert plane.got == [Cancel(n, "id") for n in range(200)]
    await eventually(lambda: client.got == [Answer(n) for n in range(0, 200, 50)])


async def test_the_first_words_of_a_turn_go_at_once_and_the_rest_together(
    plane: FakeControlPlane, client: Client
) -> None:
    assert await client.connection.settle(5)
    before = plane.frames
    for n in range(1000):
        client.connection.post_item(Watch, str(n))
    await eventually(lambda: plane.got and plane.got[-1] == Watch([str(n) for n in range(1, 1000)]))
    assert plane.got == [Watch(["0"]), Watch([str(n) for n in range(1, 1000)])]
    assert plane.frames == before + 2


async def test_who_says_much_in_one_turn_is_heard_before_it_ends(plane: FakeControlPlane, client: Client) -> None:
    """A few messages in each frame, while the window is open."""
    assert await client.connection.settle(5)
    before = plane.frames
    said = [Cancel(n, "id") for n in range(4 * SENT_TOGETHER)]
    for message in said:
        client.connection.post(message)
    await eventually(lambda: plane.got == said)
    assert plane.frames == before + 5  # the first message alone, and four times what goes together


async def test_nobody_there_is_a_timeout_and_leaves_nothing_open(tmp_path: Path) -> None:
    client = Client(f"ipc://{tmp_path}/nobody")
    with pytest.raises(TimeoutError):
        await client.connection.open(0.1)
    with pytest.raises(ConnectionResetError, match="closed"):
        client.connection.post(Goodbye())
    await client.connection.close()


async def test_a_control_plane_that_does_not_answer_is_a_timeout(plane: FakeControlPlane) -> None:
    plane.welcomes = False
    client = Client(plane.url)
    with pytest.raises(TimeoutError):
        await client.connection.open(0.2)


async def test_an_open_that_is_cancelled_closes_its_socket(tmp_path: Path) -> None:
    client = Client(f"ipc://{tmp_path}/nobody")
    opening = asyncio.ensure_future(client.connection.open(None))
    await eventually(lambda: hasattr(client.connection, "_dialer"))
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert client.connection._dialer.closed


async def test_a_control_plane_that_comes_late_is_found(tmp_path: Path) -> None:
    client = Client(f"ipc://{tmp_path}/s")
    opening = asyncio.ensure_future(client.connection.open(10))
    plane = FakeControlPlane(client.connection.url)
    await for_a_while(0.05)
    plane.start()
    await opening
    await client.connection.close()
    plane.stop()


async def test_a_close_says_goodbye_and_waits_until_all_has_been_received(plane: FakeControlPlane) -> None:
    client = Client(plane.url)
    await client.connection.open(10)
    for n in range(50):
        client.connection.post(Cancel(n, "id"))
    await client.connection.close()
    assert plane.got == [*(Cancel(n, "id") for n in range(50)), Goodbye()]
    await client.connection.close()
    with pytest.raises(ConnectionResetError):
        client.connection.post(Goodbye())


async def test_a_close_does_not_wait_for_ever(plane: FakeControlPlane, client: Client) -> None:
    plane.stop()
    await eventually(lambda: not client.connection.connected)
    await asyncio.wait_for(client.connection.close(), 5)


# ---- settle --------------------------------------------------------------------------------------------------


async def test_settled_is_when_all_that_was_said_has_been_received(plane: FakeControlPlane, client: Client) -> None:
    for n in range(20):
        client.connection.post(Cancel(n, "id"))
    assert await client.connection.settle(10)
    assert len(plane.got) == 20


async def test_settling_has_an_end_when_nobody_listens(plane: FakeControlPlane, client: Client) -> None:
    plane.stop()
    await eventually(lambda: not client.connection.connected)
    client.connection.post(Cancel(1, "id"))
    assert not await client.connection.settle(0.1)


# ---- the way back --------------------------------------------------------------------------------------------


async def test_the_session_goes_on_over_a_new_connection(plane: FakeControlPlane, client: Client) -> None:
    assert await client.connection.settle(5)
    [session] = plane.sessions
    plane.disconnect()
    await eventually(lambda: not client.connection.connected)
    client.connection.post(Cancel(1, "id"))
    await eventually(lambda: plane.got == [Cancel(1, "id")])
    assert list(plane.sessions) == [session]
    assert len(client.welcomes) == 1


async def test_what_was_under_way_when_the_connection_broke_arrives_once(
    plane: FakeControlPlane, client: Client
) -> None:
    for n in range(300):
        client.connection.post(Cancel(n, "id"))
        if n % 60 == 0:
            plane.disconnect()
            await eventually(lambda: client.connection.connected)
        await asyncio.sleep(0)
    await eventually(lambda: len(plane.got) >= 300)
    assert plane.got == [Cancel(n, "id") for n in range(300)]


async def test_a_control_plane_that_forgot_us_is_introduced_to_again(plane: FakeControlPlane, client: Client) -> None:
    assert await client.connection.settle(5)
    plane.forget()
    client.connection.post(Cancel(1, "id"))
    await eventually(lambda: len(client.welcomes) == 2)
    assert len(plane.hellos) == 2
    assert plane.got == []  # whoever said it says it again
    client.connection.post(Cancel(2, "id"))
    await eventually(lambda: plane.got == [Cancel(2, "id")])


async def test_after_a_restart_the_peer_says_again_what_still_counts(plane: FakeControlPlane, client: Client) -> None:
    client.at_welcome = lambda: client.connection.post(Cancel(1, "id"))
    assert await client.connection.settle(5)
    plane.stop()
    plane.forget()
    await eventually(lambda: not client.connection.connected)
    plane.start()
    await eventually(lambda: plane.got == [Cancel(1, "id")])
    assert len(plane.hellos) == 2


async def test_a_silent_peer_notices_a_restart_too(plane: FakeControlPlane, client: Client) -> None:
    """It asks after a reconnect whether it is still known, so that a waiting client gets its result."""
    assert await client.connection.settle(5)
    plane.stop()
    plane.forget()
    plane.start()
    await eventually(lambda: len(client.welcomes) == 2)


async def test_a_peer_whose_welcome_was_lost_with_the_control_plane_is_welcomed_by_the_next(
    plane: FakeControlPlane,
) -> None:
    """The introduction was acknowledged, so it is not sent again by itself."""
    plane.welcomes = False
    client = Client(plane.url)
    opening = asyncio.ensure_future(client.connection.open(10))
    await eventually(lambda: plane.hellos and client.connection._session.idle)
    plane.stop()
    plane.forget()
    plane.welcomes = True
    plane.start()
    await opening
    assert len(plane.hellos) == 2
    await client.connection.close()


async def test_more_than_a_window_waits_for_a_control_plane_that_is_away(
    plane: FakeControlPlane, client: Client
) -> None:
    assert await client.connection.settle(5)
    plane.stop()
    await eventually(lambda: not client.connection.connected)
    for n in range(5 * WINDOW):
        client.connection.post(Cancel(n, "id"))
        client.connection.flush()
    assert client.connection.backlog
    plane.start()
    await eventually(lambda: len(plane.got) == 5 * WINDOW)
    assert client.connection.backlog == 0


# ---- refusals ------------------------------------------------------------------------------------------------


async def test_another_version_of_the_protocol_is_said_at_once(plane: FakeControlPlane) -> None:
    plane.refuses = Refused("version", "this control plane speaks protocol 2, you speak 1: use the same release")
    client = Client(plane.url)
    with pytest.raises(ProtocolMismatch, match="use the same release"):
        await client.connection.open(10)
    assert client.connection._dialer.closed


async def test_any_other_refusal_of_the_introduction_is_raised_too(plane: FakeControlPlane) -> None:
    plane.refuses = Refused("duplicate-worker", "another worker is called 'me'")
    client = Client(plane.url)
    with pytest.raises(RefusedError, match="another worker") as caught:
        await client.connection.open(10)
    assert caught.value.code == "duplicate-worker"


async def test_a_refusal_later_on_is_a_line_in_the_log(
    plane: FakeControlPlane, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "fastworker.connection"):
        plane.say(Refused("not-allowed", "that is for workers only"))
        await eventually(lambda: "that is for workers only" in caplog.text)
    assert client.connection.connected


async def test_a_refusal_of_a_request_goes_to_who_asked(plane: FakeControlPlane, client: Client) -> None:
    plane.say(Refused("failed", "no", request=5))
    await eventually(lambda: client.got == [Refused("failed", "no", request=5)])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("version", ProtocolMismatch),
        ("unknown-task", UnknownTask),
        ("too-large", PayloadTooLarge),
        ("malformed", RefusedError),
        ("failed", RefusedError),
        ("not-allowed", NotAllowed),
    ],
)
def test_each_code_has_its_error(code: RefusalCode, error: type[Exception]) -> None:
    raised = refusal(Refused(code, "because"))
    assert type(raised) is error
    assert str(raised) == "because"
    if isinstance(raised, ConnectionFailed):
        assert getattr(raised, "code", code) == code


# ---- what does not belong ------------------------------------------------------------------------------------


async def test_garbage_is_dropped_with_a_line_in_the_log(
    plane: FakeControlPlane, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "fastworker.connection"):
        for body in (b"", b"\xff\x00", b"{}", b'{"session":"s","seq":1,"ack":0,"items":[{"kind":"teapot"}]}'):
            plane.say_bytes(body)
        plane.say(Answer(1))
        await eventually(lambda: client.got == [Answer(1)])
    assert caplog.text.count("can't be read") == 4


async def test_a_frame_of_another_session_is_not_ours(plane: FakeControlPlane, client: Client) -> None:
    plane.say_bytes(encode(Frame("somebody-else", 2, 0, [Answer(666)])))
    plane.say(Answer(1))
    await eventually(lambda: client.got == [Answer(1)])


async def test_frames_that_come_twice_or_too_early_are_not_delivered(plane: FakeControlPlane, client: Client) -> None:
    [session] = plane.sessions
    plane.say_bytes(encode(Frame(session, 1, 0, [Answer(666)])))
    plane.say_bytes(encode(Frame(session, 99, 0, [Answer(667)])))
    plane.say(Answer(1))
    await eventually(lambda: client.got == [Answer(1)])


async def test_text_that_cannot_be_encoded_does_not_stop_what_follows(plane: FakeControlPlane, client: Client) -> None:
    client.connection.post(Cancel(1, "\udcff"))
    client.connection.post(Cancel(2, "id"))
    await eventually(lambda: plane.got == [Cancel(1, "?"), Cancel(2, "id")])
