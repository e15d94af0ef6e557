"""What NNG does, and what the transport makes of it: when an upgrade of pynng changes a fact, its test says so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynng
import pytest

from fastworker import forks, nng, transport
from fastworker.connection import Connection
from fastworker.errors import AddressInUse, ConfigurationError, ForkError
from fastworker.keys import Key
from fastworker.pipe import BUFFERED_MESSAGES, GREETING_OF_DIALER, LARGEST_KEPT, REQUEST_ID
from fastworker.protocol import MAX_FRAME_BYTES, Frame, Hello, Message, Refused, Welcome, decode, encode
from fastworker.session import WINDOW
from fastworker.transport import Dialer, Listener
from tests.core.eventually import eventually, for_a_while

KEY = Key("client", bytes(range(32)))
OTHER_KEY = Key("client", bytes(32))


class End:
    """One end, with all that it was told."""

    def __init__(self, socket: Listener | Dialer) -> None:
        self.socket = socket
        self.got: list[bytes] = []
        self.pipes: list[int] = []
        self.lost: list[int] = []
        self.turns = 0
        self.answers = False
        self.threads: set[int] = set()
        self.from_pipe: dict[bytes, int] = {}
        socket.open(self._message, self._connected, self._disconnected, self._turn)

    def _message(self, pipe: int, body: bytes) -> None:
        self.threads.add(threading.get_ident())
        self.from_pipe[body] = pipe
        self.got.append(body)
        if self.answers:
            say(self, body, pipe)

    def _connected(self, pipe: int) -> None:
        self.threads.add(threading.get_ident())
        self.pipes.append(pipe)

    def _disconnected(self, pipe: int) -> None:
        self.threads.add(threading.get_ident())
        self.lost.append(pipe)

    def _turn(self) -> None:
        self.turns += 1


class Net:
    """Makes ends, and closes them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ends: list[End] = []

    def listener(self, *urls: str, key: Key | None = None, **options: Any) -> End:
        end = self._end(Listener(asyncio.get_running_loop(), **options))
        for url in urls:
            end.socket.listen(url, [key] if key and url.startswith("tls") else [])  # type: ignore[union-attr]
        return end

    def dialer(self, url: str, key: Key | None = None, **options: Any) -> End:
        end = self._end(Dialer(asyncio.get_running_loop(), **options))
        end.socket.dial(url, key)  # type: ignore[union-attr]
        return end

    def _end(self, socket: Listener | Dialer) -> End:
        try:
            end = End(socket)
        except BaseException:
            socket.close()
            raise
        self.ends.append(end)
        return end

    @property
    def ipc(self) -> str:
        return f"ipc://{self.folder / 's'}"

    def close(self) -> None:
        for end in self.ends:
            end.socket.close()


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    """Ends that are closed at the end; nothing is left open."""
    before = set(forks.all_open())
    net = Net(tmp_path)
    yield net
    net.close()
    assert set(forks.all_open()) <= before


def tcp(scheme: str = "tcp") -> str:
    return f"{scheme}://127.0.0.1:{free_port()}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def say(end: End, body: bytes, pipe: int | None = None) -> bool:
    if isinstance(end.socket, Listener):
        return end.socket.send(end.pipes[-1] if pipe is None else pipe, body)
    return end.socket.send(body)


