"""`fastworker certs`: an authority of one's own, and certificates of roles; for mutual TLS instead of keys."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fastworker.cli.output import say
from fastworker.credentials import AUTHORITY_FILE, CERTIFICATE_FILE, CONTROL_PLANE, CONTROL_PLANE_HOST, KEY_FILE
from fastworker.errors import ConfigurationError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    if not TYPE_CHECKING:
        x509 = None

AUTHORITY_KEY: str = "authority-key.pem"
CLOCK_SKEW = timedelta(minutes=5)

app = typer.Typer(help="Certificates for mutual TLS, for those who want them instead of keys.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="Where the authority is.")]
Leaf = Literal["control-plane", "client", "worker", "admin"]


@app.command()
def make(
    folder: Folder = Path("certificates"),
    days: Annotated[int, typer.Option(help="How long the authority is good.", min=1)] = 3650,
) -> None:
    """Make an authority. Its key signs whom the cluster believes: keep it where nobody else is."""
    _needs_cryptography()
    if (folder / AUTHORITY_KEY).exists():
        raise ConfigurationError(f"{folder / AUTHORITY_KEY} exists: choose another folder, or delete it")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "FastWorker authority")])
    builder = (
        _dated(x509.CertificateBuilder(), days)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    _write(folder / AUTHORITY_KEY, _private(key))
    _write(folder / AUTHORITY_FILE, _public(builder.sign(key, hashes.SHA256())))
    say(str(folder / AUTHORITY_FILE))
    say(f"next: fastworker certs issue {CONTROL_PLANE}, and for other machines worker, client or admin")


@app.command()
def issue(
    role: Annotated[Leaf, typer.Argument(help="control-plane, client, worker or admin.")],
    folder: Folder = Path("certificates"),
    days: Annotated[int, typer.Option(help="How long it is good.", min=1)] = 365,
) -> None:
    """Issue a certificate for a role, in a folder of its own that goes to the machine."""
    _needs_cryptography()
    authority, authority_key = _authority(folder)
    key = ec.generate_private_key(ec.SECP256R1())
    host = CONTROL_PLANE_HOST if role == CONTROL_PLANE else f"{role}.fastworker"
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if role == CONTROL_PLANE else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _dated(x509.CertificateBuilder(), days)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    )
    place = folder / role
    _write(place / KEY_FILE, _private(key))
    _write(place / CERTIFICATE_FILE, _public(builder.sign(authority_key, hashes.SHA256())))
    _write(place / AUTHORITY_FILE, _public(authority))
    say(f"{place}\nuse it: FASTWORKER_CERTIFICATES={place}")


def _needs_cryptography() -> None:
    if x509 is None:
        raise ConfigurationError("certificates are made with `cryptography`: pip install 'fastworker[certs]'")


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY_FILE).read_bytes())
        key = serialization.load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{folder} holds no authority ({error}): fastworker certs make") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{folder / AUTHORITY_KEY} is no key of an elliptic curve: fastworker certs make")
    return certificate, key


def _dated(builder: x509.CertificateBuilder, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    """For the owner's eyes only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
