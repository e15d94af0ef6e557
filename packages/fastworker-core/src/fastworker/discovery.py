"""Finding a control plane on the local network: the packets, and who believes which. Pure: no sockets, no clock.

Who looks for one sends a query to everybody; a control plane that was started with `--lan` answers. Both are signed
with a key that follows from a role key, so that only holders of the cluster key are answered, and only they are
believed. An answer repeats the query's nonce, which nobody has used before: a recorded one is worth nothing.

An answer is only a hint where to dial: TLS with the role key must still succeed there. It is never longer than the
query, so that nobody can have a stranger flooded with more than he sends himself, and a query is answered once.

    query   FWQ1 · nonce (16) · identity of the role key (32) · zeros · signature (32)     always 512 bytes
    answer  FWA1 · nonce (16) · length (2) · JSON of `Place`  · signature (32)             at most 512 bytes
"""

from __future__ import annotations

import functools
import hmac
import ipaddress
import secrets
import struct
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import TypeAdapter, ValidationError

from fastworker.addresses import checked, host_and_port, is_encrypted
from fastworker.errors import ConfigurationError
from fastworker.keys import Key

QUERY: Final = b"FWQ1"
ANSWER: Final = b"FWA1"
PACKET_BYTES: Final = 512
NONCE_BYTES: Final = 16
IDENTITY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 32
LONGEST_PLACE: Final = PACKET_BYTES - len(ANSWER) - NONCE_BYTES - 2 - SIGNATURE_BYTES
LONGEST_NAME: Final = 63

ANSWERS_PER_SECOND: Final = 50
"""So many searches can be answered in a second; who is not answered asks again."""
NONCES_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """A control plane, as it says itself: `instance` is made anew at each start."""

    name: str
    instance: str
    urls: tuple[str, ...]


@functools.cache
def _adapter() -> TypeAdapter[Place]:
    return TypeAdapter(Place)


def checked_name(name: str) -> str:
    """The name, if a control plane can be called so on the network.

    Raises:
        ConfigurationError: says what a name may be.
    """
    if not 0 < len(name) <= LONGEST_NAME or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in name):
        raise ConfigurationError(
            f"{name!r} can't be a name on the network: use up to {LONGEST_NAME} letters, digits, '-', '_' and '.'"
        )
    return name


