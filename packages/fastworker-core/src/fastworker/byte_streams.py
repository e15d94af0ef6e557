"""The bytes of one connection: what is asked of them, whoever carries them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from fastworker.errors import AddressInUse, ConfigurationError

ACCEPT_AGAIN: Final = 0.05
"""Seconds after a connection could not be taken in: mostly there are no more file descriptors."""


class StreamEnded(Exception):
    """The connection is over.

    Attributes:
        code: NNG's reason.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Stream(Protocol):
    """A connection. To be used in the event loop only."""

    @property
    def closed(self) -> bool:
        """Whether nothing is sent or received any more."""

    def receive(self, place: bytearray, start: int) -> None:
        """Read what comes next into the rest of a place, and say so."""

    def received(self) -> int:
        """How many bytes came.

        Raises:
            StreamEnded: none, and none will.
        """

    @property
    def unsent(self) -> int:
        """How many pieces wait for a peer that is slow."""

    def greet(self, greeting: bytes) -> None:
        """Send the first piece."""

    def send(self, data: bytes) -> None:
        """Send after what was sent before."""

    def peer_uid(self) -> int | None:
        """The user id at the other end, over ipc; None if that is not known."""

    def certified_name(self) -> str | None:
        """The common name in the certificate of the other end, which TLS has verified; None if there is none."""

    def close(self) -> None:
        """Hang up."""


OnReceived = Callable[[], None]
"""Is told that something has come, or that the connection is over."""
OpenStream = Callable[[OnReceived], Stream]
"""Opens the stream of a new connection."""
OnStream = Callable[[OpenStream], None]


def taken(url: str) -> AddressInUse:
    """The error for an address where somebody listens."""
    return AddressInUse(f"{url} is taken by another process: stop it, or choose another address with --listen")


def not_an_address(url: str) -> ConfigurationError:
    """The error for what can't be an address."""
    return ConfigurationError(f"{url!r} is not an address: use ipc:///path, tcp://host:port or tls+tcp://host:port")
