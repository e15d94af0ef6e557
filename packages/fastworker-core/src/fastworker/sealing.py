"""Payload encryption: what tasks carry is readable by clients and workers alone, not by the control plane.

It is on where payload keys are set (`FASTWORKER_PAYLOAD_KEYS`), and takes `pip install 'fastworker[crypto]'`. Then
arguments, results, errors, parts, log lines and progress leave a process only as sealed text:

    fw1.KEY.NAME.DATA        id of the payload key · task name · nonce, ciphertext and tag, in base64url

by AES-256-GCM under a key that follows from the payload key and the task id (HKDF), so that not even 2^32 tasks are too
many for random nonces. What it is sealed for is authenticated with it: the task id, the task name, and which way it
goes. So the control plane can't read it, change it, or put it in the place of another.

Of several keys the first one seals, all of them open: that is how a key is changed.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from fastworker.errors import ConfigurationError, PayloadSealed
from fastworker.keys import KEY_BYTES, hkdf
from fastworker.protocol import Ended, Note, Order, Outcome
from fastworker.settings import load_settings
from fastworker.tasks import ErrorInfo, TaskInfo

Way = Literal["arguments", "schedule", "result", "error", "part", "log", "progress"]

MARK: Final = "fw1."
NONCE_BYTES: Final = 12
SEALED_ERROR: Final = "encrypted"
"""Stands in place of the type of an exception."""
_NOTHING: Final = ("", "[]", "{}", "null")


class Sealer:
    """Seals with the first of these keys, opens with all."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {hkdf(key, "fastworker payload key id")[:4].hex(): key for key in keys}
        self._first = next(iter(self._keys))
        self._cipher = _cipher()

    # ---- text ----------------------------------------------------------------------------------------------------

    def seal(self, way: Way, task_id: str, name: str, text: str) -> str:
        """The text as nobody else can read it, for this task and this way alone."""
        head = f"{MARK}{self._first}.{_encode(name.encode())}"
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._aead(self._first, task_id).encrypt(nonce, text.encode(), _bound(head, way, task_id))
        return f"{head}.{_encode(nonce + sealed)}"

    def open(self, way: Way, task_id: str, sealed: str, name: str | None = None) -> str:
        """The text that was sealed for this task and this way; for this task name, where one is said.

        Raises:
            PayloadSealed: it was not, or we don't have the key.
        """
        what = f"the {way} of task {task_id}"
        try:
            mark, key_id, encoded_name, data = sealed.split(".")
            raw = _decode(data)
            sealed_name = _decode(encoded_name).decode()
        except ValueError:
            mark, key_id, raw, sealed_name = "", "", b"", ""
        if f"{mark}." != MARK:
            raise PayloadSealed(
                f"{what} came in plain text, and with payload keys only sealed ones count: "
                "does the other side have FASTWORKER_PAYLOAD_KEYS?"
            )
        if key_id not in self._keys:
            raise PayloadSealed(f"{what} can't be opened: it was sealed with payload key {key_id}, which is not here")
        try:
            head = sealed.rpartition(".")[0]
            bound = _bound(head, way, task_id)
            text: bytes = self._aead(key_id, task_id).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], bound)
        except Exception:  # cryptography's InvalidTag, or a text that is too short
            raise PayloadSealed(f"{what} can't be opened: it was changed, or is that of something else") from None
        if name is not None and sealed_name != name:
            raise PayloadSealed(f"{what} can't be opened: it was sealed for {sealed_name!r}, not for {name!r}")
        return text.decode()

    def _aead(self, key_id: str, task_id: str) -> Any:
        return self._cipher(hkdf(self._keys[key_id], f"fastworker payload {task_id}"))

    # ---- arguments -----------------------------------------------------------------------------------------------

    def seal_arguments(self, task_id: str, name: str, payload: str) -> str:
        """Arguments of a task, as a JSON string."""
        return _as_json(self.seal("arguments", task_id, name, payload))

    def seal_for_schedule(self, name: str, payload: str) -> str:
        """Arguments of all tasks of a schedule; they have no ids yet, so what holds them together is the name."""
        return _as_json(self.seal("schedule", "", name, payload))

    def blind(self, payload: str) -> str:
        """Stands for arguments where equal ones are to be recognised."""
        return hkdf(self._keys[self._first], f"fastworker unique {payload}").hex()

    # ---- what a worker gets and says -----------------------------------------------------------------------------

    def open_order(self, order: Order) -> Order:
        """An order with everything readable. Raises what `open` raises."""
        args = order.args
        if args not in _NOTHING:
            sealed = _from_json(args)
            try:
                args = self.open("arguments", order.id, sealed, order.name)
            except PayloadSealed as refused:
                try:
                    args = self.open("schedule", "", sealed, order.name)
                except PayloadSealed:
                    raise refused from None
        inputs = order.inputs and {
            task: text if _is_told_by_control_plane(text) else self.open("result", task, _from_json(text))
            for task, text in order.inputs.items()
        }
        return replace(order, args=args, inputs=inputs)

    def seal_outcome(self, outcome: Outcome, name: str) -> Outcome:
        """An outcome with its result and its error sealed."""
        result, error = outcome.result, outcome.error
        if result is not None:
            result = _as_json(self.seal("result", outcome.id, name, result))
        if error is not None:
            whole = json.dumps([error.type, error.message, error.traceback, error.place])
            error = ErrorInfo(SEALED_ERROR, self.seal("error", outcome.id, name, whole))
        return replace(outcome, result=result, error=error)

    def seal_note(self, note: Note, name: str) -> Note:
        """A note with everything sealed."""
        return replace(
            note,
            progress=None,
            sealed_progress=note.progress and self.seal("progress", note.id, name, json.dumps(note.progress)),
            log=[self.seal("log", note.id, name, line) for line in note.log],
            parts=[_as_json(self.seal("part", note.id, name, part)) for part in note.parts],
        )

    # ---- what a client gets --------------------------------------------------------------------------------------

    def open_ended(self, ended: Ended) -> Ended:
        """The end of a task with its result and its error readable. Raises what `open` raises."""
        result, error = ended.result, ended.error
        if result is not None:
            result = self.open("result", ended.id, _from_json(result))
        if error is not None and error.type == SEALED_ERROR:
            error = ErrorInfo(*json.loads(self.open("error", ended.id, error.message)))
        return replace(ended, result=result, error=error)

    def open_note(self, note: Note) -> Note:
        """A note with progress and log readable. Raises what `open` raises."""
        return replace(
            note,
            progress=self._open_progress(note.id, note.sealed_progress),
            sealed_progress=None,
            log=[self.open("log", note.id, line) for line in note.log],
        )

    def open_info(self, info: TaskInfo) -> TaskInfo:
        """What is known of a task, with its progress readable if it opens."""
        with contextlib.suppress(PayloadSealed):
            return replace(info, progress=self._open_progress(info.id, info.sealed_progress), sealed_progress=None)
        return info

    def _open_progress(self, task_id: str, sealed: str | None) -> tuple[float, str] | None:
        if sealed is None:
            return None
        done, text = json.loads(self.open("progress", task_id, sealed))
        return done, text

    def open_part(self, task_id: str, part: str) -> str:
        """A part of a result as JSON. Raises what `open` raises."""
        return self.open("part", task_id, _from_json(part))


