"""What was measured of pynng and NNG, and what the transport makes of it.

One test or more for each row of facts in the design: when an upgrade of pynng changes a fact, its test says so.
"""

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

from fastworker import transport
from fastworker.connection import Connection
from fastworker.errors import AddressInUse, ConfigurationError, ForkError
from fastworker.keys import Key
from fastworker.protocol import MAX_FRAME_BYTES, Frame, Hello, Message, Refused, Welcome, decode, encode
from fastworker.session import WINDOW
from fastworker.transport import BUFFERED_MESSAGES, HEADER_BYTES, REQUEST_ID, Dialer, Listener
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
        self.threads: set[int] = set()
        self.from_pipe: dict[bytes, int] = {}
        socket.open(self._message, self._connected, self._disconnected, self._turn)

    def _message(self, pipe: int, body: bytes) -> None:
        self.threads.add(threading.get_ident())
        self.from_pipe[body] = pipe
        self.got.append(body)

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
    """Sockets that are closed at the end; no thread of ours is left."""
    before = set(threading.enumerate())
    net = Net(tmp_path)
    yield net
    net.close()
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "fastworker-receive"]


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


# ---- raw sockets ---------------------------------------------------------------------------------------------


def test_cooked_sockets_answer_the_last_request_only() -> None:
    """Why we use raw sockets: without contexts a second request makes REQ forget the first one."""
    with (
        pynng.Rep0(listen="inproc://cooked", recv_timeout=3000) as rep,
        pynng.Req0(dial="inproc://cooked", recv_timeout=300) as req,
    ):
        req.send(b"first")
        assert rep.recv() == b"first"
        req.send(b"second")
        rep.send(b"answer to the first")
        with pytest.raises(pynng.Timeout):
            req.recv()


async def test_both_ends_say_what_they_want_when_they_want(net: Net) -> None:
    listener = net.listener(net.ipc)
    dialers = [net.dialer(net.ipc) for _ in range(3)]
    await eventually(lambda: len(listener.pipes) == 3)
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


def test_the_request_id_ends_the_header() -> None:
    assert REQUEST_ID & 0x80000000


async def test_a_peer_that_is_gone_is_nobody(net: Net) -> None:
    listener = net.listener(net.ipc)
    dialer = net.dialer(net.ipc)
    [pipe] = await eventually(lambda: listener.pipes)
    dialer.socket.close()
    await eventually(lambda: listener.lost == [pipe])
    say(listener, b"anybody?", pipe)
    say(listener, b"anybody?", 12345)
    again = net.dialer(net.ipc)
    await eventually(lambda: len(listener.pipes) == 2)
    assert say(listener, b"you")
    await eventually(lambda: again.got == [b"you"])


# ---- buffers -------------------------------------------------------------------------------------------------


def test_the_buffers_of_pynng_hold_almost_nothing_by_default() -> None:
    with pynng.Req0(opener=pynng.lib.nng_req0_open_raw) as plain:
        assert plain.send_buffer_size <= 1
        assert plain.recv_buffer_size <= 1


async def test_the_buffers_are_set(net: Net) -> None:
    for end in (net.listener(), net._end(Dialer(asyncio.get_running_loop()))):
        assert end.socket._socket.send_buffer_size == BUFFERED_MESSAGES
        assert end.socket._socket.recv_buffer_size == BUFFERED_MESSAGES


async def test_what_cannot_be_sent_now_is_refused_at_once_and_never_waited_for(net: Net) -> None:
    dialer = net.dialer(net.ipc)  # nobody listens
    began = time.monotonic()
    taken = 0
    while say(dialer, b"x"):
        taken += 1
        assert taken < 10 * BUFFERED_MESSAGES
    assert time.monotonic() - began < 5.0
    assert taken >= WINDOW
    assert not say(dialer, b"x")


async def test_a_send_that_failed_can_be_said_again_later(net: Net) -> None:
    dialer = net.dialer(net.ipc)
    while say(dialer, b"early"):
        pass
    listener = net.listener(net.ipc)
    await eventually(lambda: listener.got)
    await eventually(lambda: say(dialer, b"late"))
    await eventually(lambda: b"late" in listener.got)


