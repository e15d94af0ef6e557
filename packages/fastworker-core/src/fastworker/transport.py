"""Bytes over NNG. The only module that imports pynng.

The control plane opens one raw REP socket (`Listener`), every peer one raw REQ socket (`Dialer`). Raw sockets don't
pair requests with replies, so both ends may send at any time. A message's header routes it: on the listener's side
it holds the 32-bit number of the pipe (the connection) and a request id whose top bit ends the header
(nng_rep(7), "Raw mode"); the dialer's header is one constant request id.

Sending never blocks. What can't be sent now (`send` returns False) is the session's to send again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import pynng  # type: ignore[import-untyped, unused-ignore]

from fastworker.credentials import CONTROL_PLANE_HOST, Certificates, Credential
from fastworker.errors import AddressInUse, ConfigurationError, ConnectionFailed, ForkError
from fastworker.keys import Key
from fastworker.protocol import MAX_FRAME_BYTES

PipeId = int
OnMessage = Callable[[PipeId, bytes], None]
OnPipe = Callable[[PipeId], None]
OnTurn = Callable[[], None]

_lib: Any = pynng.lib
_ffi: Any = pynng.ffi

REQUEST_ID: Final = 0x80000001
BUFFERED_MESSAGES: Final = 128
"""The socket's own queues default to almost nothing: then a second non-blocking send fails."""
HEADER_BYTES: Final = 4
"""What goes before a body on the wire. NNG's limit counts it, ours does not."""
MESSAGES_PER_TURN: Final = 64
"""How many messages one turn of the event loop takes in before others get theirs."""
TASK_THREADS: Final = 2
"""The fewest that NNG has. With its default of two for each core, each message wakes more of them: a round trip of two
hops took 29 switches between threads in place of 22, and a sixth more time."""
RECONNECT_MS: Final = (50, 500)
PAIR_LINGER: Final = 0.1
REFUSED_BY_NNG: Final = ("auth", "proto")
"""NNG's counters of connections that came to a listener and did not become a pipe. `other` would be those that hung up
by themselves, but it counts the pipes that end, too."""

# No more than a wish: who has used NNG in this process before us has settled it.
_lib.nng_init_set_parameter(_lib.NNG_INIT_NUM_TASK_THREADS, TASK_THREADS)

_sockets_of_this_process: set[int] = set()
_forked_with_sockets = False


def _after_fork() -> None:
    global _forked_with_sockets
    _forked_with_sockets = bool(_sockets_of_this_process)


os.register_at_fork(after_in_child=_after_fork)


def refuse_if_forked() -> None:
    """Raise `ForkError` in a child of a process that had a socket open: NNG would abort it."""
    if _forked_with_sockets:
        raise ForkError(
            "this process was forked from one that was connected already, and NNG can't be used after that: "
            "connect after the fork, or use multiprocessing's 'spawn'"
        )


