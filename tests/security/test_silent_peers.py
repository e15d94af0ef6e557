"""Peers that connect and say nothing, or stop in the middle: they are ended, and cost others nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fastworker import BlockingClient
from tests.security.calls import calling
from tests.security.fort import Fort, running_fort
from tests.support.stranger import HungUp, Stranger
from tests.support.waiting import Promised, until

pytestmark = pytest.mark.integration

HALF_A_HELLO = bytes.fromhex("1603010200")
"""The head of a record of TLS that does not come."""


@pytest.fixture(scope="module")
def fort(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fort]:
    with running_fort(tmp_path_factory.mktemp("fort")) as fort:
        yield fort


class Crowd:
    """Connections that stall: every third has said half of a hello. Whoever is hung up on comes again.

    Args:
        size: how many, all the time.
    """

    def __init__(self, fort: Fort, size: int) -> None:
        self.most = 0
        self._fort = fort
        self._size = size
        self._sockets: list[socket.socket] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        for sock in self._sockets:
            sock.close()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            here = [sock for sock in self._sockets if _is_open(sock)]
            self.most = max(self.most, len(here))
            self._sockets = [*here, *(self._another(number) for number in range(min(200, self._size - len(here))))]

    def _another(self, number: int) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._fort.port), timeout=10)
        sock.setblocking(False)
        if number % 3 == 0:
            sock.send(HALF_A_HELLO)
        return sock


def _is_open(sock: socket.socket) -> bool:
    try:
        said: bytes | None = sock.recv(4096)
    except BlockingIOError:
        return True
    except OSError:
        said = b""
    if not said:
        sock.close()
    return bool(said)


def play(fort: Fort, size: int, seconds: float) -> float:
    """Let so many stall for so long; the p99 of the calls that were made meanwhile."""
    process = psutil.Process(fort.program.pid)
    with Crowd(fort, size) as crowd, calling(lambda: BlockingClient(fort.url, fort.client_key.text)) as calls:
        ends = time.monotonic() + seconds
        most_descriptors = 0
        while time.monotonic() < ends:
            time.sleep(0.5)
            most_descriptors = max(most_descriptors, process.num_fds())
        assert crowd.most >= min(size, 1000) // 2
        fort.works()
    stalled = fort.refused()["stalled"]
    print(
        f"{size:,} that stall for {seconds:g} s: at most {crowd.most:,} at once, {stalled:,} ended, at most "
        f"{most_descriptors:,} descriptors; {len(calls.seconds):,} calls, p99 {calls.p99 * 1000:.1f} ms"
    )
    assert stalled > 0
    assert most_descriptors < size + 1500
    assert "Traceback" not in fort.program.log
    until(lambda: process.num_fds() < 200, 30, "the end of all that stalled")
    return calls.p99


def test_two_thousand_that_stall_keep_nobody_waiting(fort: Fort, promised: Promised) -> None:
    """A thousand may be in their handshake; the others are sent away, the oldest first."""
    assert play(fort, 2000, 6) < promised(0.1)


@pytest.mark.full
@pytest.mark.timeout(0)
def test_ten_thousand_that_stall_for_ten_minutes_keep_nobody_waiting(fort: Fort, pytestconfig: pytest.Config) -> None:
    assert play(fort, 10_000, pytestconfig.getoption("--stalled-for")) <= 0.1


def test_who_is_silent_for_ten_seconds_is_hung_up_on(fort: Fort) -> None:
    """In the handshake, before the proof, and before the hello. Who has said hello may be silent."""
    with (
        socket.create_connection(("127.0.0.1", fort.port), timeout=30) as stalled,
        Stranger.with_key(fort.url, fort.client_key) as unproved,
        Stranger.proved(fort.url, fort.client_key) as without_hello,
        Stranger(fort.cluster.url) as on_this_host,
        fort.client() as guest,
    ):
        began, before = time.monotonic(), fort.refused()
        assert stalled.recv(1) == b""
        for one in (unproved, without_hello, on_this_host):
            one.is_hung_up_on()
        assert 8 < time.monotonic() - began < 25
        guest.say_frame(guest.session, 2, {"kind": "query", "what": "stats", "request": 1}, ack=1)
        refused = guest.hears_a("answer")["data"]["refused"]
    assert refused["stalled"] > before.get("stalled", 0)
    assert refused["silent"] == before.get("silent", 0) + 3


def test_more_connections_than_allowed_are_refused_and_the_others_stay(tmp_path: Path) -> None:
    with running_fort(tmp_path, FASTWORKER_MAX_CONNECTIONS="20") as fort:
        guests = [fort.client() for _ in range(15)]
        crowd: list[Stranger] = []
        for _ in range(20):
            with suppress(HungUp):  # refused before its own end knew that it had got in
                crowd.append(Stranger.with_key(fort.url, fort.client_key))
        try:
            until(lambda: fort.refused().get("too-many-connections", 0) >= 10, what="refusals")
            for guest in guests:
                guest.say_frame(guest.session, 2, {"kind": "query", "what": "stats", "request": 1}, ack=1)
                assert guest.hears_a("answer")["request"] == 1
        finally:
            for one in (*guests, *crowd):
                one.close()
        fort.works()