class Search:
    """One search: the queries that were sent, and the answers that can be believed.

    Args:
        key: the role key of the one who looks.
        name: whom to look for; empty means any.
    """

    def __init__(self, key: Key, name: str = "") -> None:
        self._key = key
        self._name = name
        self._open: set[bytes] = set()
        self._found: dict[str, Place] = {}

    def query(self) -> bytes:
        """A new query, to be sent to everybody."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._open.add(nonce)
        identity = self._key.identity.encode().ljust(IDENTITY_BYTES, b"\0")
        return _signed((QUERY + nonce + identity).ljust(PACKET_BYTES - SIGNATURE_BYTES, b"\0"), self._key.discovery)

    def take(self, packet: bytes) -> bool:
        """Take in what came; whether it is an answer to one of these queries, by a holder of the key."""
        nonce = packet[len(ANSWER) :][:NONCE_BYTES]
        if not packet.startswith(ANSWER) or nonce not in self._open or len(packet) > PACKET_BYTES:
            return False
        place = _read_place(packet) if _is_signed(packet, self._key.discovery) else None
        if place is None:
            return False
        if self._name in ("", place.name):
            known = self._found.get(place.instance)
            urls = dict.fromkeys((*(known.urls if known else ()), *place.urls))
            self._found[place.instance] = Place(place.name, place.instance, tuple(urls))
        return True

    @property
    def found(self) -> Sequence[Place]:
        """Who has answered so far; one that answered over several networks has all its addresses."""
        return list(self._found.values())


@dataclass(slots=True)
class Answering:
    """The control plane's end: whom to answer, and what.

    Args:
        name: of the control plane.
        listen: its addresses; one for all interfaces is told as the one at which the asker sees us.
        keys: the role keys that are accepted.
    """

    name: str
    listen: Sequence[str]
    keys: Iterable[Key]
    instance: str = field(default_factory=lambda: secrets.token_hex(8))
    answered: int = 0
    _seen: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    _allowance: float = ANSWERS_PER_SECOND
    _allowed_at: float = float("-inf")
    _by_identity: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.accept(self.keys)

    def accept(self, keys: Iterable[Key]) -> None:
        """From now on these role keys are accepted."""
        self._by_identity = {key.identity.encode(): key.discovery for key in keys}

    def asked_by(self, packet: bytes, now: float) -> bytes | None:
        """The key of discovery of one who is to be answered; None for everybody else.

        A flood is mostly dropped by its form; what has the form costs one HMAC; a replay does not use up the
        allowance of those who ask anew.
        """
        if len(packet) != PACKET_BYTES or not packet.startswith(QUERY):
            return None
        nonce, rest = packet[len(QUERY) :][:NONCE_BYTES], packet[len(QUERY) + NONCE_BYTES :]
        key = self._by_identity.get(rest[:IDENTITY_BYTES].rstrip(b"\0"))
        if key is None or nonce in self._seen or not _is_signed(packet, key) or not self._may_answer(now):
            return None
        self._seen[nonce] = None
        if len(self._seen) > NONCES_REMEMBERED:
            self._seen.popitem(last=False)
        return key

    def answer(self, packet: bytes, key: bytes, our_host: str) -> bytes:
        """The answer to a query of one who sees us at `our_host`."""
        self.answered += 1
        nonce = packet[len(QUERY) :][:NONCE_BYTES]
        place = self._place(our_host)
        return _signed(ANSWER + nonce + struct.pack("!H", len(place)) + place, key)

    def _place(self, our_host: str) -> bytes:
        """As many addresses as there is room for."""
        urls = tuple(dict.fromkeys(seen_from_outside(url, our_host) for url in self.listen))
        for count in range(len(urls), 0, -1):
            text = _adapter().dump_json(Place(self.name, self.instance, urls[:count]))
            if len(text) <= LONGEST_PLACE:
                return text
        raise ConfigurationError(f"{urls[0]} is too long to be told on the network")

    def _may_answer(self, now: float) -> bool:
        self._allowance = min(
            ANSWERS_PER_SECOND, self._allowance + max(0.0, now - self._allowed_at) * ANSWERS_PER_SECOND
        )
        self._allowed_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


def addresses_for_others(listen: Iterable[str]) -> list[str]:
    """Those addresses of a control plane that another machine can use with the key."""
    return [url for url in listen if is_encrypted(url) and not _is_loopback(host_and_port(url)[0])]


def seen_from_outside(url: str, our_host: str) -> str:
    """An address as another machine has to dial it: all interfaces become the one that it sees."""
    host, port = host_and_port(url)
    return f"tls+tcp://{our_host}:{port}" if host in ("", "*", "0.0.0.0", "[::]") else url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _read_place(packet: bytes) -> Place | None:
    start = len(ANSWER) + NONCE_BYTES + 2
    try:
        place = _adapter().validate_json(packet[start:-SIGNATURE_BYTES])
        usable = bool(place.urls) and all(is_encrypted(checked(url)) and "," not in url for url in place.urls)
        return place if usable and checked_name(place.name) else None
    except (ValidationError, ConfigurationError):
        return None


def _signed(packet: bytes, key: bytes) -> bytes:
    return packet + hmac.digest(key, packet, "sha256")


def _is_signed(packet: bytes, key: bytes) -> bool:
    body, signature = packet[:-SIGNATURE_BYTES], packet[-SIGNATURE_BYTES:]
    return hmac.compare_digest(signature, hmac.digest(key, body, "sha256"))