class _Socket:
    """What both ends share: options, receiving inside the event loop, pipe events, closing."""

    def __init__(self, opener: Any, kind: Any, loop: asyncio.AbstractEventLoop, max_bytes: int) -> None:
        refuse_if_forked()
        self._loop = loop
        self.max_bytes = max_bytes
        self._socket = kind(opener=opener, recv_buffer_size=BUFFERED_MESSAGES, send_buffer_size=BUFFERED_MESSAGES)
        _sockets_of_this_process.add(id(self))
        self._set_limit("recv_max_size", max_bytes + HEADER_BYTES)
        self._message = _ffi.new("nng_msg **")
        self._on_message: OnMessage = _ignore_message
        self._on_turn: OnTurn = _ignore_turn
        self._on_connect: OnPipe = _ignore_pipe
        self._on_disconnect: OnPipe = _ignore_pipe
        self._receiver: threading.Thread | None = None
        self._fd = -1
        self.closed = False

    def _set_limit(self, option: str, value: int) -> None:
        """Set an option and read it back: pynng 0.9.0 swallows the errors of a setter."""
        setattr(self._socket, option, value)
        if getattr(self._socket, option) != value:
            raise ConfigurationError(f"NNG did not take {option}={value}")

    def open(self, on_message: OnMessage, on_connect: OnPipe, on_disconnect: OnPipe, on_turn: OnTurn) -> None:
        """Start to receive. All callbacks run in the event loop; `on_turn` after the messages that came together."""
        self._on_message = on_message
        self._on_turn = on_turn
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        # NNG calls these on a thread of its own, and closing a socket inside one deadlocks: hand over only.
        self._socket.add_post_pipe_connect_cb(lambda pipe: self._hand_over(self._connected, int(pipe.id)))
        self._socket.add_post_pipe_remove_cb(lambda pipe: self._hand_over(self._disconnected, int(pipe.id)))
        self._fd = self._socket.recv_fd
        try:
            self._loop.add_reader(self._fd, self._receive_turn)
        except NotImplementedError:  # Windows' proactor loop
            self._receiver = threading.Thread(target=self._receive_forever, name="fastworker-receive", daemon=True)
            self._receiver.start()

    def _hand_over(self, callback: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(callback, *args)

    def _connected(self, pipe: PipeId) -> None:
        if not self.closed:
            self._on_connect(pipe)

    def _disconnected(self, pipe: PipeId) -> None:
        if not self.closed:
            self._on_disconnect(pipe)

    def _receive_turn(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            if self.closed or not self._receive_one(_lib.NNG_FLAG_NONBLOCK, self._on_message):
                break
        self._on_turn()

    def _receive_forever(self) -> None:
        def deliver(pipe: PipeId, body: bytes) -> None:
            self._hand_over(self._on_message, pipe, body)
            self._hand_over(self._on_turn)

        while not self.closed and self._receive_one(0, deliver):
            pass

    def _receive_one(self, flags: int, deliver: OnMessage) -> bool:
        if _lib.nng_recvmsg(self._socket.socket, self._message, flags) != 0:
            return False
        message = self._message[0]
        pipe = int(_lib.nng_pipe_id(_lib.nng_msg_get_pipe(message)))
        body = bytes(_ffi.buffer(_lib.nng_msg_body(message), _lib.nng_msg_len(message)))
        _lib.nng_msg_free(message)
        deliver(pipe, body)
        return True

    def _send(self, header: tuple[int, ...], body: bytes) -> bool:
        if self.closed:
            return False
        if len(body) > self.max_bytes:
            raise ValueError(f"a frame of {len(body)} bytes is over the limit of {self.max_bytes}")
        cell = _ffi.new("nng_msg **")
        pynng.nng.check_err(_lib.nng_msg_alloc(cell, 0))
        message = cell[0]
        for word in header:
            _lib.nng_msg_header_append_u32(message, word)
        _lib.nng_msg_append(message, body, len(body))
        if _lib.nng_sendmsg(self._socket.socket, message, _lib.NNG_FLAG_NONBLOCK) != 0:
            _lib.nng_msg_free(message)
            return False
        return True

    def close(self) -> None:
        """Close the socket. What was sent but not yet acknowledged may be lost."""
        if self.closed:
            return
        self.closed = True
        if self._receiver is None and self._fd >= 0:
            self._loop.remove_reader(self._fd)
        self._socket.close()
        if self._receiver is not None:
            self._receiver.join()
        _sockets_of_this_process.discard(id(self))


class Listener(_Socket):
    """The control plane's end: many peers, one socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_bytes: int = MAX_FRAME_BYTES) -> None:
        super().__init__(_lib.nng_rep0_open_raw, pynng.Rep0, loop, max_bytes)
        self._listeners: list[Any] = []
        self._locked: list[Any] = []  # those that want a key
        self._certified = False
        self._unlocked: set[int] = set()  # the numbers of the others

    def listen(self, url: str, accepted: Sequence[Key] | Certificates = ()) -> None:
        """Listen at an address too; call after `open`.

        Args:
            url: `inproc://…`, `ipc://…`, `tcp://…` or `tls+tcp://…`.
            accepted: the role keys that open it, or certificates of the same authority; for `tls+tcp` only.

        Raises:
            AddressInUse: another process listens there.
            ConfigurationError: NNG can't listen at such an address.
        """
        listener = _ffi.new("nng_listener *")
        _check(url, _lib.nng_listener_create(listener, self._socket.socket, url.encode()))
        _check(url, _lib.nng_listener_set_size(listener[0], b"recv-size-max", self.max_bytes + HEADER_BYTES))
        if accepted:
            config = _tls(pynng.TLSConfig.MODE_SERVER, accepted)
            _check(url, _lib.nng_listener_set_ptr(listener[0], b"tls-config", config._tls_config))
        _check(url, _lib.nng_listener_start(listener[0], 0))
        self._listeners.append(listener)
        if isinstance(accepted, Certificates):
            self._certified = True
        elif accepted:
            self._locked.append(listener)
        if not accepted:
            self._unlocked.add(int(_lib.nng_listener_id(listener[0])))

    def change_keys(self, keys: Sequence[Key]) -> None:
        """From now on other keys open it. One connection that NNG waits for already still meets the old ones."""
        for listener in self._locked:
            config = _tls(pynng.TLSConfig.MODE_SERVER, keys)
            pynng.nng.check_err(_lib.nng_listener_set_ptr(listener[0], b"tls-config", config._tls_config))

    def is_locked(self, pipe: PipeId) -> bool:
        """Whether a connection came in where a key is wanted. If it is gone and nobody knows any more: yes."""
        return self._listener_of(pipe) not in self._unlocked

    def is_open(self, pipe: PipeId) -> bool:
        """Whether a connection is still there."""
        return self._listener_of(pipe) > 0

    def _listener_of(self, pipe: PipeId) -> int:
        return int(_lib.nng_listener_id(_lib.nng_pipe_listener(_pipe(pipe))))

    def certified_name(self, pipe: PipeId) -> str | None:
        """The common name in the certificate of a peer, which TLS has verified; None where there is none."""
        name = _ffi.new("char **")
        if not self._certified or _lib.nng_pipe_get_string(_pipe(pipe), b"tls-peer-cn", name) != 0:
            return None
        if name[0] == _ffi.NULL:
            return None
        try:
            return bytes(_ffi.string(name[0])).decode(errors="replace")
        finally:
            _lib.nng_strfree(name[0])

    def refused(self) -> int:
        """How many connections failed before they were one: in the TLS handshake, or not speaking NNG's protocol."""
        snapshot = _ffi.new("nng_stat **")
        pynng.nng.check_err(_lib.nng_stats_get(snapshot))
        try:
            return sum(_counted(snapshot[0], listener[0]) for listener in self._listeners)
        finally:
            _lib.nng_stats_free(snapshot[0])

    def send(self, pipe: PipeId, body: bytes) -> bool:
        """Send to one peer; False if NNG can't take it now."""
        return self._send((pipe, REQUEST_ID), body)

    def peer_uid(self, pipe: PipeId) -> int | None:
        """The user id at the other end of an ipc pipe; None where there is none."""
        value = _ffi.new("uint64_t *")
        return int(value[0]) if _lib.nng_pipe_get_uint64(_pipe(pipe), b"ipc:peer-uid", value) == 0 else None

    def peer_address(self, pipe: PipeId) -> tuple[str, int] | None:
        """Host and port at the other end of a TCP pipe; None where there are none."""
        address = _ffi.new("nng_sockaddr *")
        if _lib.nng_pipe_get_addr(_pipe(pipe), b"remote-address", address) != 0:
            return None
        match address.s_family:
            case _lib.NNG_AF_INET:
                host = bytes(_ffi.buffer(_ffi.addressof(address.s_in, "sa_addr")))
                return socket.inet_ntop(socket.AF_INET, host), socket.ntohs(address.s_in.sa_port)
            case _lib.NNG_AF_INET6:
                host = bytes(address.s_in6.sa_addr)
                return socket.inet_ntop(socket.AF_INET6, host), socket.ntohs(address.s_in6.sa_port)
            case _:
                return None

    def disconnect(self, pipe: PipeId) -> None:
        """Close one connection."""
        _lib.nng_pipe_close(_pipe(pipe))


class Dialer(_Socket):
    """A peer's end: one control plane, dialled again and again until `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_bytes: int = MAX_FRAME_BYTES) -> None:
        super().__init__(_lib.nng_req0_open_raw, pynng.Req0, loop, max_bytes)
        self._socket.reconnect_time_min, self._socket.reconnect_time_max = RECONNECT_MS
        self._dialing: Any = None

    def dial(self, url: str, credential: Credential | None = None) -> None:
        """Connect in the background, again and again; call after `open`. The address dialled before is given up."""
        if self._dialing is not None:
            _lib.nng_dialer_close(self._dialing)
        self._dialing = self._dialer(url, credential)
        _check(url, _lib.nng_dialer_start(self._dialing, _lib.NNG_FLAG_NONBLOCK))

    async def dial_once(self, url: str, credential: Credential | None, timeout: float) -> str:
        """Dial once, and close; what came of it in a few words. NNG says that only to those who wait for it."""
        dialing = self._loop.run_in_executor(None, _lib.nng_dialer_start, self._dialer(url, credential), 0)
        await asyncio.wait([dialing], timeout=timeout)
        self.close()  # ends the wait, if it goes on
        return _WHY_NOT.get(await dialing, "no answer")

    def _dialer(self, url: str, credential: Credential | None) -> Any:
        dialer = _ffi.new("nng_dialer *")
        _check(url, _lib.nng_dialer_create(dialer, self._socket.socket, url.encode()))
        _check(url, _lib.nng_dialer_set_size(dialer[0], b"recv-size-max", self.max_bytes + HEADER_BYTES))
        if credential is not None:
            shown = [credential] if isinstance(credential, Key) else credential
            config = _tls(pynng.TLSConfig.MODE_CLIENT, shown)
            _check(url, _lib.nng_dialer_set_ptr(dialer[0], b"tls-config", config._tls_config))
        return dialer[0]

    def send(self, body: bytes) -> bool:
        """Send to the control plane; False if NNG can't take it now."""
        return self._send((REQUEST_ID,), body)


_WHY_NOT: Final = {
    0: "something listens there, but it does not answer",
    _lib.NNG_ECONNREFUSED: "nobody listens there",
    _lib.NNG_ENOENT: "nobody listens there",
    _lib.NNG_ECRYPTO: "refused: the cluster keys differ",
    _lib.NNG_EPEERAUTH: "refused: the cluster keys differ",
    _lib.NNG_ECONNSHUT: "refused: the cluster keys differ, or it is no control plane",
}


def _tls(mode: int, shown: Sequence[Key] | Certificates) -> Any:
    """A TLS configuration with pre-shared keys or certificates: encryption, and each end proves itself to the other.

    TLS 1.3 only: all its suites are AEAD, and Mbed TLS always adds an ephemeral key to the pre-shared one where the
    other end can, so that a key that leaks does not open what was recorded before.
    """
    config = pynng.TLSConfig(mode)
    tls = config._tls_config
    pynng.nng.check_err(_lib.nng_tls_config_version(tls, _lib.NNG_TLS_1_3, _lib.NNG_TLS_1_3))
    if isinstance(shown, Certificates):
        _certify(tls, mode, shown)
        return config
    for key in shown:
        secret = key.pre_shared
        pynng.nng.check_err(_lib.nng_tls_config_psk(tls, key.identity.encode(), secret, len(secret)))
    return config


def _certify(tls: Any, mode: int, shown: Certificates) -> None:
    code = _lib.nng_tls_config_auth_mode(tls, _lib.NNG_TLS_AUTH_MODE_REQUIRED)
    code = code or _lib.nng_tls_config_ca_chain(tls, shown.authority.encode(), _ffi.NULL)
    code = code or _lib.nng_tls_config_own_cert(tls, shown.certificate.encode(), shown.key.encode(), _ffi.NULL)
    if mode == pynng.TLSConfig.MODE_CLIENT:
        code = code or _lib.nng_tls_config_server_name(tls, CONTROL_PLANE_HOST.encode())
    if code != 0:
        raise ConfigurationError("the certificates can't be used: make them anew with fastworker certs")


def _pipe(number: PipeId) -> Any:
    handle = _ffi.new("nng_pipe *")
    handle.id = number
    return handle[0]


def _counted(snapshot: Any, listener: Any) -> int:
    """The sum of the counters of what one listener refused."""
    total = 0
    counter = _lib.nng_stat_child(_lib.nng_stat_find_listener(snapshot, listener))
    while counter != _ffi.NULL:
        if _ffi.string(_lib.nng_stat_name(counter)).decode() in REFUSED_BY_NNG:
            total += int(_lib.nng_stat_value(counter))
        counter = _lib.nng_stat_next(counter)
    return total


def _check(url: str, code: int) -> None:
    if code == 0:
        return
    if code == _lib.NNG_EADDRINUSE:
        raise AddressInUse(f"{url} is taken by another process: stop it, or choose another address with --listen")
    if code in (_lib.NNG_EADDRINVAL, _lib.NNG_ENOTSUP, _lib.NNG_EINVAL):
        raise ConfigurationError(f"{url!r} is not an address: use ipc:///path, tcp://host:port or tls+tcp://host:port")
    raise ConnectionFailed(f"{url}: {_ffi.string(_lib.nng_strerror(code)).decode()}")


def send_to_pair(url: str, body: bytes, timeout: float) -> None:
    """Send one message to somebody's Pair0 that listens at an address; blocks.

    Raises:
        ConnectionFailed: it did not take the message within `timeout` seconds.
    """
    refuse_if_forked()
    try:
        with pynng.Pair0(dial=url, block_on_dial=True, send_timeout=round(timeout * 1000)) as pair:
            pair.send(body)
            time.sleep(PAIR_LINGER)  # `close` right after a send may lose it, and a pair has no acknowledgement
    except pynng.NNGException as error:
        raise ConnectionFailed(f"{url}: {error}") from None


async def why_unreachable(url: str, credential: Credential | None, timeout: float = 1.0) -> str:
    """Why nobody welcomes us at an address, as far as can be found out."""
    return await Dialer(asyncio.get_running_loop()).dial_once(url, credential, timeout)


def _ignore_message(pipe: PipeId, body: bytes) -> None:
    """Before `open` nothing is delivered."""


def _ignore_turn() -> None:
    """Before `open` there are no turns."""


def _ignore_pipe(pipe: PipeId) -> None:
    """Before `open` nobody is told."""
