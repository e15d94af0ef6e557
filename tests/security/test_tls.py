"""What the TLS listener speaks, asked by another implementation (OpenSSL); and a rotation of the key."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from fastworker import BlockingClient
from fastworker.errors import NoControlPlane
from fastworker.keys import Key
from tests.security.fort import Fort, running_fort
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def fort(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fort]:
    with running_fort(tmp_path_factory.mktemp("fort")) as fort:
        yield fort


def handshake(fort: Fort, *options: str, key: Key | None = None) -> str:
    """What `openssl s_client` tells of it; a key is offered if there is one."""
    offered = ["-psk_identity", key.identity, "-psk", key.pre_shared.hex()] if key else []
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{fort.port}", *offered, *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


def agreed(told: str) -> tuple[str, str] | None:
    """Protocol and suite, if the handshake came to its end with the key that was offered."""
    found = re.search(r"^Reused, (\S+), Cipher is (\S+)$", told, re.MULTILINE)
    return (found[1], found[2]) if found else None


@pytest.mark.parametrize("suite", ["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"])
def test_with_the_key_it_speaks_tls_1_3_with_an_ephemeral_key(fort: Fort, suite: str) -> None:
    told = handshake(fort, "-ciphersuites", suite, key=fort.client_key)
    assert agreed(told) == ("TLSv1.3", suite)
    assert "Server Temp Key: X25519" in told


def test_an_offer_to_do_without_an_ephemeral_key_is_not_taken(fort: Fort) -> None:
    told = handshake(fort, "-allow_no_dhe_kex", key=fort.client_key)
    assert agreed(told) is not None
    assert "Server Temp Key: X25519" in told


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1", "-tls1_2"])
@pytest.mark.parametrize("ciphers", ["ALL:PSK", "PSK-AES128-CBC-SHA", "ECDHE-PSK-AES128-CBC-SHA"])
def test_older_protocols_and_their_suites_are_refused(fort: Fort, version: str, ciphers: str) -> None:
    told = handshake(fort, version, "-cipher", f"{ciphers}:@SECLEVEL=0", key=fort.client_key)
    assert agreed(told) is None
    assert "Cipher is (NONE)" in told


def test_without_a_key_there_is_no_handshake(fort: Fort) -> None:
    told = handshake(fort)
    assert agreed(told) is None
    assert "no peer certificate available" in told
    assert "Post-Handshake" not in told


def test_a_rotation_while_everything_runs(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_fort(tmp_path_factory.mktemp("fort")) as fort:
        old = fort.key.text
        worker = fort.cluster.worker("--url", fort.url, FASTWORKER_KEY=old)

        def works(text: str) -> bool:
            with BlockingClient(fort.url, text, connect_timeout=1) as client:
                return bool(client.result(client.delay("where"), 10) == worker.pid)

        def refused(text: str) -> bool:
            try:
                return not works(text)
            except NoControlPlane:
                return True

        assert works(old)
        rotated = fort.cluster.run("key", "rotate")
        assert "fastworker key retire" in rotated.out
        new = fort.cluster.run("key", "show").out.strip()
        assert Key.from_text(new).id in rotated.out
        until(lambda: not refused(new), what="the new key to open it")
        assert works(old), "and so does the old one"
        assert fort.program.alive
        with BlockingClient(fort.url, old) as connected:
            assert connected.result(connected.delay("add", 1, 1), 10) == 2
            fort.cluster.run("key", "retire")
            until(lambda: fort.refused().get("retired-key", 0) >= 2, what="the end of those with the old key")
        until(lambda: refused(old), what="the old key to open nothing")
        until(lambda: not fort.cluster.workers(), what="the worker with the old key to be gone")
        worker = fort.cluster.worker("--url", fort.url, name="of-today", FASTWORKER_KEY=new)
        assert works(new)
        path = fort.cluster.folder / "config" / "fastworker" / "key"
        path.write_text("no key at all")
        until(lambda: "the keys stay as they were" in fort.program.log, what="a complaint")
        path.unlink()
        assert not refused(new), "a file that breaks changes nothing"
        assert old not in fort.program.log
        assert new not in fort.program.log


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("make",), 2, "key rotate"),
        (("show", "--role", "king"), 2, "king"),
        (("retire",), 2, "nothing to retire"),
    ],
)
def test_the_command_says_what_to_do(fort: Fort, words: tuple[str, ...], code: int, said: str) -> None:
    done = fort.cluster.run("key", *words)
    assert done.code == code
    assert said in done.err
    assert fort.key.text not in done.out + done.err


def test_a_control_plane_needs_the_cluster_key(fort: Fort) -> None:
    done = fort.cluster.run("start", FASTWORKER_KEY=fort.worker_key.text)
    assert done.code == 2
    assert "a control plane needs the cluster key itself" in done.err
    assert fort.worker_key.secret.hex() not in done.err
