"""Who may do what: passwords, sessions that live on the server, roles."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["viewer", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "admin")
SESSION_LASTS: Final = 12 * 3600.0
MOST_SESSIONS: Final = 10_000
COOKIE: Final = "fastworker_session"
_SCRYPT: Final = {"n": 2**14, "r": 8, "p": 1}
"""16 MiB and about 50 ms for each guess (RFC 7914)."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who was let in. `name` is for the audit."""

    role: Role
    name: str

    def may(self, role: Role) -> bool:
        """Whether the role is enough."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Access:
    """Lets people in.

    Args:
        passwords: by role. Without any, everybody who gets here is an admin.
    """

    def __init__(self, passwords: Mapping[Role, str]) -> None:
        self._salt = secrets.token_bytes(16)
        self._hashes = {role: self._hash(password) for role, password in passwords.items()}
        self._sessions: dict[str, tuple[User, float]] = {}
        self._one_at_a_time = asyncio.Lock()

    @property
    def needed(self) -> bool:
        """Whether anybody has to log in."""
        return bool(self._hashes)

    def _hash(self, password: str) -> bytes:
        return hashlib.scrypt(password.encode(), salt=self._salt, **_SCRYPT)

    async def role_of(self, password: str) -> Role | None:
        """The best role that the password opens. One guess at a time, so that guessing is slow for all together."""
        async with self._one_at_a_time:
            guess = await asyncio.to_thread(self._hash, password)
        found: Role | None = None
        for role in ROLES:
            if role in self._hashes and hmac.compare_digest(guess, self._hashes[role]):
                found = role
        return found

    def begin(self, user: User) -> str:
        """A session; returns its secret, for the cookie."""
        now = time.monotonic()
        for secret in [secret for secret, (_, ends) in self._sessions.items() if ends < now]:
            del self._sessions[secret]
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        secret = secrets.token_urlsafe(32)
        self._sessions[secret] = (user, now + SESSION_LASTS)
        return secret

    def end(self, secret: str | None) -> None:
        """No more."""
        self._sessions.pop(secret or "", None)

    def user_of(self, secret: str | None) -> User | None:
        """Whose session that is."""
        if not self._hashes:
            return User("admin", "dashboard")
        user, ends = self._sessions.get(secret or "", (None, 0.0))
        return user if ends > time.monotonic() else None
