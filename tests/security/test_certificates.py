"""Mutual TLS by certificates of one's own authority, in place of keys: who gets in, as what, and who does not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fastworker import BlockingClient
from fastworker.credentials import CONTROL_PLANE, Certificates, load_certificates
from fastworker.errors import ConfigurationError, NoControlPlane, NotAllowed
from fastworker.keys import Key
from fastworker.transport import Dialer, Listener, why_unreachable
from tests.core.eventually import eventually
from tests.support.cluster import Cluster, free_port

pytestmark = pytest.mark.integration

ROLES = (CONTROL_PLANE, "client", "worker", "admin")


class Realm:
    """A control plane that shows a certificate, and the folder of its authority."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.folder = cluster.folder / "certificates"
        assert cluster.run("certs", "make").code == 0
        for role in ROLES:
            assert cluster.run("certs", "issue", role).code == 0
        self.url = f"tls+tcp://127.0.0.1:{free_port()}"
        shown = str(self.folder / CONTROL_PLANE)
        self.program = cluster.start("--listen", self.url, listen=cluster.url, FASTWORKER_CERTIFICATES=shown)

    def of(self, role: str) -> Certificates:
        return load_certificates(self.folder / role)

    def leaf(self, name: str, *, days: float = 1, signed_by: Path | None = None) -> Certificates:
        """A certificate that `fastworker certs` would not issue."""
        folder = signed_by or self.folder
        authority = x509.load_pem_x509_certificate((folder / "authority.pem").read_bytes())
        signer = serialization.load_pem_private_key((folder / "authority-key.pem").read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        ends = datetime.now(UTC) + timedelta(days=days)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(ends - timedelta(days=30))
            .not_valid_after(ends)
            .sign(signer, hashes.SHA256())
        )
        form = serialization.PrivateFormat.PKCS8
        private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
        public = certificate.public_bytes(serialization.Encoding.PEM).decode()
        return Certificates((self.folder / "authority.pem").read_text(), public, private)

    def refused(self) -> dict[str, int]:
        return self.cluster.client.stats().refused


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    with Cluster(tmp_path_factory.mktemp("realm")) as cluster:
        yield Realm(cluster)


def test_what_was_made_is_for_its_owner_only(realm: Realm) -> None:
    assert realm.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in realm.folder.rglob("*.pem")} == {0o600}
    certificate = x509.load_pem_x509_certificate(realm.of("worker").certificate.encode())
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert isinstance(public.curve, ec.SECP256R1)
    assert realm.of("worker").key not in repr(realm.of("worker"))


def test_each_role_may_what_its_certificate_says(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = realm.cluster.worker("--url", realm.url, FASTWORKER_CERTIFICATES=str(realm.folder / "worker"))
    monkeypatch.setenv("FASTWORKER_CERTIFICATES", str(realm.folder / "client"))
    with BlockingClient(realm.url) as client:
        assert client.result(client.delay("where"), 10) == worker.pid
        with pytest.raises(NotAllowed, match="takes the key of an admin"):
            client.pause(queue="elsewhere")
    monkeypatch.setenv("FASTWORKER_CERTIFICATES", str(realm.folder / "admin"))
    with BlockingClient(realm.url) as admin:
        admin.pause(queue="elsewhere")
        admin.resume(queue="elsewhere")
    pretender = realm.cluster.program(
        "pretender", "worker", "start", "--url", realm.url, FASTWORKER_CERTIFICATES=str(realm.folder / "client")
    )
    assert pretender.wait() != 0
    assert "to register as a worker takes the key of a worker" in pretender.log
    assert worker.terminate() == 0


def another_authority(realm: Realm) -> Certificates:
    folder = realm.cluster.folder / f"another-{os.urandom(3).hex()}"
    realm.cluster.run("certs", "make", "--folder", str(folder))
    return realm.leaf("client", signed_by=folder)


def somebody_else_s_private_key(realm: Realm) -> Certificates:
    return replace(realm.of("admin"), key=realm.of("client").key)


BAD: dict[str, Callable[[Realm], Certificates]] = {
    "another authority": another_authority,
    "expired": lambda realm: realm.leaf("client", days=-1),
    "not yet good": lambda realm: realm.leaf("client", days=300),
}


@pytest.mark.parametrize("shown", BAD.values(), ids=BAD.keys())
async def test_who_shows_something_else_gets_no_connection(
    realm: Realm, shown: Callable[[Realm], Certificates]
) -> None:
    before = realm.refused()
    await asyncio.sleep(0.2)  # NNG counts one in 100 ms
    assert "refused" in await why_unreachable(realm.url, shown(realm), 5)
    await eventually(lambda: realm.refused()["handshake"] > before["handshake"])


@pytest.mark.parametrize("name", ["king", CONTROL_PLANE, "Admin", "client, CN=admin", "admin ", "admin\n"])
async def test_a_name_that_is_no_role_gets_nowhere(realm: Realm, name: str) -> None:
    before = realm.refused().get("no-role", 0)
    dialer = Dialer(asyncio.get_running_loop())
    dialer.open(*[lambda *_: None] * 4)
    dialer.dial(realm.url, realm.leaf(name))
    await eventually(lambda: realm.refused().get("no-role", 0) > before)
    dialer.close()


def test_who_shows_a_key_in_place_of_a_certificate_gets_no_connection(realm: Realm) -> None:
    with pytest.raises(NoControlPlane):
        BlockingClient(realm.url, Key.new().text, connect_timeout=0.5).start()


async def test_a_worker_s_certificate_does_not_make_a_control_plane(realm: Realm) -> None:
    """It is of the right authority, and of the wrong role: nobody believes it."""
    url = f"tls+tcp://127.0.0.1:{free_port()}"
    listener = Listener(asyncio.get_running_loop())
    try:
        got: list[bytes] = []
        listener.open(lambda _pipe, body: got.append(body), *[lambda *_: None] * 3)
        listener.listen(url, realm.of("worker"))
        assert "refused" in await why_unreachable(url, realm.of("client"), 5)
        assert not got
    finally:
        listener.close()


async def test_a_private_key_that_is_another_s_is_refused_at_once(realm: Realm) -> None:
    with pytest.raises((ConfigurationError, AssertionError)):
        assert "refused" not in await why_unreachable(realm.url, somebody_else_s_private_key(realm), 5)


def test_the_files_are_looked_at(realm: Realm, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"a folder that fastworker certs made"):
        load_certificates(tmp_path)
    for path in (realm.folder / "client").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "key.pem").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_certificates(tmp_path)
    done = realm.cluster.run("certs", "make")
    assert (done.code, "exists" in done.err) == (2, True)
    done = realm.cluster.run("certs", "issue", "client", "--folder", str(tmp_path))
    assert (done.code, "fastworker certs make" in done.err) == (2, True)