@functools.cache
def sealer() -> Sealer | None:
    """That of this process, if payload keys are set.

    Raises:
        ConfigurationError: they are no keys, or the package for it is not installed.
    """
    said = load_settings().payload_keys
    words = said.get_secret_value().replace(",", " ").split() if said else []
    return Sealer([_key(word) for word in words]) if words else None


def refuse_if_sealed(text: str, task_id: str) -> None:
    """Raise `PayloadSealed` for what only a process with payload keys can read."""
    if text.startswith(f'"{MARK}'):
        raise PayloadSealed(f"the result of task {task_id} is encrypted: set FASTWORKER_PAYLOAD_KEYS to read it")


def _key(word: str) -> bytes:
    try:
        key = bytes.fromhex(word)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"a payload key must be {2 * KEY_BYTES} hexadecimal digits: `openssl rand -hex {KEY_BYTES}` makes one"
        )
    return key


def _cipher() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise ConfigurationError("payload keys are set: pip install 'fastworker[crypto]' to use them") from None
    return AESGCM


def _bound(head: str, way: Way, task_id: str) -> bytes:
    """What is authenticated beside the text. None of the parts can hold the line feed that parts them."""
    return f"{head}\n{way}\n{task_id}".encode()


def _is_told_by_control_plane(text: str) -> bool:
    """Whether that is what stands in place of a result that there is not: nothing, or an `UpstreamFailure`."""
    return text in _NOTHING or (text.startswith("{") and set(json.loads(text)) == _FAILURE)


_FAILURE: Final = {"task", "name", "state", "type", "message"}


def _as_json(sealed: str) -> str:
    return f'"{sealed}"'


def _from_json(text: str) -> str:
    return text[1:-1]


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
