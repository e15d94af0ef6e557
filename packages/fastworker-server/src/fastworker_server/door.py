"""The door: what a connection has to show before it is listened to, and how much it may say then.

A connection over `ipc` is of this user (its uid is looked at), one over `inproc` of this process, and plain `tcp` was
allowed with `--insecure`: they are admins. One over TLS is asked to prove a key first, see
`fastworker.keys`; or its certificate names its role, see `fastworker.credentials`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

from fastworker.keys import Key, KeyRole, new_nonce
from fastworker.pipe import PipeId
from fastworker.protocol import Challenge, Frame, Proof, encode
from fastworker.transport import Listener

logger = logging.getLogger("fastworker.sessions")

HANDSHAKE: Final = 10.0
"""Seconds in which a new connection has to prove its key and say hello."""
MOST_GARBAGE: Final = 1000
"""Frames that can't be read, after which a connection ends."""
ANSWERED_GARBAGE: Final = 100
"""Of these so many are answered: an answer costs more than what it answers."""
FRAMES_PER_SECOND: Final = 20_000
"""Of one connection; more are dropped unread, and the session of a peer that means well sends them again."""

_ROLES: Final[dict[str, KeyRole]] = {role: role for role in get_args(KeyRole)}


@dataclass(slots=True)
class Contact:
    """One connection.

    Attributes:
        role: what it may do; None while it has to prove its key.
        nonce: what it has to answer.
        key: the id of the key that it proved.
        since: when it came.
        ended: it was refused, and what it still says does not count.
        garbage: frames of it that could not be read.
        allowance: frames that it may send now.
        counted_at: when the allowance was last counted.
    """

    pipe: PipeId
    role: KeyRole | None
    nonce: str
    since: float
    key: str = ""
    ended: bool = False
    garbage: int = 0
    allowance: float = FRAMES_PER_SECOND
    counted_at: float = 0.0

    def may_speak(self, now: float) -> bool:
        """Whether one more frame is within the rate."""
        refilled = self.allowance + (now - self.counted_at) * FRAMES_PER_SECOND
        self.counted_at = now
        self.allowance = min(refilled, FRAMES_PER_SECOND) - 1
        if self.allowance < 0:
            self.allowance = 0
            return False
        return True


class Door:
    """Lets connections in, or not, and counts those that were refused.

    Args:
        listener: carries them.
        most: connections at once.

    Attributes:
        refused: how many connections and messages, by reason.
    """

    def __init__(self, listener: Listener, most: int) -> None:
        self.refused: Counter[str] = Counter()
        self._listener = listener
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._keys: dict[str, Key] = {}
        self._contacts: dict[PipeId, Contact] = {}
        self._silent: dict[PipeId, Contact] = {}  # no session goes over them yet; the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def accept(self, keys: Sequence[Key]) -> None:
        """From now on these role keys open it; connections with another one end."""
        self._keys = {key.id: key for key in keys}
        for contact in list(self._contacts.values()):
            if contact.key and contact.key not in self._keys:
                self._refuse(contact, "retired-key")

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    # ---- coming and going ----------------------------------------------------------------------------------------

    def contact(self, pipe: PipeId) -> Contact | None:
        """The connection; None if what it says does not count."""
        contact = self._contacts.get(pipe)
        return None if contact is None or contact.ended else contact

    def meet(self, pipe: PipeId) -> None:
        """A new connection."""
        locked = self._listener.is_locked(pipe)
        certified = self._listener.certified_name(pipe) if locked else None
        role = _ROLES.get(certified or "") if locked else "admin"
        contact = Contact(pipe, role, new_nonce(), self._loop.time())
        self._contacts[pipe] = self._silent[pipe] = contact
        uid = self._listener.peer_uid(pipe)
        if uid is not None and uid not in (0, os.getuid()):
            logger.warning("refused a connection of user %d to this user's socket", uid)
            self._refuse(contact, "other-user")
        elif len(self._contacts) > self._most:
            self._refuse(contact, "too-many-connections")
        elif certified is not None and role is None:
            self._refuse(contact, "no-role")
        elif role is None and not self._listener.send(pipe, encode(Frame("", 0, 0, [Challenge(contact.nonce)]))):
            self._refuse(contact, "busy")
        self._watch()

    def left(self, pipe: PipeId) -> None:
        """It is gone."""
        self._silent.pop(pipe, None)
        self._contacts.pop(pipe, None)

    def _refuse(self, contact: Contact, reason: str) -> None:
        """Count it, and end the connection."""
        self.refused[reason] += 1
        contact.ended = True
        self._silent.pop(contact.pipe, None)
        self._listener.disconnect(contact.pipe)

    # ---- proving and greeting ------------------------------------------------------------------------------------

    def prove(self, contact: Contact, frame: Frame) -> None:
        """The first frame of a connection that has to prove its key."""
        match frame.items:
            case [Proof(key=key_id, proof=proof)]:
                key = self._keys.get(key_id)
                if key is not None and key.is_proof(proof, contact.nonce):
                    contact.role, contact.key = key.role, key.id
                else:
                    logger.warning("refused a connection: its proof of a key is wrong")
                    self._refuse(contact, "wrong-proof")
            case _:
                self._refuse(contact, "no-proof")

    def greeted(self, contact: Contact) -> None:
        """A session goes over it."""
        self._silent.pop(contact.pipe, None)

    # ---- what takes too long, or is too much ---------------------------------------------------------------------

    def may_speak(self, contact: Contact) -> bool:
        """Whether the next frame is to be read."""
        allowed = contact.may_speak(self._loop.time())
        if not allowed:
            self.refused["too-fast"] += 1
        return allowed

    def garbage(self, contact: Contact) -> bool:
        """A frame could not be read; whether that is to be answered."""
        self.refused["malformed"] += 1
        contact.garbage += 1
        if contact.garbage > MOST_GARBAGE:
            self._refuse(contact, "garbage")
        return contact.garbage <= ANSWERED_GARBAGE

    def _watch(self) -> None:
        """Come back when the oldest silent connection has had its time."""
        if self._timer is None and self._silent:
            oldest = next(iter(self._silent.values()))
            self._timer = self._loop.call_at(oldest.since + HANDSHAKE, self._end_silent)

    def _end_silent(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = [contact for contact in self._silent.values() if now >= contact.since + HANDSHAKE]
        for contact in late:
            self._refuse(contact, "silent")
        self._watch()
