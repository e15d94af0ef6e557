"""A matrix of peers that must not get in, or not get what they ask: all refused, all counted, nothing changed."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pynng  # type: ignore[import-untyped, unused-ignore]
import pytest

from fastworker import BlockingClient
from fastworker.keys import Key
from fastworker.tasks import new_task_id
from fastworker_server.door import ANSWERED_GARBAGE
from tests.security.fort import Fort, running_fort
from tests.support.stranger import HungUp, Stranger, hello
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def fort(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fort]:
    with running_fort(tmp_path_factory.mktemp("fort")) as fort:
        yield fort


def check(fort: Fort, reason: str, attack: Callable[[Fort], None]) -> None:
    """Let somebody try; then nothing has changed, it was counted, and others go on."""
    everything, refused = fort.everything(), fort.refused()
    attack(fort)
    fort.await_refusal(refused, reason)
    assert fort.everything() == everything
    fort.works()
    assert "Traceback" not in fort.program.log


# ---- without the right key: no connection --------------------------------------------------------------------


def raw(fort: Fort, *said: bytes) -> bytes:
    """Say this over TCP, and hear what comes back."""
    heard = b""
    with socket.create_connection(("127.0.0.1", fort.port), timeout=5) as sock, contextlib.suppress(ConnectionError):
        for part in said:
            sock.sendall(part)
        while part := sock.recv(65536):
            heard += part
    return heard


def plain_http(fort: Fort) -> None:
    assert b"HTTP" not in raw(fort, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def plain_nng(fort: Fort) -> None:
    raw(fort, b"\0SP\0\0\x30\0\0", b"\0\0\0\0\0\0\0\x04\x80\0\0\1")


def noise(fort: Fort) -> None:
    raw(fort, b"\xa5" * 4096)


def endless_record(fort: Fort) -> None:
    raw(fort, b"\x16\x03\x01\xff\xff" + b"\0" * 70_000)


def python_tls(fort: Fort, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", fort.port), timeout=5) as sock:
        try:
            heard = context.wrap_socket(sock).recv(1)
        except OSError:
            heard = b""
    assert heard == b""


def refused_by_tls(fort: Fort, identity: str, secret: bytes) -> None:
    with pytest.raises(HungUp):
        Stranger(fort.url, identity, secret)


def openssl_with(fort: Fort, *options: str, said: bytes = b"") -> bytes:
    """What `openssl s_client` prints, and gets, with a client's key."""
    key = fort.client_key
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{fort.port}", "-psk_identity", key.identity]
    done = subprocess.run(
        [*command, "-psk", key.pre_shared.hex(), *options], input=said, capture_output=True, timeout=20, check=False
    )
    return done.stdout + done.stderr


def http_inside_tls(fort: Fort) -> None:
    openssl_with(fort, "-quiet", said=b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10)


def another_protocol(fort: Fort, kind: Any) -> None:
    with contextlib.suppress(HungUp), Stranger(fort.url, fort.client_key.identity, fort.client_key.pre_shared, kind):
        time.sleep(0.2)


