"""Connections over unix sockets, which the event loop watches itself."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fastworker import transport
from fastworker.errors import AddressInUse, ConfigurationError, ConnectionFailed
from fastworker.pipe import GREETING_OF_DIALER, StreamPipe
from fastworker.unix_sockets import UnixStream
from tests.core.eventually import eventually, for_a_while
from tests.core.test_transport import End, Net, message, net, program, say

__all__ = ["net"]


async def test_the_socket_of_a_killed_process_is_taken_over(net: Net) -> None:
    path = net.folder / "s"
    with closing(socket.socket(socket.AF_UNIX)) as killed:
        killed.bind(str(path))
    listener, dialer = net.listener(net.ipc), net.dialer(net.ipc)
    await eventually(lambda: listener.pipes and dialer.pipes)
    listener.socket.close()
    assert not path.exists()


async def test_somebody_who_listens_but_takes_nobody_in_is_left_alone(net: Net) -> None:
    path = net.folder / "s"
    with closing(socket.socket(socket.AF_UNIX)) as busy, closing(socket.socket(socket.AF_UNIX)) as other:
        busy.bind(str(path))
        busy.listen(0)
        other.connect(str(path))
        with pytest.raises(AddressInUse):
            net.listener(net.ipc)
    assert path.is_socket()


async def test_a_file_in_the_way_is_left_alone(net: Net) -> None:
    path = net.folder / "s"
    path.write_text("mine")
    with pytest.raises(ConnectionFailed, match="a file is in the way"):
        net.listener(net.ipc)
    assert path.read_text() == "mine"


async def test_a_folder_that_there_is_not_is_named(net: Net, tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match=f"there is no folder {tmp_path / 'no'}"):
        net.listener(f"ipc://{tmp_path / 'no' / 's'}")


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 108, "é" * 54])
async def test_what_can_be_no_path_of_a_socket_is_a_configuration_error(path: str, net: Net) -> None:
    for end in (net.listener, net.dialer):
        with pytest.raises(ConfigurationError, match="is not an address"):
            end(f"ipc://{path}")


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(socket.socket()) as last:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno(), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_who_comes_while_there_are_no_descriptors_is_taken_in_later(net: Net) -> None:
    listener = net.listener(net.ipc)
    with closing(socket.socket(socket.AF_UNIX)) as waiting:
        with no_more_descriptors():
            waiting.connect(str(net.folder / "s"))
            waiting.send(GREETING_OF_DIALER)
            await for_a_while()
            assert listener.pipes == []
        await eventually(lambda: listener.pipes)


async def test_what_comes_after_a_false_alarm_is_heard(net: Net) -> None:
    """A socket may be called readable though nothing is there."""
    listener, dialer = net.listener(net.ipc), net.dialer(net.ipc)
    await eventually(lambda: listener.pipes and dialer.pipes)
    stream_of(listener)._readable()
    assert say(dialer, b"one")
    await eventually(lambda: listener.got == [b"one"])


def stream_of(end: End) -> UnixStream:
    [pipe] = end.socket._pipes.values()
    assert isinstance(pipe, StreamPipe)
    assert isinstance(pipe.stream, UnixStream)
    return pipe.stream


async def test_who_says_more_than_is_taken_waits_and_wakes_nobody(net: Net) -> None:
    """The event loop is not told again and again of what it has no place for yet."""
    listener, dialer = net.listener(net.ipc), net.dialer(net.ipc)
    await eventually(lambda: listener.pipes and dialer.pipes)
    stream = stream_of(listener)
    stream._waiting = False  # as while what has come is not taken yet
    assert say(dialer, b"early")
    await eventually(lambda: not stream._watched)
    stream.receive(stream._place, stream._start)
    await eventually(lambda: listener.got == [b"early"])


async def test_the_last_words_of_who_hung_up_are_heard_though_nothing_can_be_answered(net: Net) -> None:
    listener = net.listener(net.ipc)
    listener.answers = True
    with closing(socket.socket(socket.AF_UNIX)) as hasty:
        hasty.connect(str(net.folder / "s"))
        hasty.send(GREETING_OF_DIALER + b"\1" + message(b"my") + b"\1" + message(b"last words"))
    await eventually(lambda: listener.lost)  # whom it could not even greet
    assert listener.got == [b"my", b"last words"]


async def test_who_does_not_speak_the_protocol_is_counted_though_it_has_hung_up(net: Net) -> None:
    listener = net.listener(net.ipc)
    with closing(socket.socket(socket.AF_UNIX)) as stranger:
        stranger.connect(str(net.folder / "s"))
        stranger.send(b"GET / HTTP/1.1\r\n\r\n")
    await eventually(lambda: listener.socket.refused["handshake"] == 1)  # type: ignore[union-attr]
    assert listener.pipes == []


ABANDONED = """
    import asyncio, sys, time
    from fastworker.transport import Dialer

    async def connect():
        dialer = Dialer(asyncio.get_running_loop())
        connected = asyncio.Event()
        dialer.open(lambda p, b: None, lambda p: connected.set(), lambda p: None, lambda: None)
        dialer.dial(sys.argv[1])
        await connected.wait()
        return dialer

    dialer = asyncio.run(connect())
    print("connected", flush=True)
    sys.stdin.readline()
    before = time.process_time()
    time.sleep(1)
    print(time.process_time() - before)
"""


@pytest.mark.parametrize("watches", [True, False])
async def test_who_is_left_open_when_its_event_loop_ends_rests(
    watches: bool, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the peer has hung up, of which nobody there is told any more."""
    monkeypatch.setattr(transport, "WATCHES_UNIX_SOCKETS", watches)
    listener = net.listener(net.ipc)
    with program(ABANDONED, net.ipc) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert await asyncio.to_thread(process.stdout.readline) == "connected\n"
        await eventually(lambda: listener.pipes)
        listener.socket.close()
        process.stdin.write("\n")
        process.stdin.flush()
        used = float(await asyncio.to_thread(process.stdout.readline))
        assert used < 0.2  # of the second that it slept


# ---- where the event loop may be unable to watch them, NNG does ----------------------------------------------


@pytest.mark.parametrize("listens", [True, False])
@pytest.mark.parametrize("dials", [True, False])
async def test_either_end_may_be_watched_by_nng(
    listens: bool, dials: bool, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "WATCHES_UNIX_SOCKETS", listens)
    listener = net.listener(net.ipc)
    monkeypatch.setattr(transport, "WATCHES_UNIX_SOCKETS", dials)
    dialer = net.dialer(net.ipc)
    listener.answers = True
    await eventually(lambda: listener.pipes and dialer.pipes)
    large = b"x" * 300_000
    for body in (b"one", large, b"two"):
        assert say(dialer, body)
    await eventually(lambda: dialer.got == [b"one", large, b"two"])
    assert listener.socket.peer_uid(listener.pipes[0]) == os.getuid()  # type: ignore[union-attr]
    dialer.socket.close()
    await eventually(lambda: listener.lost)
