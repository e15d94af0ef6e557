"""The cluster key, and the keys of roles that follow from it. Pure: no files, no sockets.

The cluster key is 32 random bytes; who holds it may do everything. From it follow three role keys by HKDF (RFC 5869):

- `client`: submit, watch, ask, cancel and retry tasks.
- `worker`: that, and register as a worker.
- `admin`: everything. Who holds the cluster key connects as admin.

A machine that is given a role key alone can compute neither another role's key nor the cluster key from it.

How the control plane knows who is at the other end of a connection: TLS runs with the role key as pre-shared key, under
an identity that names the role and the key; so several keys are accepted at once, by role and during a rotation. NNG
does not say which of them a connection used. So the control plane sends 32 random bytes (`Challenge`) as the first
message of each connection, and the peer answers with their HMAC under its role key (`Proof`). That is safe because

- a proof is good for one connection only: it answers bytes that were never used before, so none can be replayed;
- nobody can have somebody else answer for him: a peer proves itself only inside TLS that was opened with that same
  role key, so whoever asks it for a proof could have made that proof alone.

The other ways were a listener for each role (three ports), and a password in `Hello` (good for ever, once seen).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final, Literal, Self, get_args

from fastworker.errors import ConfigurationError

KeyRole = Literal["client", "worker", "admin"]

KEY_BYTES: Final = 32
MOST_KEYS: Final = 2
"""Cluster keys that are accepted at once: the new one and the one before it."""


def new_nonce() -> str:
    """Bytes for a challenge that were never used before."""
    return secrets.token_hex(32)


def hkdf(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose from a secret: HKDF with SHA-256, without salt (RFC 5869)."""
    return expand(extract(b"", secret), purpose.encode(), KEY_BYTES)


def extract(salt: bytes, secret: bytes) -> bytes:
    """The first half of HKDF."""
    return hmac.digest(salt or bytes(hashlib.sha256().digest_size), secret, "sha256")


def expand(pseudorandom: bytes, info: bytes, length: int) -> bytes:
    """The second half of HKDF."""
    block = output = b""
    for number in range(1, -(-length // hashlib.sha256().digest_size) + 1):
        block = hmac.digest(pseudorandom, block + info + bytes([number]), "sha256")
        output += block
    return output[:length]


@dataclass(frozen=True, slots=True)
class Key:
    """A cluster key, or the key of one role.

    Attributes:
        role: None for a cluster key.
        secret: never shown, logged or sent.
    """

    role: KeyRole | None
    secret: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """A new cluster key."""
        return cls(None, secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The key that `text` is: 64 hexadecimal digits, with `client:`, `worker:` or `admin:` before a role's.

        Raises:
            ConfigurationError: it is none; the message does not repeat it.
        """
        said, _, digits = text.strip().rpartition(":")
        role = next((role for role in get_args(KeyRole) if role == said), None)
        try:
            secret = bytes.fromhex(digits)
        except ValueError:
            secret = b""
        if len(secret) != KEY_BYTES or (said and role is None):
            raise ConfigurationError(
                f"the cluster key must be {2 * KEY_BYTES} hexadecimal digits, "
                "or those of a role's key after client:, worker: or admin:"
            )
        return cls(role, secret)

    @property
    def text(self) -> str:
        """What `from_text` reads. It is the secret."""
        return f"{self.role}:{self.secret.hex()}" if self.role else self.secret.hex()

    @property
    def id(self) -> str:
        """Names the key without telling anything of it."""
        return hkdf(self.secret, "fastworker key id")[:8].hex()

    def of(self, role: KeyRole) -> Key:
        """The key of a role.

        Raises:
            ConfigurationError: this is another role's key.
        """
        if self.role not in (None, role):
            raise ConfigurationError(
                f"a key of role {role!r} follows from the cluster key only; this one is a {self.role}'s"
            )
        return self if self.role else Key(role, hkdf(self.secret, f"fastworker role {role}"))

    def for_dialing(self) -> Key:
        """The role key with which a peer that holds this key connects."""
        return self if self.role else self.of("admin")

    # ---- what a role key is for ----------------------------------------------------------------------------------

    @property
    def identity(self) -> str:
        """Its name in the TLS handshake, where everybody can read it."""
        return f"{self.role}-{self.id}"

    @property
    def pre_shared(self) -> bytes:
        """The pre-shared key of TLS."""
        return hkdf(self.secret, "fastworker tls")

    @property
    def discovery(self) -> bytes:
        """The key that signs queries and answers of `fastworker.discovery`."""
        return hkdf(self.secret, "fastworker discovery")

    def proof(self, nonce: str) -> str:
        """The answer to a challenge."""
        return hmac.digest(hkdf(self.secret, "fastworker proof"), nonce.encode(), "sha256").hex()

    def is_proof(self, proof: str, nonce: str) -> bool:
        """Whether that is this key's answer to a challenge."""
        return hmac.compare_digest(proof.encode(), self.proof(nonce).encode())


def role_keys(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """All role keys of these cluster keys: what a control plane accepts.

    Raises:
        ConfigurationError: one of them is no cluster key.
    """
    for key in keys:
        if key.role is not None:
            raise ConfigurationError(
                f"a control plane needs the cluster key itself, this is a {key.role}'s key: "
                "unset FASTWORKER_KEY to use the key file, or give it the cluster key"
            )
    return tuple(key.of(role) for key in keys for role in get_args(KeyRole))