async def test_nng_drops_what_exceeds_its_queue_without_a_word(net: Net) -> None:
    """Why a session has at most a window of frames under way."""
    listener = net.listener("inproc://flood")
    dialer = net.dialer("inproc://flood")
    await eventually(lambda: listener.pipes)
    taken = sum(say(listener, b"x") for _ in range(20_000))  # the loop does not turn: the peer reads nothing
    await eventually(lambda: say(listener, b"end") and b"end" in dialer.got)
    assert dialer.got.count(b"x") < taken


@pytest.mark.parametrize("scheme", ["inproc", "ipc", "tcp"])
async def test_a_window_of_frames_is_never_too_much_for_nng(scheme: str, net: Net) -> None:
    url = {"inproc": "inproc://window", "ipc": net.ipc, "tcp": tcp()}[scheme]
    listener = net.listener(url)
    dialer = net.dialer(url)
    await eventually(lambda: listener.pipes)
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
    await eventually(lambda: listener.pipes)
    for n in range(100):
        assert say(dialer, b"%d" % n)
    await eventually(lambda: len(listener.got) == 100)
    assert listener.got == [b"%d" % n for n in range(100)]
    assert listener.turns < 100


# ---- sizes ---------------------------------------------------------------------------------------------------


def test_the_size_of_a_message_is_unlimited_by_default() -> None:
    with pynng.Rep0(opener=pynng.lib.nng_rep0_open_raw) as plain:
        assert plain.recv_max_size == 0


async def test_the_largest_message_is_set_on_every_socket_and_read_back(net: Net) -> None:
    for end in (net.listener(), net._end(Dialer(asyncio.get_running_loop()))):
        assert end.socket.max_bytes == MAX_FRAME_BYTES
        assert end.socket._socket.recv_max_size == MAX_FRAME_BYTES + HEADER_BYTES


async def test_a_limit_that_nng_does_not_take_is_not_overlooked(net: Net) -> None:
    """pynng 0.9.0 swallows the errors of a setter."""
    end = net.listener()

    class Deaf:
        recv_max_size = property(lambda self: 0, lambda self, value: None)

    real, end.socket._socket = end.socket._socket, Deaf()
    try:
        with pytest.raises(ConfigurationError, match="NNG did not take recv_max_size=5"):
            end.socket._set_limit("recv_max_size", 5)
    finally:
        end.socket._socket = real


async def test_what_is_too_large_is_refused_before_it_is_sent(net: Net) -> None:
    listener = net.listener(net.ipc, max_bytes=1000)
    dialer = net.dialer(net.ipc, max_bytes=1000)
    await eventually(lambda: listener.pipes)
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
    await eventually(lambda: len(listener.pipes) == 1)
    greedy = net.dialer(url, key)
    await eventually(lambda: len(listener.pipes) == 2)
    greedy_pipe = listener.pipes[-1]
    say(greedy, b"x" * 1001)
    await eventually(lambda: greedy_pipe in listener.lost)
    assert say(good, b"still here")
    await eventually(lambda: listener.got == [b"still here"])


