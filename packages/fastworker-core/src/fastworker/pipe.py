"""Connections as messages: over a byte stream, or within a process.

Over a stream the bytes are those of NNG's own REQ and REP sockets, which may be at the other end. Each end greets with
eight bytes that name its protocol. Before each message stands its length in 64 bits, over ipc also a byte 1
(nng_tcp(7), nng_tls(7), nng_ipc(7)). The message begins with a 32-bit request id whose top bit is set (nng_rep(7)); it
is always the same, for no reply is paired with a request here.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from fastworker.byte_streams import OpenStream, StreamEnded

PipeId = int

GREETING_OF_LISTENER: Final = b"\0SP\0\0\x31\0\0"
"""SP, version 0, protocol 0x31: REP."""
GREETING_OF_DIALER: Final = b"\0SP\0\0\x30\0\0"
LAST_HOP: Final = 0x80000000
REQUEST_ID: Final = LAST_HOP + 1
REQUEST_ID_BYTES: Final = 4
BUFFERED_MESSAGES: Final = 128
"""Messages that wait for a peer that does not read; more are not taken."""
SMALLEST_PLACE: Final = 256
"""Bytes that a new connection gets to say something; it doubles each time that it is filled."""
LARGEST_KEPT: Final = 64 * 1024
"""A place that grew beyond this for one message is given up after it."""


class PipeEnded(Exception):
    """The connection is over.

    Attributes:
        code: NNG's reason; None if the peer does not speak the protocol.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


class Pipe(Protocol):
    """One connection.

    Attributes:
        number: its own among those of one end.
        greeted: whether the other end is what it is to be.
        locked: whether it came in where a key is wanted.
    """

    number: PipeId
    greeted: bool
    locked: bool

    @property
    def closed(self) -> bool:
        """Whether nothing is sent or received any more."""

    def take(self, most: int) -> list[bytes]:
        """Messages that have come, at most so many; after them it says itself when more have.

        Raises:
            PipeEnded: there are no more.
        """

    def send(self, body: bytes) -> bool:
        """Send a message; False if the peer is too slow."""

    def close(self) -> None:
        """Hang up."""


class StreamPipe:
    """A connection over a byte stream.

    Args:
        open_stream: opens the stream.
        ours: our greeting.
        theirs: what we want to hear.
        has_kind: whether a byte says what kind of message it is, as over ipc.
        max_bytes: of a message.
        on_ready: is told that there is something to `take`, in any thread.
    """

    def __init__(
        self,
        number: PipeId,
        open_stream: OpenStream,
        ours: bytes,
        theirs: bytes,
        *,
        has_kind: bool,
        locked: bool,
        max_bytes: int,
        on_ready: Callable[[Pipe], None],
    ) -> None:
        self.number = number
        self.greeted = False
        self.locked = locked
        self._theirs = theirs
        self._head = struct.Struct("!BQI" if has_kind else "!QI")
        self._kind = (1,) if has_kind else ()
        self._max_bytes = max_bytes
        self._on_ready = on_ready
        self._place = bytearray(SMALLEST_PLACE)
        self._start = self._end = 0  # what was read and not taken
        self._reading = True
        self._broken = False  # what came is no message
        self.stream = open_stream(lambda: on_ready(self))
        self.stream.receive(self._place, 0)
        self.stream.greet(ours)

    @property
    def closed(self) -> bool:
        """Whether nothing is sent or received any more."""
        return self.stream.closed

    # ---- in ------------------------------------------------------------------------------------------------------

    def take(self, most: int) -> list[bytes]:
        """Messages that have come, at most so many; after them it says itself when more have.

        Raises:
            PipeEnded: there are no more.
        """
        if self._reading:
            try:
                self._end += self.stream.received()
            except StreamEnded as ended:
                raise PipeEnded(ended.code) from None
            self._reading = False
        bodies: list[bytes] = []
        if self.greeted or self._hear_greeting():
            self._take_whole(bodies, most)
        if len(bodies) == most or self._broken:
            self._on_ready(self)
        else:
            self._read_on()
        return bodies

    def _take_whole(self, bodies: list[bytes], most: int) -> None:
        view = memoryview(self._place)
        while len(bodies) < most and (size := self._next()):
            bodies.append(bytes(view[self._start + self._head.size : self._start + size]))
            self._start += size
        if self._broken and not bodies:
            raise PipeEnded(None)

    def _hear_greeting(self) -> bool:
        if self._end < len(self._theirs):
            return False
        if self._place[: len(self._theirs)] != self._theirs:
            raise PipeEnded(None)
        self._start = len(self._theirs)
        self.greeted = True
        return True

    def _next(self) -> int:
        """How many bytes the next message takes up with its head; 0: it is not whole, or none."""
        if self._end - self._start < self._head.size:
            return 0
        *kind, length, request_id = self._head.unpack_from(self._place, self._start)
        length -= REQUEST_ID_BYTES
        if tuple(kind) != self._kind or not 0 <= length <= self._max_bytes or not request_id & LAST_HOP:
            self._broken = True
            return 0
        size: int = self._head.size + length
        return size if self._end - self._start >= size else 0

    def _read_on(self) -> None:
        left = self._end - self._start
        if left == len(self._place):
            size = 2 * left
        elif self._end == len(self._place) < LARGEST_KEPT:
            size = 2 * len(self._place)
        elif left <= LARGEST_KEPT < len(self._place):
            size = LARGEST_KEPT
        else:
            size = len(self._place)
        if size == len(self._place):
            self._place[:left] = self._place[self._start : self._end]
        else:
            place = bytearray(size)
            place[:left] = self._place[self._start : self._end]
            self._place = place
        self._start, self._end = 0, left
        self._reading = True
        self.stream.receive(self._place, left)

    # ---- out -----------------------------------------------------------------------------------------------------

    def send(self, body: bytes) -> bool:
        """Send a message; False if the peer is too slow."""
        if self.closed or self.stream.unsent >= BUFFERED_MESSAGES:
            return False
        self.stream.send(self._head.pack(*self._kind, len(body) + REQUEST_ID_BYTES, REQUEST_ID) + body)
        return True

    def close(self) -> None:
        """Hang up."""
        self.stream.close()


class LocalPipe:
    """One end of a connection within a process; the other may be in another thread."""

    def __init__(self, number: PipeId, on_ready: Callable[[Pipe], None]) -> None:
        self.number = number
        self.greeted = True
        self.locked = False
        self.closed = False
        self.other: LocalPipe | None = None
        self._on_ready = on_ready
        self._inbox: deque[bytes] = deque()
        self._hung_up = False

    def take(self, most: int) -> list[bytes]:
        """Messages that have come, at most so many; after them it says itself when more have.

        Raises:
            PipeEnded: there are no more.
        """
        hung_up = self._hung_up
        bodies = [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]
        if hung_up and not bodies:
            raise PipeEnded(0)
        if self._inbox or hung_up:
            self._on_ready(self)
        return bodies

    def send(self, body: bytes) -> bool:
        """Send a message; False if the peer is too slow."""
        other = self.other
        if self.closed or other is None or other.closed or len(other._inbox) >= BUFFERED_MESSAGES:
            return False
        other._inbox.append(body)
        other._on_ready(other)
        return True

    def close(self) -> None:
        """Hang up."""
        if self.closed:
            return
        self.closed = True
        if self.other is not None:
            self.other._hung_up = True
            self.other._on_ready(self.other)
