"""NNG's byte streams, for an event loop.

Why not its sockets: they hand each message from thread to thread, one or two of them to send it and two more to receive
it. A stream writes in the thread that asks, and a single thread tells of what has come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from fastworker.byte_streams import ACCEPT_AGAIN, OnReceived, OnStream, StreamEnded, not_an_address, taken
from fastworker.credentials import Certificates, Credential
from fastworker.errors import ConnectionFailed
from fastworker.keys import Key
from fastworker.nng import Connecting, OpenInNng, Operation, check, ffi, hand_over, in_words, lib
from fastworker.tls import client_config, server_config

LOOK_AGAIN: Final = (0.001, 0.032)
"""Seconds, from and to, after which a peer that takes nothing at all is looked at again."""
TOGETHER: Final = 64 * 1024
"""Bytes at most of what waits that are sent as one piece."""

NOBODY_LISTENS: Final = frozenset({lib.NNG_ECONNREFUSED, lib.NNG_ENOENT})
BAD_CREDENTIALS: Final = frozenset({lib.NNG_ECRYPTO, lib.NNG_EPEERAUTH})
HUNG_UP: Final = frozenset({lib.NNG_ECONNSHUT})


# ---- streams -------------------------------------------------------------------------------------------------


class NngStream(OpenInNng):
    """The bytes of one connection (`fastworker.byte_streams.Stream`).

    Args:
        handle: NNG's.
        on_received: something has come, or the connection is over; called in a thread of NNG.
    """

    def __init__(self, handle: Any, loop: asyncio.AbstractEventLoop, on_received: OnReceived) -> None:
        self._loop = loop
        self._in = Operation(on_received)
        self._place = bytearray()
        self._base: Any = None
        # What NNG can do at once it does without waking a thread, if that need not tell.
        self._at_once = Operation()
        self._in_time = Operation(partial(hand_over, loop, self._went_on))
        super().__init__(handle, lib.nng_stream_close, lib.nng_stream_free, self._in, self._at_once, self._in_time)
        self._unsent: deque[bytes] = deque()
        self._offset = 0  # how much of the first was sent
        self._under_way = False
        self._sending: Any = None  # keeps the bytes that NNG reads where they are
        self._failed: int | None = None  # NNG's reason why nothing more can be sent
        self._ended: int | None = None  # the same, once all that had come was taken

    # ---- in ------------------------------------------------------------------------------------------------------

    def receive(self, place: bytearray, start: int) -> None:
        """Read what comes next into the rest of a place."""
        if self.closed:
            return
        if self._failed is not None:  # NNG never ends what is asked of a stream that was closed
            self._ended = self._failed
            self._in.tell()
            return
        if place is not self._place:
            self._place, self._base = place, ffi.from_buffer(place)
        self._in.use(self._base + start, len(place) - start)
        lib.nng_stream_recv(self._handle, self._in.aio)

    def received(self) -> int:
        """How many bytes came.

        Raises:
            StreamEnded: none, and none will.
        """
        if self._ended is not None:
            raise StreamEnded(self._ended)
        if self._in.code != 0:
            raise StreamEnded(self._in.code)
        return self._in.count

    # ---- out -----------------------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """How many pieces wait for a peer that is slow."""
        return len(self._unsent)

    def greet(self, greeting: bytes) -> None:
        """Send the first piece, which TLS may make wait. What fails in TLS is told to who has asked to receive."""
        self._unsent.append(greeting)
        self._under_way = True
        self._submit(self._in_time)

    def send(self, data: bytes) -> None:
        """Send after what was sent before."""
        if self.closed or self._failed is not None:
            return
        self._unsent.append(data)
        if not self._under_way:
            self._send_at_once()

    def _send_at_once(self) -> None:
        self._submit(self._at_once)
        if self._at_once.busy:
            self._under_way = True
            self._loop.call_later(LOOK_AGAIN[0], self._look_again, LOOK_AGAIN[0])
        elif self._done(self._at_once) and self._unsent:
            self._under_way = True
            self._send_in_time()

    def _send_in_time(self) -> None:
        """Send what waits: small pieces together."""
        if self._offset == 0:
            together = 0
            joined: list[bytes] = []
            while self._unsent and together + len(self._unsent[0]) <= TOGETHER:
                joined.append(self._unsent.popleft())
                together += len(joined[-1])
            if joined:
                self._unsent.appendleft(b"".join(joined))
        self._submit(self._in_time)

    def _submit(self, operation: Operation) -> None:
        """Send the rest of the first piece, and that alone: TLS wants to be asked twice for the same."""
        data = self._unsent[0]
        self._sending = ffi.from_buffer(data)
        operation.use(self._sending + self._offset, len(data) - self._offset)
        lib.nng_stream_send(self._handle, operation.aio)

    def _done(self, operation: Operation) -> bool:
        """Note what was sent; False if the connection is over."""
        if operation.code != 0:
            self._failed = operation.code
            self._unsent.clear()
            lib.nng_stream_close(self._handle)  # who waits for something is told
            return False
        self._offset += operation.count
        if self._offset == len(self._unsent[0]):
            self._unsent.popleft()
            self._offset = 0
        return True

    def _went_on(self, operation: Operation | None = None) -> None:
        if self.closed or not self._done(operation or self._in_time):
            return
        if self._unsent:
            self._send_in_time()
        else:
            self._under_way = False

    def _look_again(self, after: float) -> None:
        if self.closed:
            return
        if self._at_once.busy:
            after = min(2 * after, LOOK_AGAIN[1])
            self._loop.call_later(after, self._look_again, after)
        else:
            self._went_on(self._at_once)

    # ---- the other end -------------------------------------------------------------------------------------------

    def peer_uid(self) -> int | None:
        """The user id at the other end, over ipc; None if it is closed."""
        if self.closed:
            return None
        value = ffi.new("uint64_t *")
        return int(value[0]) if lib.nng_stream_get_uint64(self._handle, b"ipc:peer-uid", value) == 0 else None

    def certified_name(self) -> str | None:
        """The common name in the certificate of the other end, which TLS has verified; None if it is closed."""
        if self.closed:
            return None
        name = ffi.new("char **")
        if lib.nng_stream_get_string(self._handle, b"tls-peer-cn", name) != 0 or name[0] == ffi.NULL:
            return None
        try:
            return bytes(ffi.string(name[0])).decode(errors="replace")
        finally:
            lib.nng_strfree(name[0])


# ---- listening and dialling ----------------------------------------------------------------------------------


class StreamListener(OpenInNng):
    """Listens at one address.

    Args:
        url: `ipc://…`, `tcp://…` or `tls+tcp://…`.
        accepted: the role keys that open it, or certificates of the same authority; for `tls+tcp` only.
        on_stream: takes what opens the stream of each new connection.

    Raises:
        AddressInUse: another process listens there.
        ConfigurationError: NNG can't listen at such an address.
    """

    def __init__(
        self, url: str, accepted: Sequence[Key] | Certificates, loop: asyncio.AbstractEventLoop, on_stream: OnStream
    ) -> None:
        self._loop = loop
        self._on_stream = on_stream
        cell = ffi.new("nng_stream_listener **")
        _check_address(url, lib.nng_stream_listener_alloc(cell, url.encode()))
        self._accepting = Connecting(partial(hand_over, loop, self._accepted))
        super().__init__(cell[0], lib.nng_stream_listener_close, lib.nng_stream_listener_free, self._accepting)
        try:
            lib.nng_stream_listener_set_bool(cell[0], b"tcp-nodelay", True)
            if accepted:
                self.change_keys(accepted)
            _check_address(url, lib.nng_stream_listener_listen(cell[0]))
        except BaseException:
            self.close()
            raise
        self._accept()

    def change_keys(self, accepted: Sequence[Key] | Certificates) -> None:
        """Connections that come from now on have to show one of these."""
        with server_config(accepted) as config:
            check(lib.nng_stream_listener_set_ptr(self._handle, b"tls-config", config))

    def _accept(self) -> None:
        if not self.closed:
            self._accepting.begin(lib.nng_stream_listener_accept, self._handle)

    def _accepted(self) -> None:
        if self.closed:
            return
        stream = self._accepting.stream()
        if stream is None:
            self._loop.call_later(ACCEPT_AGAIN, self._accept)
        else:
            self._on_stream(partial(NngStream, stream, self._loop))
            self._accept()


class StreamDialer(OpenInNng):
    """Dials one address.

    Args:
        url: `ipc://…`, `tcp://…` or `tls+tcp://…`.
        credential: what is shown there.
        on_stream: takes what opens the stream of the connection.
        on_failure: takes NNG's reason.

    Raises:
        ConfigurationError: NNG can't dial such an address.
    """

    def __init__(
        self,
        url: str,
        credential: Credential | None,
        loop: asyncio.AbstractEventLoop,
        on_stream: OnStream,
        on_failure: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._on_stream = on_stream
        self._on_failure = on_failure
        cell = ffi.new("nng_stream_dialer **")
        _check_address(url, lib.nng_stream_dialer_alloc(cell, url.encode()))
        self._dialling = Connecting(partial(hand_over, loop, self._dialled))
        super().__init__(cell[0], lib.nng_stream_dialer_close, lib.nng_stream_dialer_free, self._dialling)
        lib.nng_stream_dialer_set_bool(cell[0], b"tcp-nodelay", True)
        if credential is not None:
            with client_config(credential) as config:
                check(lib.nng_stream_dialer_set_ptr(cell[0], b"tls-config", config))

    def dial(self) -> None:
        """Try it once; not before the try before has ended."""
        if not self.closed:
            self._dialling.begin(lib.nng_stream_dialer_dial, self._handle)

    def _dialled(self) -> None:
        if self.closed:
            return
        stream = self._dialling.stream()
        if stream is None:
            self._on_failure(self._dialling.code)
        else:
            self._on_stream(partial(NngStream, stream, self._loop))


def _check_address(url: str, code: int) -> None:
    if code == 0:
        return
    if code == lib.NNG_EADDRINUSE:
        raise taken(url)
    if code in (lib.NNG_EADDRINVAL, lib.NNG_ENOTSUP, lib.NNG_EINVAL):
        raise not_an_address(url)
    raise ConnectionFailed(f"{url}: {in_words(code)}")