class Tap:
    """Stands between a client and the fort, keeps what the client sends, and may change it."""

    def __init__(self, fort: Fort, change: Callable[[bytes], bytes] = lambda data: data) -> None:
        self.heard = b""
        self._change = change
        self._server = socket.create_server(("127.0.0.1", 0))
        self._onward = socket.create_connection(("127.0.0.1", fort.port))
        self.url = f"tls+tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            near, _ = self._server.accept()
            threading.Thread(target=self._copy, args=(self._onward, near, bytes), daemon=True).start()
            self._copy(near, self._onward, self._keep)

    def _keep(self, data: bytes) -> bytes:
        self.heard += data
        return self._change(data)

    def _copy(self, source: socket.socket, to: socket.socket, through: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                to.sendall(through(data))
        for sock in (source, to):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.close()
        self._onward.close()


def recording_played_again(fort: Fort) -> None:
    tap = Tap(fort)
    with contextlib.closing(tap), Stranger.with_key(tap.url, fort.client_key) as one:
        one.prove(fort.client_key)
        one.say_frame("recorded", 1, hello(), submit())
        one.hears_a("accepted")
        fort.admin.result(LAST_TASK[-1], 10)
    assert len(tap.heard) > 500
    before = fort.everything()
    raw(fort, tap.heard)
    assert fort.everything() == before


def changed_on_the_way(fort: Fort) -> None:
    """One bit of the first message is flipped: TLS notices, and nothing of it arrives."""
    change = {"now": False}

    def flip(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if change["now"] else data

    tap = Tap(fort, flip)
    with contextlib.closing(tap), Stranger.with_key(tap.url, fort.client_key) as one:
        one.hears_a("challenge")
        change["now"] = True
        one.say_frame("changed", 1, hello(), submit())
        one.is_hung_up_on()
    raw(fort, b"\xa5" * 100)  # that the pipe broke is no refusal: this one is


LAST_TASK: list[str] = []


def submit() -> dict[str, Any]:
    LAST_TASK.append(new_task_id())
    return {"kind": "submit", "request": 1, "tasks": [{"id": LAST_TASK[-1], "name": "add", "args": "[1,2]"}]}


NO_CONNECTION: dict[str, Callable[[Fort], None]] = {
    "HTTP without TLS": plain_http,
    "NNG without TLS": plain_nng,
    "noise": noise,
    "a record without end": endless_record,
    "TLS 1.3 without a key": lambda fort: python_tls(fort, ssl.TLSVersion.TLSv1_3),
    "TLS 1.2": lambda fort: python_tls(fort, ssl.TLSVersion.TLSv1_2),
    "another cluster's client key": lambda fort: refused_by_tls(fort, *tls_of(Key.new().of("client"))),
    "another cluster's admin key": lambda fort: refused_by_tls(fort, *tls_of(Key.new().of("admin"))),
    "a client's name, a guessed key": lambda fort: refused_by_tls(fort, fort.client_key.identity, bytes(32)),
    "a worker's name, a guessed key": lambda fort: refused_by_tls(fort, fort.worker_key.identity, bytes(32)),
    "an admin's name, a guessed key": lambda fort: refused_by_tls(fort, fort.admin_key.identity, bytes(32)),
    "a client's key in a worker's name": lambda fort: mixed(fort, fort.worker_key, fort.client_key),
    "a client's key in an admin's name": lambda fort: mixed(fort, fort.admin_key, fort.client_key),
    "a worker's key in an admin's name": lambda fort: mixed(fort, fort.admin_key, fort.worker_key),
    "an admin's key in a client's name": lambda fort: mixed(fort, fort.client_key, fort.admin_key),
    "the cluster key itself": lambda fort: refused_by_tls(fort, fort.admin_key.identity, fort.key.secret),
    "a role's secret instead of what follows": lambda fort: refused_by_tls(
        fort, fort.client_key.identity, fort.client_key.secret
    ),
    "a key of one byte": lambda fort: refused_by_tls(fort, fort.client_key.identity, b"k"),
    "the name of long ago": lambda fort: refused_by_tls(fort, "fastworker", fort.key.secret),
    "a name of 5,000 letters": lambda fort: refused_by_tls(fort, "n" * 5_000, bytes(32)),
    "HTTP inside TLS": http_inside_tls,
    "a recording played again": recording_played_again,
    "changed on the way": changed_on_the_way,
}


def tls_of(key: Key) -> tuple[str, bytes]:
    return key.identity, key.pre_shared


def mixed(fort: Fort, name: Key, secret: Key) -> None:
    refused_by_tls(fort, name.identity, secret.pre_shared)


@pytest.mark.parametrize("attack", NO_CONNECTION.values(), ids=NO_CONNECTION.keys())
def test_who_has_not_the_key_gets_no_connection(fort: Fort, attack: Callable[[Fort], None]) -> None:
    if attack is recording_played_again:  # its first run is a good client's, and leaves a task
        refused = fort.refused()
        attack(fort)
        fort.await_refusal(refused, "handshake")
        return
    check(fort, "handshake", attack)


@pytest.mark.parametrize("kind", [pynng.Pub0, pynng.Pair0, pynng.Push0, pynng.Surveyor0, pynng.Bus0])
def test_sockets_of_other_protocols_get_nowhere(fort: Fort, kind: Any) -> None:
    everything = fort.everything()
    another_protocol(fort, kind)
    assert fort.everything() == everything
    fort.works()


def test_tls_to_a_plain_address_is_no_connection(fort: Fort) -> None:
    everything = fort.everything()
    with pytest.raises(HungUp):
        Stranger.with_key(f"tls+{fort.plain}", fort.client_key)
    assert fort.everything() == everything
    fort.works()


# ---- with a key, and without its proof -----------------------------------------------------------------------


def unproved(*items: Any, session: str = "", seq: int = 0) -> Callable[[Fort], None]:
    def attack(fort: Fort) -> None:
        with Stranger.with_key(fort.url, fort.client_key) as one:
            one.hears_a("challenge")
            one.say_frame(session, seq, *items)
            one.is_hung_up_on()

    return attack


def proof(key_id: Callable[[Fort], str], said: Callable[[Fort, str], str]) -> Callable[[Fort], None]:
    def attack(fort: Fort) -> None:
        with Stranger.with_key(fort.url, fort.client_key) as one:
            nonce = one.hears_a("challenge")["nonce"]
            one.say_frame("", 0, {"kind": "proof", "key": key_id(fort), "proof": said(fort, nonce)})
            one.say_frame("after", 1, hello(), submit())
            one.is_hung_up_on()

    return attack


def proof_played_again(fort: Fort) -> None:
    """The very frames with which somebody got in a moment ago."""
    with Stranger.with_key(fort.url, fort.client_key) as one:
        nonce = one.hears_a("challenge")["nonce"]
        answer = {"kind": "proof", "key": fort.client_key.id, "proof": fort.client_key.proof(nonce)}
        greeting = hello()
        one.say_frame("", 0, answer)
        one.say_frame("replayed", 1, greeting)
        one.hears_a("welcome")
    with Stranger.with_key(fort.url, fort.client_key) as other:
        assert other.hears_a("challenge")["nonce"] != nonce
        other.say_frame("", 0, answer)
        other.say_frame("replayed", 1, greeting)
        other.is_hung_up_on()


def client_id(fort: Fort) -> str:
    return fort.client_key.id


WITHOUT_PROOF: dict[str, tuple[str, Callable[[Fort], None]]] = {
    "hello at once": ("no-proof", unproved(hello(), session="a", seq=1)),
    "a worker's hello at once": ("no-proof", unproved(hello("worker", slots=1), session="a", seq=1)),
    "a submission at once": ("no-proof", unproved(hello(), submit(), session="a", seq=1)),
    "an empty frame": ("no-proof", unproved()),
    "the challenge sent back": ("no-proof", unproved({"kind": "challenge", "nonce": "ab"})),
    "a welcome of its own": ("no-proof", unproved({"kind": "welcome", "instance": "me", "release": "1"})),
    "two proofs": ("no-proof", unproved(*[{"kind": "proof", "key": "a", "proof": "b"}] * 2)),
    "a key that nobody has": ("wrong-proof", proof(lambda fort: "0" * 16, lambda fort, nonce: "0" * 64)),
    "no proof in the proof": ("wrong-proof", proof(client_id, lambda fort, nonce: "")),
    "letters that are none": ("wrong-proof", proof(client_id, lambda fort, nonce: "ü\0" * 32)),
    "a megabyte of proof": ("wrong-proof", proof(client_id, lambda fort, nonce: "0" * 1_000_000)),
    "the nonce itself": ("wrong-proof", proof(client_id, lambda fort, nonce: nonce)),
    "the proof of another nonce": (
        "wrong-proof",
        proof(client_id, lambda fort, nonce: fort.client_key.proof("0" * 64)),
    ),
    "a client that says it is a worker": (
        "wrong-proof",
        proof(lambda fort: fort.worker_key.id, lambda fort, nonce: fort.client_key.proof(nonce)),
    ),
    "a client that says it is an admin": (
        "wrong-proof",
        proof(lambda fort: fort.admin_key.id, lambda fort, nonce: fort.client_key.proof(nonce)),
    ),
    "the proof of another cluster's key": (
        "wrong-proof",
        proof(client_id, lambda fort, nonce: Key.new().of("client").proof(nonce)),
    ),
    "proof and hello played again": ("wrong-proof", proof_played_again),
}


@pytest.mark.parametrize(("reason", "attack"), WITHOUT_PROOF.values(), ids=WITHOUT_PROOF.keys())
def test_who_does_not_prove_the_key_is_not_listened_to(fort: Fort, reason: str, attack: Callable[[Fort], None]) -> None:
    check(fort, reason, attack)


# ---- with the key of another role ----------------------------------------------------------------------------

EVIL = {"name": "evil", "task": "add", "timing": {"every": 60.0}}
ADMIN_ONLY: list[dict[str, Any]] = [
    {"kind": "control", "action": "pause", "queue": "default"},
    {"kind": "control", "action": "resume", "queue": "default"},
    {"kind": "control", "action": "pause", "worker": "anybody"},
    {"kind": "control", "action": "limit", "name": "add", "limits": {"max_concurrency": 1}},
    {"kind": "control", "action": "reprioritise", "task": "any", "priority": "low"},
    {"kind": "control", "action": "retry", "filter": {}},
    {"kind": "control", "action": "cancel", "filter": {}},
    {"kind": "control", "action": "delete", "filter": {}},
    {"kind": "control", "action": "stop", "name": "any"},
    {"kind": "control", "action": "note", "name": "forged", "by": "somebody else"},
    {"kind": "schedules", "action": "add", "name": "evil", "schedule": EVIL},
    {"kind": "schedules", "action": "remove", "name": "any"},
    {"kind": "schedules", "action": "run", "name": "any", "task": "0190b7e2-7c1d-7cc3-98c4-dc0c0c07398f"},
]
WORKER_ONLY: list[dict[str, Any]] = [
    hello("worker", slots=5),
    {"kind": "outcomes", "number": 1, "items": []},
    {"kind": "heartbeat"},
    {"kind": "handback", "items": [{"id": "x", "attempt": 1}]},
    {"kind": "asked", "items": [{"id": "x", "attempt": 1}]},
    {"kind": "credit", "slots": 5},
]
CONTROL_PLANE_ONLY: list[dict[str, Any]] = [
    {"kind": "welcome", "instance": "me", "release": "1"},
    {"kind": "challenge", "nonce": "00"},
    {"kind": "run", "items": []},
    {"kind": "results", "items": []},
    {"kind": "accepted", "items": [1]},
    {"kind": "recorded", "number": 9},
]


def says(message: dict[str, Any], *, worker: bool = False) -> Callable[[Fort], None]:
    def attack(fort: Fort) -> None:
        with fort.worker() if worker else fort.client() as one:
            answered = {"request": 7} if message["kind"] in ("control", "schedules") else {}
            one.say_frame(one.session, 2, {**message, **answered}, ack=1)
            refusal = one.hears_a("refused")
            assert refusal["code"] == "not-allowed"
            assert refusal.get("request") == answered.get("request"), "so that who asked is told"
            one.say_frame(one.session, 3, {"kind": "goodbye"}, ack=2)

    return attack


def named(message: dict[str, Any]) -> str:
    return " ".join(str(message[field]) for field in ("kind", "action", "role") if field in message)


@pytest.mark.parametrize("message", [*ADMIN_ONLY, *WORKER_ONLY, *CONTROL_PLANE_ONLY], ids=named)
def test_a_client_s_key_gives_no_other_right(fort: Fort, message: dict[str, Any]) -> None:
    check(fort, "not-allowed", says(message))


@pytest.mark.parametrize("message", ADMIN_ONLY, ids=named)
def test_a_worker_s_key_gives_no_orders(fort: Fort, message: dict[str, Any]) -> None:
    check(fort, "not-allowed", says(message, worker=True))


def a_client_that_registers_as_a_worker(fort: Fort) -> None:
    with Stranger.proved(fort.url, fort.client_key) as one:
        one.say_frame("w", 1, hello("worker", slots=8))
        code, text = one.hears_refusal()
        assert code == "not-allowed"
        assert "fastworker key show --role worker" in text


def a_client_that_takes_over_a_session(fort: Fort) -> None:
    """It knows the session of an admin (it can't), and goes on with it."""
    with Stranger.proved(fort.url, fort.admin_key) as admin, Stranger.proved(fort.url, fort.client_key) as client:
        admin.say_frame("the admin's", 1, hello())
        admin.hears_a("welcome")
        order = {"kind": "control", "action": "pause", "queue": "default", "request": 1}
        client.say_frame("the admin's", 2, order, ack=1)
        assert client.hears_refusal()[0] == "not-allowed"
        admin.say_frame("the admin's", 2, {"kind": "query", "what": "stats", "request": 2}, ack=1)
        assert admin.hears_a("answer")["request"] == 2, "the session is where it was"


def another_version(fort: Fort) -> None:
    with Stranger.proved(fort.url, fort.client_key) as one:
        for number in (0, 99):
            one.say_frame(f"v{number}", 1, hello(version=number))
            assert one.hears_refusal()[0] == "version"


def a_worker_of_a_name_that_is_taken(fort: Fort) -> None:
    [taken] = [worker.name for worker in fort.admin.workers()]
    with Stranger.proved(fort.url, fort.worker_key) as one:
        one.say_frame("twin", 1, {**hello("worker", slots=8), "name": taken, "host": "elsewhere", "pid": 1})
        assert one.hears_refusal()[0] == "duplicate-worker"


def garbage(fort: Fort) -> None:
    with fort.client() as one:
        one.say(b"\xff" * 100)
        assert one.hears_refusal()[0] == "malformed"


def garbage_without_end(fort: Fort) -> None:
    with fort.client() as one:
        until(lambda: one.says_until_gone(b"{"), what="the end of its patience")
        one.is_hung_up_on()


def garbage_that_is_not_answered_any_more(fort: Fort) -> None:
    with fort.client() as one:
        for _ in range(ANSWERED_GARBAGE):
            one.say(b"{")
            assert one.hears_refusal()[0] == "malformed"
        one.say(b"{")
        one.say_frame(one.session, 2, {"kind": "query", "what": "stats", "request": 1}, ack=1)
        [answer] = one.hears()["items"]
        assert answer["kind"] == "answer"


OTHERS: dict[str, tuple[str, Callable[[Fort], None]]] = {
    "a client that registers as a worker": ("not-allowed", a_client_that_registers_as_a_worker),
    "a client that takes over a session": ("not-allowed", a_client_that_takes_over_a_session),
    "another version": ("version", another_version),
    "a worker of a name that is taken": ("duplicate-worker", a_worker_of_a_name_that_is_taken),
    "garbage": ("malformed", garbage),
    "garbage without end": ("garbage", garbage_without_end),
    "garbage that is not answered any more": ("malformed", garbage_that_is_not_answered_any_more),
}


@pytest.mark.parametrize(("reason", "attack"), OTHERS.values(), ids=OTHERS.keys())
def test_who_is_known_and_does_what_must_not_be_is_refused(
    fort: Fort, reason: str, attack: Callable[[Fort], None]
) -> None:
    check(fort, reason, attack)


# ---- what is promised to those who may -----------------------------------------------------------------------


def test_the_matrix_has_enough_of_them() -> None:
    with_a_key = [*ADMIN_ONLY, *ADMIN_ONLY, *WORKER_ONLY, *CONTROL_PLANE_ONLY]
    assert len(NO_CONNECTION) + len(WITHOUT_PROOF) + len(with_a_key) + len(OTHERS) >= 80


def test_a_worker_s_key_is_enough_to_work_and_a_client_s_to_use_it(fort: Fort) -> None:
    worker = fort.cluster.worker("--url", fort.url, FASTWORKER_KEY=fort.worker_key.text)
    with BlockingClient(fort.url, fort.client_key.text) as client:
        assert client.result(client.delay("where"), 10) == worker.pid
        client.cancel(client.delay("echo", 1))
    with BlockingClient(fort.url, fort.key.text) as admin:
        admin.pause(queue="elsewhere")
        admin.resume(queue="elsewhere")
    assert worker.terminate() == 0


def test_what_is_refused_is_in_the_log_and_the_secrets_are_not(fort: Fort) -> None:
    log = fort.program.log
    assert "its proof of a key is wrong" in log
    for key in (fort.key, fort.client_key, fort.worker_key, fort.admin_key):
        assert key.secret.hex() not in log
        assert json.dumps(key.pre_shared.hex()) not in log
