"""A raw socket that says what it likes to a control plane, with or without a key."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import pynng  # type: ignore[import-untyped, unused-ignore]

from fastworker.keys import Key
from fastworker.protocol import PROTOCOL_VERSION

REQUEST_ID = 0x80000001
_lib, _ffi = pynng.lib, pynng.ffi


class HungUp(Exception):
    """The connection was refused, or is gone."""


class Stranger:
    """A connection to a control plane.

    Args:
        url: where that is.
        identity, secret: for TLS, whatever they are.
        kind: a socket of another protocol than ours.

    Attributes:
        session: a name for one.
    """

    def __init__(self, url: str, identity: str = "", secret: bytes = b"", kind: Any = None) -> None:
        options: dict[str, Any] = {"recv_timeout": 3000, "send_timeout": 3000}
        self._socket = kind(**options) if kind else pynng.Req0(opener=_lib.nng_req0_open_raw, **options)
        self._socket.recv_buffer_size = 64
        self.session = secrets.token_hex(8)
        self._heard: set[tuple[str, int]] = set()
        self._gone = threading.Event()
        self._socket.add_post_pipe_remove_cb(lambda _pipe: self._gone.set())
        self._dialer = _ffi.new("nng_dialer *")
        pynng.nng.check_err(_lib.nng_dialer_create(self._dialer, self._socket.socket, url.encode()))
        for option in (b"reconnect-time-min", b"reconnect-time-max"):
            pynng.nng.check_err(_lib.nng_dialer_set_ms(self._dialer[0], option, 3_600_000))  # it stays gone
        if identity:
            self._tls = pynng.TLSConfig(pynng.TLSConfig.MODE_CLIENT)
            code = _lib.nng_tls_config_psk(self._tls._tls_config, identity.encode(), secret, len(secret))
            pynng.nng.check_err(code)
            _lib.nng_dialer_set_ptr(self._dialer[0], b"tls-config", self._tls._tls_config)
        code = _lib.nng_dialer_start(self._dialer[0], 0)
        if code != 0:
            self.close()
            raise HungUp(_ffi.string(_lib.nng_strerror(code)).decode())

    @classmethod
    def with_key(cls, url: str, key: Key) -> Self:
        """One that got through TLS with a role's key, and has not proved it yet."""
        return cls(url, key.identity, key.pre_shared)

    @classmethod
    def proved(cls, url: str, key: Key) -> Self:
        """One that holds a role's key, and has proved it."""
        one = cls.with_key(url, key)
        one.prove(key)
        return one

    def prove(self, key: Key) -> None:
        """Answer the challenge as one should."""
        self.say_frame("", 0, {"kind": "proof", "key": key.id, "proof": key.proof(self.hears_a("challenge")["nonce"])})

    def say(self, body: bytes, header: tuple[int, ...] = (REQUEST_ID,)) -> None:
        """Send these bytes as one message."""
        cell = _ffi.new("nng_msg **")
        _lib.nng_msg_alloc(cell, 0)
        for word in header:
            _lib.nng_msg_header_append_u32(cell[0], word)
        _lib.nng_msg_append(cell[0], body, len(body))
        if _lib.nng_sendmsg(self._socket.socket, cell[0], 0) != 0:
            _lib.nng_msg_free(cell[0])

    def say_frame(self, session: str, seq: int, *items: Any, ack: int = 0) -> None:
        """Send a frame of the protocol."""
        self.say(json.dumps({"session": session, "seq": seq, "ack": ack, "items": items}).encode())

    def hears(self) -> dict[str, Any]:
        """The next frame that carries something, and is not one that was sent again."""
        while True:
            try:
                frame: dict[str, Any] = json.loads(self._socket.recv())
            except pynng.NNGException as error:
                raise HungUp(str(error)) from None
            number = (frame["session"], frame["seq"])
            if frame["items"] and (frame["seq"] == 0 or number not in self._heard):
                self._heard.add(number)
                return frame

    def hears_a(self, kind: str) -> dict[str, Any]:
        """The next message of this kind; all others are skipped."""
        while True:
            for item in self.hears()["items"]:
                if item["kind"] == kind:
                    return dict(item)

    def hears_refusal(self) -> tuple[str, str]:
        """The code and the text of a refusal, which must be the next that comes."""
        [item] = self.hears()["items"]
        assert item["kind"] == "refused"
        return item["code"], item["message"]

    def says_until_gone(self, body: bytes, times: int = 100) -> bool:
        """Say the same again and again, and listen; whether it was hung up on meanwhile."""
        for _ in range(times):
            if not self._gone.is_set():
                self.say(body)
            self.overhears()
        return self._gone.is_set()

    def overhears(self) -> None:
        """Take what has come so far, and throw it away: who does not read is not written to."""
        with contextlib.suppress(pynng.NNGException):
            while True:
                self._socket.recv(block=False)

    def is_hung_up_on(self) -> None:
        """Wait for that; nothing but refusals and the challenge is heard before it."""
        assert self._gone.wait(5), "still connected"
        self._socket.recv_timeout = 50
        with contextlib.suppress(HungUp):
            while True:
                assert {item["kind"] for item in self.hears()["items"]} <= {"refused", "challenge"}

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def stranger(url: str) -> Iterator[Stranger]:
    """A stranger that is connected."""
    with Stranger(url) as one:
        yield one


def hello(role: str = "client", version: int = PROTOCOL_VERSION, **more: Any) -> dict[str, Any]:
    """The first message of a session."""
    return {"kind": "hello", "role": role, "version": version, "name": f"stranger {time.time_ns()}", **more}
