"""Unix sockets that the event loop watches.

Why not NNG's own `ipc`: it tells from thread to thread to thread that something has come, which takes longer than all
the rest of a message's way (docs/evidence.md). The bytes are the same (nng_ipc(7)), so NNG may be at the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from fastworker.addresses import LONGEST_SOCKET_PATH
from fastworker.byte_streams import ACCEPT_AGAIN, OnReceived, OnStream, StreamEnded, not_an_address, taken
from fastworker.errors import ConnectionFailed
from fastworker.forks import Open
from fastworker.nng import lib

BACKLOG: Final = 128
ACCEPT_AT_ONCE: Final = 16
"""Connections that are taken in before others get their turn."""
PIECES_AT_ONCE: Final = 64
"""Pieces at most that one call of the system sends; it may take 1,024 (sendmsg(2), IOV_MAX)."""
_CREDENTIALS: Final = struct.Struct("3i")
"""The peer's process, user and group (unix(7), SO_PEERCRED)."""
_AS_NNG_SAYS: Final = {
    errno.ECONNREFUSED: lib.NNG_ECONNREFUSED,
    errno.ENOENT: lib.NNG_ENOENT,
    errno.EACCES: lib.NNG_EPERM,
}


def _tell_nobody() -> None:
    """Somebody who has hung up wants to hear no more."""


class UnixStream(Open):
    """The bytes of one connection (`fastworker.byte_streams.Stream`).

    Args:
        connection: becomes the stream's.
        on_received: something has come, or the connection is over; called in the event loop.
    """

    def __init__(self, connection: socket.socket, loop: asyncio.AbstractEventLoop, on_received: OnReceived) -> None:
        super().__init__()
        connection.setblocking(False)
        self._socket = connection
        self._loop = loop
        self._on_received = on_received
        self._uid = _peer_uid(connection)
        self._place = bytearray()
        self._view = memoryview(self._place)
        self._start = 0
        self._count = 0  # of what came; none: it is over
        self._reason: int = lib.NNG_ECONNSHUT
        self._waiting = False  # for what comes
        self._watched = False
        self._unsent: deque[bytes | memoryview] = deque()
        self._is_deaf = False  # the other end takes nothing more

    # ---- in ------------------------------------------------------------------------------------------------------

    def receive(self, place: bytearray, start: int) -> None:
        """Read what comes next into the rest of a place, and say so."""
        if self.closed:
            return
        if place is not self._place:
            self._place, self._view = place, memoryview(place)
        self._start = start
        self._waiting = True
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        if not self._waiting:  # what came before was not taken yet
            self._watched = False
            self._loop.remove_reader(self._socket)
            return
        try:
            self._count = self._socket.recv_into(self._view[self._start :])
        except BlockingIOError:
            return
        except OSError:
            self._count, self._reason = 0, lib.NNG_ECONNRESET
        self._waiting = False
        self._on_received()

    def received(self) -> int:
        """How many bytes came.

        Raises:
            StreamEnded: none, and none will.
        """
        if self._count == 0:
            raise StreamEnded(self._reason)
        return self._count

    # ---- out -----------------------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """How many pieces wait for a peer that is slow."""
        return len(self._unsent)

    def greet(self, greeting: bytes) -> None:
        """Send the first piece."""
        self.send(greeting)

    def send(self, data: bytes) -> None:
        """Send after what was sent before."""
        if self.closed or self._is_deaf:
            return
        waits = bool(self._unsent)
        self._unsent.append(data)
        if not waits:
            self._send_on()
            if self._unsent:
                self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        self._send_on()
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _send_on(self) -> None:
        try:
            while self._unsent:
                self._sent(self._socket.sendmsg(list(islice(self._unsent, PIECES_AT_ONCE))))
        except BlockingIOError:
            pass
        except OSError:  # it has hung up: its last words, which may still be there, are heard before that is told
            self._is_deaf = True
            self._unsent.clear()

    def _sent(self, count: int) -> None:
        while self._unsent and count >= len(self._unsent[0]):
            count -= len(self._unsent.popleft())
        if count:
            self._unsent[0] = memoryview(self._unsent[0])[count:]

    # ---- the other end -------------------------------------------------------------------------------------------

    def peer_uid(self) -> int | None:
        """The user id at the other end."""
        return self._uid

    def certified_name(self) -> str | None:
        """None: there is no certificate."""
        return None

    def _release(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self._unsent.clear()
        self._on_received = _tell_nobody  # who was told holds us: both go now, and not with the next collection


def _peer_uid(connection: socket.socket) -> int:
    said = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(said)[1])


# ---- listening and dialling ----------------------------------------------------------------------------------


class UnixListener(Open):
    """Listens at one address.

    Args:
        url: `ipc://…`.
        on_stream: takes what opens the stream of each new connection.

    Raises:
        AddressInUse: another process listens there.
        ConfigurationError: it can't be an address.
        ConnectionFailed: no socket can be made there.
    """

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, on_stream: OnStream) -> None:
        self._loop = loop
        self._on_stream = on_stream
        self._path = _path_of(url)
        self._socket = _listening(url, self._path)
        self._again: asyncio.TimerHandle | None = None
        super().__init__()
        self._watch()

    def _watch(self) -> None:
        self._again = None
        self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError:  # mostly there are no more file descriptors
                self._loop.remove_reader(self._socket)
                self._again = self._loop.call_later(ACCEPT_AGAIN, self._watch)
                return
            self._on_stream(partial(UnixStream, connection, self._loop))

    def _release(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)


class UnixDialer(Open):
    """Dials one address, until it is closed.

    Args:
        url: `ipc://…`.
        on_stream: takes what opens the stream of the connection.
        on_failure: takes NNG's code for the reason.

    Raises:
        ConfigurationError: it can't be an address.
    """

    def __init__(
        self, url: str, loop: asyncio.AbstractEventLoop, on_stream: OnStream, on_failure: Callable[[int], None]
    ) -> None:
        self._path = _path_of(url)
        self._loop = loop
        self._on_stream = on_stream
        self._on_failure = on_failure
        super().__init__()

    def dial(self) -> None:
        """Try it once."""
        connection = _socket()
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            self._on_failure(_AS_NNG_SAYS.get(error.errno or 0, lib.NNG_ECLOSED))
        else:
            self._on_stream(partial(UnixStream, connection, self._loop))

    def _release(self) -> None:
        """There is nothing to give back: what is dialled is a stream's, or closed at once."""


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    return made


def _path_of(url: str) -> Path:
    path = url.removeprefix("ipc://")
    if not path or "\0" in path or len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise not_an_address(url)
    return Path(path)


def _listening(url: str, path: Path) -> socket.socket:
    if _is_taken(path):
        raise taken(url)
    listening = _socket()
    try:
        listening.bind(str(path))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE and path.is_socket():
            raise taken(url) from None
        raise ConnectionFailed(f"{url}: {_in_words(error, path)}") from None
    return listening


def _in_words(error: OSError, path: Path) -> str:
    if error.errno == errno.EADDRINUSE:
        return "a file is in the way: remove it, or choose another address with --listen"
    if error.errno == errno.ENOENT:
        return f"there is no folder {path.parent}"
    return error.strerror or str(error)


def _is_taken(path: Path) -> bool:
    """Whether somebody listens there. A socket that a killed process has left behind is removed."""
    if not path.is_socket():
        return False
    with contextlib.closing(_socket()) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return False
        except OSError:  # it has just gone, or it is busy
            return path.is_socket()
    return True
