"""A connection to a control plane below NNG's sockets: bytes, as many messages in one write as one likes.

NNG hands each message from thread to thread, at both ends; who sends a thousand in one write keeps both ends busy with
what is in them. The mapping of messages to bytes is that of nng_tcp(7), nng_tls(7) and nng_ipc(7).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

import pynng  # type: ignore[import-untyped, unused-ignore]

from fastworker.keys import Key
from tests.support.stranger import REQUEST_ID, HungUp

WE_ARE_A_REQ = b"\0SP\0\0\x30\0\0"
HEARD_AT_MOST = 1 << 16
PATIENCE = 10.0
ASK_AGAIN_AFTER = 0.2
_lib, _ffi = pynng.lib, pynng.ffi


class Wire:
    """One connection, greeted as NNG's protocol wants it.

    Args:
        url: of `tcp`, `tls+tcp` or `ipc`.
        key: the role's key, for TLS; it is proved too.
    """

    def __init__(self, url: str, key: Key | None = None) -> None:
        self._head = struct.Struct("!BQI" if url.startswith("ipc") else "!QI")
        self._kind = (1,) if url.startswith("ipc") else ()
        self._out, self._in = _aio(), _aio()
        self._place = _ffi.new("char[]", HEARD_AT_MOST)
        self._dialer = _ffi.new("nng_stream_dialer **")
        self._marks = itertools.count()
        pynng.nng.check_err(_lib.nng_stream_dialer_alloc(self._dialer, url.encode()))
        if key is not None:
            self._tls = pynng.TLSConfig(pynng.TLSConfig.MODE_CLIENT)
            config, secret = self._tls._tls_config, key.pre_shared
            pynng.nng.check_err(_lib.nng_tls_config_psk(config, key.identity.encode(), secret, len(secret)))
            _lib.nng_stream_dialer_set_ptr(self._dialer[0], b"tls-config", config)
        _lib.nng_stream_dialer_set_bool(self._dialer[0], b"tcp-nodelay", True)
        _lib.nng_stream_dialer_dial(self._dialer[0], self._out)
        _await(self._out)
        self._stream = _ffi.cast("nng_stream *", _lib.nng_aio_get_output(self._out, 0))
        self._write(WE_ARE_A_REQ)
        self._listen()
        heard = self._heard_until(lambda heard: len(heard) >= len(WE_ARE_A_REQ))
        if key is not None:
            self._prove(key, heard[len(WE_ARE_A_REQ) :])

    def _prove(self, key: Key, heard: bytes) -> None:
        heard += b"" if heard.endswith(b"}]}") else self._heard_until(lambda more: more.endswith(b"}]}"))
        [challenge] = json.loads(heard[heard.index(b"{") :])["items"]
        proof = {"kind": "proof", "key": key.id, "proof": key.proof(challenge["nonce"])}
        self.say([json.dumps({"session": "", "seq": 0, "ack": 0, "items": [proof]}).encode()])

    def say(self, bodies: Iterable[bytes]) -> None:
        """Send all of these messages in one write."""
        pack, kind = self._head.pack, self._kind
        self._write(b"".join([pack(*kind, len(body) + 4, REQUEST_ID) + body for body in bodies]))

    def overhears(self) -> bytes:
        """The bytes that have come so far: who does not read is not written to."""
        heard = b""
        while not _lib.nng_aio_busy(self._in):
            count = _await(self._in)
            heard += bytes(_ffi.buffer(self._place, count))
            self._listen()
        return heard

    def settle(self) -> None:
        """Wait until all that was said has been read, by a frame of a session that there is not: that is answered.

        What waits for us beyond some size is dropped, an answer too; so it is asked again.
        """
        mark = f"mark {next(self._marks)}"
        frame = json.dumps({"session": mark, "seq": 0, "ack": 0, "items": []}).encode()
        while True:
            self.say([frame])
            with contextlib.suppress(TimeoutError):
                self._heard_until(lambda heard: mark.encode() in heard, ASK_AGAIN_AFTER)
                return

    def _heard_until(self, enough: Callable[[bytes], bool], deadline: float = PATIENCE) -> bytes:
        ends = time.monotonic() + deadline
        heard = self.overhears()
        while not enough(heard):
            if time.monotonic() > ends:
                raise TimeoutError
            time.sleep(0.0005)
            heard += self.overhears()
        return heard

    def _write(self, data: bytes) -> None:
        kept = _ffi.from_buffer(data)
        sent = 0
        while sent < len(data):
            _set_buffer(self._out, kept + sent, len(data) - sent)
            _lib.nng_stream_send(self._stream, self._out)
            sent += _await(self._out)

    def _listen(self) -> None:
        _set_buffer(self._in, self._place, HEARD_AT_MOST)
        _lib.nng_stream_recv(self._stream, self._in)

    def close(self) -> None:
        """Hang up."""
        _lib.nng_stream_close(self._stream)
        for aio in (self._out, self._in):
            _lib.nng_aio_stop(aio)
            _lib.nng_aio_free(aio)
        _lib.nng_stream_free(self._stream)
        _lib.nng_stream_dialer_free(self._dialer[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _aio() -> Any:
    """What NNG reports to when something asynchronous is done."""
    cell = _ffi.new("nng_aio **")
    pynng.nng.check_err(_lib.nng_aio_alloc(cell, _ffi.NULL, _ffi.NULL))
    return cell[0]


def _set_buffer(aio: Any, place: Any, size: int) -> None:
    vector = _ffi.new("nng_iov *")
    vector.iov_buf, vector.iov_len = place, size
    pynng.nng.check_err(_lib.nng_aio_set_iov(aio, 1, vector))


def _await(aio: Any) -> int:
    """How many bytes went."""
    _lib.nng_aio_wait(aio)
    code = _lib.nng_aio_result(aio)
    if code != 0:
        raise HungUp(_ffi.string(_lib.nng_strerror(code)).decode())
    return int(_lib.nng_aio_count(aio))