@pytest.mark.parametrize("size", [0, 1, 100_000, MAX_FRAME_BYTES])
async def test_messages_of_any_allowed_size_arrive_whole(size: int, net: Net) -> None:
    listener = net.listener(net.ipc)
    dialer = net.dialer(net.ipc)
    body = os.urandom(min(size, 1000)) * (size // 1000 + 1)
    assert say(dialer, body[:size])
    await eventually(lambda: listener.got == [body[:size]])


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


async def test_a_close_waits_for_the_acknowledgement_because_nng_may_lose_what_was_just_sent(net: Net) -> None:
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
    from fastworker.transport import Dialer, refuse_if_forked
    warnings.simplefilter("ignore")

    async def connect():
        Dialer(asyncio.get_running_loop()).close()

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
        dialer = Dialer(asyncio.get_running_loop())
        print("connected:", in_child(refuse_if_forked), in_child(lambda: Dialer(dialer._loop)))
        refuse_if_forked()
        dialer.close()
        print("closed:", in_child(refuse_if_forked))

    asyncio.run(main())
"""


def test_a_fork_after_a_socket_was_opened_is_a_clear_error_in_the_child() -> None:
    """NNG aborts there. Before, or when all sockets are closed, a fork is fine."""
    with program(FORK) as process:
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
    assert printed == f"{transport.TASK_THREADS}\n"


# ---- events of pipes -----------------------------------------------------------------------------------------


def test_nng_calls_back_on_a_thread_of_its_own() -> None:
    threads: list[int] = []
    with pynng.Rep0(listen="inproc://callbacks") as rep:
        rep.add_post_pipe_connect_cb(lambda pipe: threads.append(threading.get_ident()))
        with pynng.Req0(dial="inproc://callbacks"):
            wait_until(lambda: threads)
    assert threads[0] != threading.get_ident()


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
    """Inside NNG's own callback that would deadlock."""
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
        peer.send_signal(signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{peer.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
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
    with pytest.raises(AddressInUse, match="taken by another process"):
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
        assert say(dialer, b"from the other thread")
        await eventually(lambda: dialer.got)
        answers.extend(dialer.got)
        there.close()

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    await eventually(lambda: listener.got == [b"from the other thread"])
    assert say(listener, b"answer")
    await asyncio.to_thread(thread.join, 20)
    assert answers == [b"answer"]


class LoopWithoutReaders(asyncio.SelectorEventLoop):
    """An event loop like Windows' proactor: it can't watch file descriptors."""

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
        if getattr(callback, "__name__", "") == "_receive_turn":
            raise NotImplementedError
        return super().add_reader(fd, callback, *args)


def test_without_add_reader_a_thread_receives(tmp_path: Path) -> None:
    async def story() -> None:
        net = Net(tmp_path)
        listener = net.listener(net.ipc)
        dialer = net.dialer(net.ipc)
        await eventually(lambda: listener.pipes)
        receivers = [thread for thread in threading.enumerate() if thread.name == "fastworker-receive"]
        assert len(receivers) == 2
        for n in range(100):
            assert say(dialer, b"%d" % n)
            assert say(listener, b"%d" % n)
            await eventually(lambda n=n: len(listener.got) > n and len(dialer.got) > n)  # type: ignore[misc]
        assert listener.got == dialer.got == [b"%d" % n for n in range(100)]
        assert listener.threads == {threading.get_ident()}
        assert listener.turns >= 1
        net.close()
        assert not any(thread.is_alive() for thread in receivers)

    with asyncio.Runner(loop_factory=LoopWithoutReaders) as runner:
        runner.run(story())


async def test_an_event_loop_that_is_closed_is_not_told_any_more(net: Net) -> None:
    listener = net.listener(net.ipc)
    loop = asyncio.new_event_loop()
    dialer = Dialer(loop)
    dialer.open(lambda p, b: None, lambda p: None, lambda p: None, lambda: None)
    dialer.dial(net.ipc)
    await eventually(lambda: listener.pipes)
    loop.remove_reader(dialer._fd)
    loop.close()
    listener.socket.close()
    dialer._receiver = threading.Thread()  # the loop has no reader any more that could be removed
    dialer._receiver.start()
    dialer.close()


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
        assert say(dialer, b"secret words")
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
    assert say(friend, b"hello")
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
        assert say(friend, b"hello")
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


def test_the_calls_of_pynng_that_leak_or_wait_are_not_used() -> None:
    """A cancelled `asend` leaks its payload, and a cancelled `arecv` may lose a message."""
    source = Path(transport.__file__).read_text(encoding="utf-8")
    assert not [call for call in (".asend(", ".arecv(", ".arecv_msg(", ".recv(", ".send_msg(") if call in source]
    assert source.count("nng_sendmsg(self._socket.socket, message, _lib.NNG_FLAG_NONBLOCK)") == source.count(
        "nng_sendmsg("
    )


def test_nothing_is_delivered_before_open() -> None:
    transport._ignore_message(1, b"")
    transport._ignore_pipe(1)
    transport._ignore_turn()


def test_a_refusal_for_no_session_is_a_frame_like_any_other() -> None:
    messages: list[Message] = [Refused("malformed", "no")]
    assert decode(encode(Frame("", 0, 0, messages))).items == messages