@contextlib.contextmanager
def program(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program beside us, that is dead afterwards."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


PEER = """
    import asyncio, sys
    from fastworker.transport import Dialer

    async def main():
        dialer = Dialer(asyncio.get_running_loop())
        echo, greet = lambda p, b: dialer.send(b"echo " + b), lambda p: dialer.send(b"here")
        dialer.open(echo, greet, lambda p: None, lambda: None)
        dialer.dial(sys.argv[1])
        await asyncio.Event().wait()

    asyncio.run(main())
"""

LISTENER = """
    import asyncio, sys
    from fastworker.transport import Listener

    async def main():
        listener = Listener(asyncio.get_running_loop())
        listener.open(lambda p, b: listener.send(p, b"echo " + b), lambda p: None, lambda p: None, lambda: None)
        listener.listen(sys.argv[1])
        print("listening", flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
"""


# ---- both ends -----------------------------------------------------------------------------------------------


async def test_both_ends_say_what_they_want_when_they_want(net: Net) -> None:
    listener = net.listener(net.ipc)
    dialers = [net.dialer(net.ipc) for _ in range(3)]
    await eventually(lambda: len(listener.pipes) == 3 and all(dialer.pipes for dialer in dialers))
    for number, dialer in enumerate(dialers):
        assert say(dialer, b"one from %d" % number)
        assert say(dialer, b"two from %d" % number)
    await eventually(lambda: len(listener.got) == 6)
    for number in (2, 0, 1):  # in another order, more than was asked for, and each to whom it is meant
        for word in (b"a", b"b", b"c"):
            assert say(listener, word + b" to %d" % number, listener.from_pipe[b"one from %d" % number])
    for number, dialer in enumerate(dialers):
        await eventually(lambda dialer=dialer: len(dialer.got) == 3)  # type: ignore[misc]
        assert dialer.got == [word + b" to %d" % number for word in (b"a", b"b", b"c")]


async def test_a_listener_may_speak_first(net: Net) -> None:
    listener = net.listener("inproc://first")
    dialer = net.dialer("inproc://first")
    await eventually(lambda: listener.pipes)
    assert say(listener, b"welcome")
    await eventually(lambda: dialer.got == [b"welcome"])


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
async def test_the_other_end_may_be_a_raw_socket_of_nng(scheme: str, net: Net) -> None:
    """The bytes are those of its REQ and REP."""
    url = net.ipc if scheme == "ipc" else tcp()
    listener = net.listener(url)
    with pynng.Req0(opener=pynng.lib.nng_req0_open_raw, recv_timeout=10_000) as req:
        await asyncio.to_thread(req.dial, url, block=True)
        await asyncio.to_thread(send_raw, req, b"a question")
        await eventually(lambda: listener.got == [b"a question"])
        assert say(listener, b"an answer")
        assert await asyncio.to_thread(req.recv) == b"an answer"
    listener.socket.close()
    with pynng.Rep0(opener=pynng.lib.nng_rep0_open_raw, recv_timeout=10_000) as rep:
        rep.listen(url)
        dialer = net.dialer(url)
        await eventually(lambda: dialer.pipes)
        assert say(dialer, b"another question")
        assert await asyncio.to_thread(rep.recv) == b"another question"


def send_raw(req: Any, body: bytes) -> None:
    cell = pynng.ffi.new("nng_msg **")
    pynng.lib.nng_msg_alloc(cell, 0)
    pynng.lib.nng_msg_header_append_u32(cell[0], REQUEST_ID)
    pynng.lib.nng_msg_append(cell[0], body, len(body))
    assert pynng.lib.nng_sendmsg(req.socket, cell[0], 0) == 0


async def test_a_peer_that_is_gone_is_nobody(net: Net) -> None:
    listener = net.listener(net.ipc)
    dialer = net.dialer(net.ipc)
    [pipe] = await eventually(lambda: listener.pipes)
    dialer.socket.close()
    await eventually(lambda: listener.lost == [pipe])
    assert not say(listener, b"anybody?", pipe)
    assert not say(listener, b"anybody?", 12345)
    again = net.dialer(net.ipc)
    await eventually(lambda: len(listener.pipes) == 2)
    assert say(listener, b"you")
    await eventually(lambda: again.got == [b"you"])


# ---- slow and absent peers -----------------------------------------------------------------------------------


async def test_what_cannot_be_sent_now_is_refused_at_once_and_can_be_said_again_later(net: Net) -> None:
    dialer = net.dialer(net.ipc)
    assert not say(dialer, b"early")  # nobody listens
    listener = net.listener(net.ipc)
    await eventually(lambda: say(dialer, b"late"))
    await eventually(lambda: listener.got == [b"late"])


SLOW = """
    import asyncio, sys
    from fastworker.transport import Dialer

    async def main():
        dialer = Dialer(asyncio.get_running_loop())
        got = []
        dialer.open(lambda p, b: got.append(b), lambda p: None, lambda p: None, lambda: dialer.send(b"%d" % len(got)))
        dialer.dial(sys.argv[1], key)
        await asyncio.Event().wait()

    from fastworker.keys import Key
    key = Key("client", bytes(range(32))) if sys.argv[1].startswith("tls") else None
    asyncio.run(main())
"""


@pytest.mark.parametrize("scheme", ["ipc", "tcp", "tls+tcp"])
async def test_for_a_peer_that_does_not_read_some_messages_wait_and_no_more_and_all_of_them_arrive(
    scheme: str, net: Net
) -> None:
    url = net.ipc if scheme == "ipc" else tcp(scheme)
    listener = net.listener(url, key=KEY)
    with program(SLOW, url) as peer:
        await eventually(lambda: listener.pipes, within=30)
        stop(peer)
        body = b"x" * 300_000  # more than fits into what the system keeps for a connection
        taken = 0
        while say(listener, body):
            taken += 1
            assert taken < 10 * BUFFERED_MESSAGES
        assert taken >= BUFFERED_MESSAGES - 1  # the greeting may wait, too
        peer.send_signal(signal.SIGCONT)
        await eventually(lambda: b"%d" % taken in listener.got, within=30)
        await eventually(lambda: say(listener, b"the last"))
        await eventually(lambda: b"%d" % (taken + 1) in listener.got)


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


async def test_who_hung_up_is_gone_though_there_is_more_to_hear_and_to_answer(net: Net) -> None:
    listener = net.listener(net.ipc)
    listener.answers = True
    many = [b"%d" % number for number in range(5 * WINDOW)]
    _, writer = await asyncio.open_unix_connection(net.folder / "s")
    writer.write(GREETING_OF_DIALER)
    await eventually(lambda: listener.pipes)
    writer.write(b"".join(b"\1" + message(body) for body in many))
    await writer.drain()
    writer.transport.abort()
    await eventually(lambda: listener.lost and listener.lost == listener.pipes)
    assert listener.got == many[: len(listener.got)]


async def test_within_a_process_too_some_messages_wait_and_no_more(net: Net) -> None:
    listener = net.listener("inproc://flood")
    dialer = net.dialer("inproc://flood")
    await eventually(lambda: listener.pipes)
    taken = 0
    while say(listener, b"x"):  # the loop does not turn: the peer reads nothing
        taken += 1
    assert taken == BUFFERED_MESSAGES
    await eventually(lambda: say(listener, b"end"))
    await eventually(lambda: dialer.got == [b"x"] * taken + [b"end"])


async def test_one_that_says_much_lets_the_others_speak(net: Net) -> None:
    """Of what waits, each gets its turn."""
    listener = net.listener(net.ipc)
    loud, quiet = net.dialer(net.ipc), net.dialer(net.ipc)
    await eventually(lambda: len(listener.pipes) == 2 and loud.pipes and quiet.pipes)
    for _ in range(100):
        assert say(loud, b"me")
    assert say(quiet, b"and I")
    time.sleep(0.2)  # noqa: ASYNC251 - all of it has come before the loop turns
    await eventually(lambda: len(listener.got) == 101)
    assert listener.got.index(b"and I") < 60


@pytest.mark.parametrize("scheme", ["inproc", "ipc", "tcp"])
async def test_a_window_of_frames_is_never_too_much(scheme: str, net: Net) -> None:
    url = {"inproc": "inproc://window", "ipc": net.ipc, "tcp": tcp()}[scheme]
    listener = net.listener(url)
    dialer = net.dialer(url)
    await eventually(lambda: listener.pipes and dialer.pipes)
    for _ in range(20):
        dialer.got.clear()
        listener.got.clear()
        assert all(say(listener, b"%d" % n) for n in range(WINDOW))
        assert all(say(dialer, b"%d" % n) for n in range(WINDOW))
        await eventually(lambda: len(dialer.got) == WINDOW and len(listener.got) == WINDOW)
    assert dialer.got == listener.got == [b"%d" % n for n in range(WINDOW)]


async def test_messages_that_wait_together_are_taken_in_together_and_none_is_left(net: Net) -> None:
    listener = net.listener("inproc://many")
    dialer = net.dialer("inproc://many")
    await eventually(lambda: listener.pipes and dialer.pipes)
    for n in range(100):
        assert say(dialer, b"%d" % n)
    await eventually(lambda: len(listener.got) == 100)
    assert listener.got == [b"%d" % n for n in range(100)]
    assert listener.turns < 100


# ---- sizes ---------------------------------------------------------------------------------------------------


async def test_what_is_too_large_is_refused_before_it_is_sent(net: Net) -> None:
    listener = net.listener(net.ipc, max_bytes=1000)
    dialer = net.dialer(net.ipc, max_bytes=1000)
    await eventually(lambda: listener.pipes and dialer.pipes)
    with pytest.raises(ValueError, match="a frame of 1001 bytes is over the limit of 1000"):
        say(dialer, b"x" * 1001)
    assert say(dialer, b"x" * 1000)
    await eventually(lambda: listener.got == [b"x" * 1000])


@pytest.mark.parametrize("scheme", ["ipc", "tcp", "tls+tcp"])
async def test_a_stranger_that_sends_too_much_loses_its_connection_and_nobody_else_does(scheme: str, net: Net) -> None:
    url = net.ipc if scheme == "ipc" else tcp(scheme)
    key = KEY if scheme == "tls+tcp" else None
    listener = net.listener(url, key=key, max_bytes=1000)
    good = net.dialer(url, key)
    await eventually(lambda: len(listener.pipes) == 1 and good.pipes)
    greedy = net.dialer(url, key)
    await eventually(lambda: len(listener.pipes) == 2 and greedy.pipes)
    greedy_pipe = listener.pipes[-1]
    say(greedy, b"x" * 1001)
    await eventually(lambda: greedy_pipe in listener.lost)
    assert say(good, b"still here")
    await eventually(lambda: listener.got == [b"still here"])


@pytest.mark.parametrize("scheme", ["inproc", "ipc", "tcp", "tls+tcp"])
async def test_messages_of_any_allowed_size_arrive_whole(scheme: str, net: Net) -> None:
    url = {"inproc": "inproc://sizes", "ipc": net.ipc}.get(scheme) or tcp(scheme)
    listener = net.listener(url, key=KEY)
    dialer = net.dialer(url, KEY if scheme == "tls+tcp" else None)
    await eventually(lambda: dialer.pipes and listener.pipes)
    sizes = (0, 1, 243, 244, 245, LARGEST_KEPT, 100_000, MAX_FRAME_BYTES, 5)
    sent = [os.urandom(min(size, 1000)) * (size // 1000 + 1) for size in sizes]
    sent = [body[:size] for body, size in zip(sent, sizes, strict=True)]
    for body in sent:
        assert say(dialer, body)
        assert say(listener, body)
    await eventually(lambda: listener.got == sent and dialer.got == sent, within=30)


# ---- strangers -----------------------------------------------------------------------------------------------


def message(body: bytes) -> bytes:
    return (len(body) + 4).to_bytes(8) + REQUEST_ID.to_bytes(4) + body


async def stranger(url: str, *said: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Somebody who speaks TCP, and says this piece by piece."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in said:
        writer.write(piece)
        await asyncio.sleep(0.02)
    return reader, writer


async def test_what_comes_in_pieces_is_put_together(net: Net) -> None:
    url = tcp()
    listener = net.listener(url)
    whole = GREETING_OF_DIALER + message(b"one") + message(b"two") + message(b"x" * 1000)
    _, writer = await stranger(url, *[whole[at : at + 7] for at in range(0, 70, 7)], whole[70:])
    await eventually(lambda: listener.got == [b"one", b"two", b"x" * 1000])
    writer.close()
    await eventually(lambda: listener.lost == listener.pipes)


@pytest.mark.parametrize(
    "nonsense",
    [
        (1).to_bytes(8) + b"x",
        (3).to_bytes(8) + b"xyz",
        b"\xff" * 12,
        (10).to_bytes(8) + b"\0\0\0\1abcdef",
        (MAX_FRAME_BYTES + 5).to_bytes(8) + REQUEST_ID.to_bytes(4),
    ],
)
async def test_who_says_what_is_no_message_is_heard_up_to_there(nonsense: bytes, net: Net) -> None:
    url = tcp()
    listener = net.listener(url)
    reader, writer = await stranger(url, GREETING_OF_DIALER + message(b"fine") + nonsense + b"x" * 12)
    assert await reader.read() == nng_greeting(0x31)
    assert listener.got == [b"fine"]
    await eventually(lambda: listener.lost == listener.pipes)
    assert listener.socket.refused["handshake"] == 0  # type: ignore[union-attr]
    writer.close()


def nng_greeting(protocol: int) -> bytes:
    return b"\0SP\0\0" + bytes([protocol]) + b"\0\0"


@pytest.mark.parametrize("greeting", [nng_greeting(0x10), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + b"\0" * 20])
async def test_who_greets_in_another_way_is_refused_and_counted(greeting: bytes, net: Net) -> None:
    url = tcp()
    listener = net.listener(url)
    reader, writer = await stranger(url, greeting)
    await eventually(lambda: listener.socket.refused["handshake"] == 1)  # type: ignore[union-attr]
    assert await reader.read() == nng_greeting(0x31)
    assert not listener.pipes
    assert not listener.lost
    writer.close()


async def test_who_does_not_greet_is_sent_away_in_time(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "GREETING_WITHIN", 0.2)
    url = tcp()
    listener = net.listener(url)
    reader, writer = await stranger(url, b"\0SP")
    assert await asyncio.wait_for(reader.read(), 10) == nng_greeting(0x31)
    assert not listener.pipes
    assert listener.socket.refused["stalled"] == 1  # type: ignore[union-attr]
    writer.close()


def met(listener: End) -> int:
    return len(listener.socket._greeting) + listener.socket.refused["stalled"]  # type: ignore[union-attr]


async def test_of_those_that_have_not_greeted_the_oldest_go_when_they_are_too_many(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MOST_GREETING", 3)
    url = tcp()
    listener = net.listener(url)
    strangers = []
    for number in range(5):
        strangers.append(await stranger(url))
        await eventually(lambda number=number: met(listener) == number + 1)  # type: ignore[misc]
    for reader, _ in strangers[:2]:
        assert await reader.read() == nng_greeting(0x31)
    assert listener.socket.refused["stalled"] == 2  # type: ignore[union-attr]
    for _, writer in strangers:
        writer.write(GREETING_OF_DIALER + message(b"here"))
    await eventually(lambda: len(listener.got) == 3)
    for _, writer in strangers:
        writer.close()


async def test_a_dialer_that_is_not_greeted_tries_again(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "GREETING_WITHIN", 0.1)
    met: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: met.append(writer), "127.0.0.1", 0)
    async with server:
        dialer = net.dialer(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await eventually(lambda: len(met) >= 2)
        assert not dialer.pipes
        dialer.socket.close()
        for writer in met:
            writer.close()


# ---- closing -------------------------------------------------------------------------------------------------


async def test_nothing_is_sent_or_told_after_closing(net: Net) -> None:
    listener = net.listener("inproc://closed")
    dialer = net.dialer("inproc://closed")
    await eventually(lambda: dialer.pipes)
    assert say(dialer, b"last words")
    listener.socket.close()
    listener.socket.close()
    dialer.socket.close()
    assert dialer.socket.closed
    assert not say(dialer, b"more")
    before = (list(listener.got), list(listener.lost), list(dialer.lost))
    await for_a_while()
    assert before == (listener.got, listener.lost, dialer.lost)


async def test_who_is_closed_with_more_to_tell_leaves_the_event_loop_alone(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialer = net.dialer("inproc://closed")
    turns = 0
    turn = dialer.socket._turn

    def count() -> None:
        nonlocal turns
        turns += 1
        turn()

    monkeypatch.setattr(dialer.socket, "_turn", count)
    listener = net.listener("inproc://closed")
    await eventually(lambda: listener.pipes and dialer.pipes)
    for _ in range(WINDOW):
        say(listener, b"more")
    dialer.socket.close()
    before = turns
    await for_a_while()
    assert turns < before + 10  # a few that were due already


async def test_a_close_waits_for_the_acknowledgement_because_what_was_just_sent_may_be_lost(net: Net) -> None:
    """The control plane here is slow: its acknowledgement takes its time, and `close` takes as long."""
    plane = net.listener(net.ipc)
    connection = Connection(
        net.ipc, None, hello=lambda: Hello("client", 1, "me"), on_message=lambda m: None, on_welcome=lambda w: None
    )
    opening = asyncio.ensure_future(connection.open(10))
    [hello] = [decode(body) for body in await eventually(lambda: plane.got)]
    assert say(plane, encode(Frame(hello.session, 1, 1, [Welcome("i", "r")])))
    await opening
    closing = asyncio.ensure_future(connection.close(timeout=10))
    await eventually(lambda: any(m.kind == "goodbye" for body in plane.got for m in decode(body).items))
    await for_a_while()
    assert not closing.done()
    assert say(plane, encode(Frame(hello.session, 0, 2, [])))
    await asyncio.wait_for(closing, 5)


# ---- forks ---------------------------------------------------------------------------------------------------

FORK = """
    import asyncio, os, sys, warnings
    from fastworker.errors import ForkError
    from fastworker.forks import refuse_if_forked
    from fastworker.transport import Dialer
    warnings.simplefilter("ignore")

    async def connect():
        dialer = Dialer(asyncio.get_running_loop())
        dialer.dial(sys.argv[1])
        return dialer

    def in_child(work):
        child = os.fork()
        if child == 0:
            try:
                work()
            except ForkError as error:
                os._exit(42 if "connect after the fork" in str(error) else 43)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    print("before:", in_child(lambda: asyncio.run(connect())))

    async def main():
        dialer = await connect()
        print("connected:", in_child(refuse_if_forked), in_child(lambda: Dialer(dialer._loop)))
        refuse_if_forked()
        dialer.close()
        print("closed:", in_child(refuse_if_forked))

    asyncio.run(main())
"""


@pytest.mark.parametrize("url", ["ipc:///nowhere", "tcp://127.0.0.1:9"])
def test_a_fork_after_a_socket_was_opened_is_a_clear_error_in_the_child(url: str) -> None:
    """NNG aborts there. Before, or when all sockets are closed, a fork is fine."""
    with program(FORK, url) as process:
        printed, _ = process.communicate(timeout=60)
    assert printed.splitlines() == ["before: 0", "connected: 42 42", "closed: 0"]
    assert process.returncode == 0


def test_the_fork_error_is_a_connection_error() -> None:
    assert issubclass(ForkError, ConnectionError)


# ---- threads -------------------------------------------------------------------------------------------------


THREADS = """
    import asyncio
    import os
    from pathlib import Path
    from fastworker.transport import Dialer

    def names_of_others():
        tasks = [task for task in Path("/proc/self/task").iterdir() if int(task.name) != os.getpid()]
        return [(task / "comm").read_text().strip() for task in tasks]

    async def main():
        mine = Path("/proc/self/comm").read_text().strip()
        dialer = Dialer(asyncio.get_running_loop())
        dialer.dial("tcp://127.0.0.1:9")
        while mine in (names := names_of_others()):  # a new thread has its parent's name until it runs
            await asyncio.sleep(0.01)
        print(names.count("nng:task"))
        dialer.close()

    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the names of threads")
def test_nng_has_no_more_threads_for_its_callbacks_than_were_wished() -> None:
    with program(THREADS) as process:
        printed, _ = process.communicate(timeout=60)
    assert printed == f"{nng.TASK_THREADS}\n"


# ---- events of pipes -----------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


async def test_whatever_is_told_is_told_in_the_event_loop(net: Net) -> None:
    listener = net.listener("inproc://told")
    dialer = net.dialer("inproc://told")
    await eventually(lambda: listener.pipes and dialer.pipes)
    assert say(dialer, b"a")
    await eventually(lambda: listener.got)
    dialer.socket.close()
    await eventually(lambda: listener.lost)
    assert listener.threads == {threading.get_ident()}


async def test_a_socket_may_be_closed_in_answer_to_an_event(net: Net) -> None:
    listener = net.listener("inproc://close-on-connect")
    dialer = Dialer(asyncio.get_running_loop())
    dialer.open(lambda p, b: None, lambda pipe: dialer.close(), lambda p: None, lambda: None)
    dialer.dial("inproc://close-on-connect")
    await eventually(lambda: dialer.closed)
    await eventually(lambda: listener.lost)


async def test_one_connection_can_be_closed(net: Net) -> None:
    listener = net.listener(net.ipc)
    unwanted = net.dialer(net.ipc)
    [pipe] = await eventually(lambda: listener.pipes)
    listener.socket.disconnect(pipe)  # type: ignore[union-attr]
    await eventually(lambda: unwanted.lost)
    assert pipe in listener.lost


async def test_the_user_at_the_other_end_of_an_ipc_pipe_is_known(net: Net) -> None:
    url = tcp()
    listener = net.listener(net.ipc, url)
    net.dialer(net.ipc)
    [by_ipc] = await eventually(lambda: listener.pipes)
    assert listener.socket.peer_uid(by_ipc) == os.getuid()  # type: ignore[union-attr]
    net.dialer(url)
    [by_tcp] = await eventually(lambda: listener.pipes[1:])
    assert listener.socket.peer_uid(by_tcp) is None  # type: ignore[union-attr]


async def test_a_killed_peer_is_seen_quickly(net: Net) -> None:
    listener = net.listener(net.ipc)
    with program(PEER, net.ipc) as peer:
        await eventually(lambda: listener.got == [b"here"], within=30)
        peer.kill()
        await eventually(lambda: listener.lost == listener.pipes, within=2)


async def test_a_stopped_peer_stays_connected(net: Net) -> None:
    """Why there are heartbeats and leases: the pipe alone does not tell."""
    listener = net.listener(net.ipc)
    with program(PEER, net.ipc) as peer:
        await eventually(lambda: listener.got == [b"here"], within=30)
        stop(peer)
        assert say(listener, b"1")
        for _ in range(50):
            await asyncio.sleep(0.005)
        assert not listener.lost
        assert listener.got == [b"here"]
        peer.send_signal(signal.SIGCONT)
        await eventually(lambda: listener.got == [b"here", b"echo 1"])


# ---- connecting again ----------------------------------------------------------------------------------------


async def test_a_dialer_may_come_before_the_listener(net: Net) -> None:
    dialer = net.dialer(net.ipc)
    listener = net.listener(net.ipc)
    await eventually(lambda: dialer.pipes and listener.pipes)


@pytest.mark.parametrize("scheme", ["ipc", "tcp", "tls+tcp"])
async def test_a_dialer_connects_again_when_the_listener_restarts(scheme: str, net: Net) -> None:
    url = net.ipc if scheme == "ipc" else tcp(scheme)
    key = KEY if scheme == "tls+tcp" else None
    first = net.listener(url, key=key)
    dialer = net.dialer(url, key)
    await eventually(lambda: dialer.pipes and first.pipes)
    first.socket.close()
    await eventually(lambda: dialer.lost == dialer.pipes)
    second = net.listener(url, key=key)
    await eventually(lambda: len(dialer.pipes) == 2, within=10)
    assert say(dialer, b"again")
    await eventually(lambda: second.got == [b"again"])


def is_left(url: str) -> bool:
    return Path(url.removeprefix("ipc://")).is_socket()


async def test_a_socket_file_that_a_killed_process_left_behind_is_taken_over(net: Net) -> None:
    with program(LISTENER, net.ipc) as first:
        assert first.stdout is not None
        assert await asyncio.to_thread(first.stdout.readline) == "listening\n"
        dialer = net.dialer(net.ipc)
        await eventually(lambda: dialer.pipes)
        first.kill()
        await asyncio.to_thread(first.wait, 20)
    assert is_left(net.ipc)
    second = net.listener(net.ipc)
    await eventually(lambda: len(dialer.pipes) == 2, within=10)
    assert say(dialer, b"again")
    await eventually(lambda: second.got == [b"again"])


# ---- addresses -----------------------------------------------------------------------------------------------


async def test_one_listener_serves_all_its_addresses(net: Net) -> None:
    urls = ["inproc://all", net.ipc, tcp(), tcp("tls+tcp")]
    listener = net.listener(*urls, key=KEY)
    dialers = [net.dialer(url, KEY if url.startswith("tls") else None) for url in urls]
    for dialer in dialers:
        await eventually(lambda dialer=dialer: dialer.pipes)  # type: ignore[misc]
        assert say(dialer, dialer.socket.__class__.__name__.encode())
    await eventually(lambda: listener.got == [b"Dialer"] * 4)


@pytest.mark.parametrize("scheme", ["inproc", "ipc", "tcp", "tls+tcp"])
async def test_an_address_that_another_listener_has_is_in_use(scheme: str, net: Net) -> None:
    url = {"inproc": "inproc://taken", "ipc": net.ipc}.get(scheme) or tcp(scheme)
    key = KEY if scheme == "tls+tcp" else None
    first = net.listener(url, key=key)
    with pytest.raises(AddressInUse, match="taken by another"):
        net.listener(url, key=key)
    dialer = net.dialer(url, key)
    await eventually(lambda: first.pipes and dialer.pipes)  # the first one is not harmed


async def test_a_port_that_another_program_has_is_in_use(net: Net) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(AddressInUse):
            net.listener(f"tcp://127.0.0.1:{other.getsockname()[1]}")


@pytest.mark.parametrize("url", ["http://a", "ipc://" + "x" * 200, "nonsense"])
async def test_what_nng_cannot_listen_at_is_a_configuration_error(url: str, net: Net) -> None:
    with pytest.raises(ConfigurationError, match="is not an address"):
        net.listener(url)
    with pytest.raises(ConfigurationError, match="is not an address"):
        net.dialer(url)


# ---- threads -------------------------------------------------------------------------------------------------


async def test_inproc_joins_threads_with_event_loops_of_their_own(net: Net) -> None:
    listener = net.listener("inproc://threads")
    answers: list[bytes] = []

    async def elsewhere() -> None:
        there = Net(net.folder)
        dialer = there.dialer("inproc://threads")
        await eventually(lambda: say(dialer, b"from the other thread"))
        await eventually(lambda: dialer.got)
        answers.extend(dialer.got)
        there.close()

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    await eventually(lambda: listener.got == [b"from the other thread"])
    assert say(listener, b"answer")
    await asyncio.to_thread(thread.join, 20)
    assert answers == [b"answer"]


async def test_an_event_loop_that_is_closed_is_not_told_any_more(net: Net) -> None:
    listener = net.listener(net.ipc)
    loop = asyncio.new_event_loop()
    connected = asyncio.Event()
    dialer = Dialer(loop)
    dialer.open(lambda p, b: None, lambda p: connected.set(), lambda p: None, lambda: None)

    def connect() -> None:
        dialer.dial(net.ipc)
        loop.run_until_complete(asyncio.wait_for(connected.wait(), 15))
        loop.close()

    await asyncio.to_thread(connect)
    await eventually(lambda: listener.pipes)
    assert say(listener, b"anybody?")
    listener.socket.close()
    dialer.close()


ENDS = """
    import asyncio, sys, threading
    from fastworker.transport import Dialer, Listener

    async def main(busy):
        loop = asyncio.get_running_loop()
        listener, dialer = Listener(loop), Dialer(loop)
        listener.open(lambda p, b: listener.send(p, b), lambda p: None, lambda p: None, lambda: None)
        listener.listen(sys.argv[1])
        begin = lambda pipe: (dialer.send(b"x"), busy.set())
        dialer.open(lambda p, b: dialer.send(b), begin, lambda p: None, lambda: None)
        dialer.dial(sys.argv[1])
        await asyncio.Event().wait()

    busy = threading.Event()
    threading.Thread(target=lambda: asyncio.run(main(busy)), daemon=True).start()
    busy.wait()
"""


def test_a_process_may_end_while_a_thread_of_it_is_connected(tmp_path: Path) -> None:
    """NNG panics if it is used while it ends."""
    for _ in range(3):
        with program(ENDS, f"ipc://{tmp_path / 's'}") as process:
            process.communicate(timeout=60)
        assert process.returncode == 0


# ---- the key -------------------------------------------------------------------------------------------------


async def test_the_right_key_opens(net: Net) -> None:
    url = tcp("tls+tcp")
    listener = net.listener(url, key=KEY)
    dialer = net.dialer(url, KEY)
    await eventually(lambda: dialer.pipes)
    assert say(dialer, b"secret")
    await eventually(lambda: listener.got == [b"secret"])


async def test_what_travels_is_encrypted(net: Net) -> None:
    """A tap between the two sees no word of it."""
    url = tcp("tls+tcp")
    listener = net.listener(url, key=KEY)
    seen = bytearray()

    async def tap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))

        async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    seen.extend(data)
                    to.write(data)
            to.close()

        await asyncio.gather(copy(reader, onward_writer), copy(onward_reader, writer))

    server = await asyncio.start_server(tap, "127.0.0.1", 0)
    async with server:
        dialer = net.dialer(f"tls+tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", KEY)
        await eventually(lambda: say(dialer, b"secret words"))
        await eventually(lambda: listener.got == [b"secret words"])
        dialer.socket.close()
        await eventually(lambda: listener.lost)
    assert seen
    assert b"secret words" not in seen
    assert b"words" not in seen


@pytest.mark.parametrize("wrong", ["another key", "no key", "no TLS"])
async def test_without_the_right_key_nothing_gets_through(wrong: str, net: Net) -> None:
    url = tcp("tls+tcp")
    listener = net.listener(url, key=KEY)
    match wrong:
        case "another key":
            stranger = net.dialer(url, OTHER_KEY)
        case "no key":
            stranger = net.dialer(url)
        case _:
            stranger = net.dialer(url.removeprefix("tls+"))
    say(stranger, b"let me in")
    friend = net.dialer(url, KEY)
    await eventually(lambda: say(friend, b"hello"))
    await eventually(lambda: listener.got == [b"hello"])
    await for_a_while()
    assert listener.got == [b"hello"]
    assert len(listener.pipes) == 1
    assert not stranger.pipes


async def test_strangers_that_stall_their_handshakes_do_not_keep_friends_out(net: Net) -> None:
    """NNG lets them stay for more than 15 s."""
    url = tcp("tls+tcp")
    listener = net.listener(url, key=KEY)
    port = int(url.rpartition(":")[2])
    with contextlib.ExitStack() as stalled:
        for _ in range(50):
            stalled.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        friend = net.dialer(url, KEY)
        await eventually(lambda: say(friend, b"hello"))
        await eventually(lambda: listener.got == [b"hello"])


async def test_a_listener_with_another_key_is_not_believed(net: Net) -> None:
    url = tcp("tls+tcp")
    impostor = net.listener(url, key=OTHER_KEY)
    dialer = net.dialer(url, KEY)
    say(dialer, b"my secret")
    await for_a_while()
    assert not impostor.got
    assert not dialer.pipes


# ---- the seam ------------------------------------------------------------------------------------------------


def test_the_version_that_was_measured_is_the_version_that_is_installed() -> None:
    """Another one: look at each fact above again, then raise the pin and this line."""
    assert pynng.__version__.startswith("0.9.")


def test_nothing_is_delivered_before_open() -> None:
    transport._ignore_message(1, b"")
    transport._ignore_pipe(1)
    transport._ignore_turn()


def test_a_refusal_for_no_session_is_a_frame_like_any_other() -> None:
    messages: list[Message] = [Refused("malformed", "no")]
    assert decode(encode(Frame("", 0, 0, messages))).items == messages
