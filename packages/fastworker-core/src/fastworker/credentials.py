"""What a peer shows on a TLS address: the key of a role (`fastworker.keys`), or a certificate.

Certificates are the alternative for those who have an authority of their own. Both ends show one, signed by the one
authority of the cluster. Its common name is the role: `client`, `worker`, `admin`, or `control-plane`; and who dials
accepts only a certificate for the name `control-plane.fastworker`, so that no worker can pretend to be the control
plane. Where it listens plays no part. The control plane reads the role from the certificate, which TLS has verified.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from fastworker.addresses import LAN, is_encrypted, split
from fastworker.errors import ConfigurationError
from fastworker.key_file import accepted_keys, key_for, search_key
from fastworker.keys import Key
from fastworker.settings import Settings

CONTROL_PLANE: Final = "control-plane"
CONTROL_PLANE_HOST: Final = "control-plane.fastworker"
AUTHORITY_FILE: Final = "authority.pem"
CERTIFICATE_FILE: Final = "certificate.pem"
KEY_FILE: Final = "key.pem"


@dataclass(frozen=True, slots=True)
class Certificates:
    """The authority that is believed, one's own certificate, and the private key of that; each as PEM.

    `search_key` is no certificate: the key of a role, with which a search on the network is signed.
    """

    authority: str
    certificate: str
    key: str = field(repr=False)
    search_key: Key | None = None


Credential = Key | Certificates


def search_key_of(credential: Credential | None) -> Key | None:
    """The key with which to search the network, if there is one."""
    return credential.search_key if isinstance(credential, Certificates) else credential


def load_certificates(folder: Path) -> Certificates:
    """What the folder of a role holds, as `fastworker certs` made it.

    Raises:
        ConfigurationError: a file is missing, or others can read the private key.
    """
    found = []
    for name in (AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE):
        path = folder / name
        try:
            found.append(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{path} can't be read ({error}): `certificates` names a folder that fastworker certs made"
            ) from None
    path = folder / KEY_FILE
    if hasattr(os, "getuid") and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigurationError(f"{path} can be read by others: run `chmod 600 {path}`")
    authority, certificate, key = found
    return Certificates(authority, certificate, key)


def credential_for(url: str, settings: Settings, given: SecretStr | None = None) -> Credential | None:
    """What a peer shows at an address, if that needs anything: a key that was given goes first, then certificates."""
    places = split(url)
    searched = any(place.startswith(LAN) for place in places)
    if settings.certificates is None or given is not None or not (searched or any(map(is_encrypted, places))):
        return key_for(url, settings, given)
    certificates = load_certificates(settings.certificates)
    return replace(certificates, search_key=search_key(settings)) if searched else certificates


def accepted_credentials(settings: Settings) -> tuple[Key, ...] | Certificates:
    """What a control plane accepts at its TLS addresses."""
    if settings.certificates is not None:
        return load_certificates(settings.certificates)
    return accepted_keys(settings)
