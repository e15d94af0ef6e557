"""Reliable, ordered delivery of messages over a transport that may drop them. Pure: no I/O, no clock.

Each end numbers its frames 1, 2, 3 … and keeps at most `WINDOW` of them unacknowledged. What arrives in order is
delivered once and acknowledged; what arrives out of order or twice is dropped (go-back-N). Unacknowledged frames are
sent again after a reconnect, or after `RESEND_AFTER` seconds. What is posted while the window is full goes out as one
frame when it opens: batching without timers.

An end that has lost its memory answers `Refused("unknown-session")`; the peer then calls `restart` and introduces
itself again. An acknowledgement means *received*, no more: `Accepted` and `Recorded` say what is safe.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, cast

from fastworker.protocol import MAX_FRAME_BYTES, Batch, Frame, Message, Refused, encode

WINDOW: Final = 16
"""Unacknowledged frames per direction: far fewer than the transport keeps for a peer that does not read."""
ACK_AFTER: Final = 0.002
"""Seconds that an acknowledgement waits for data to ride on."""
RESEND_AFTER: Final = 1.0
RESEND_AT_MOST_EVERY: Final = 16.0
MAX_ITEMS: Final = 1000
"""Items in one batch message."""
FRAME_BYTES: Final = 256 * 1024
"""A frame is closed once its payloads exceed this many bytes; one larger payload goes alone."""
NEVER: Final = float("inf")


@dataclass(slots=True)
class _Pending:
    message: Message
    bytes: int
    items: int


class Session:
    """One end of one session.

    Args:
        session_id: `None` makes a new one (the peer's end).
    """

    def __init__(self, session_id: str | None = None) -> None:
        self.id = session_id or secrets.token_hex(8)
        self._pending: deque[_Pending] = deque()
        self._without_hurry = 0  # of these
        self._unacknowledged: deque[tuple[int, bytes]] = deque()
        self._sent = 0  # the last seq of ours
        self._received = 0  # the last seq of theirs that came in order
        self._ack_due = NEVER
        self._resend_due = NEVER
        self._resend_wait = RESEND_AFTER
        self._resending: list[tuple[int, bytes]] = []

    # ---- outgoing ------------------------------------------------------------------------------------------------

    def post(self, message: Message, size: int = 64) -> None:
        """Queue a message as it is: no item joins it. `size`: roughly its bytes, where it carries payloads."""
        self._pending.append(_Pending(message, size, MAX_ITEMS))

    def post_without_hurry(self, message: Message, now: float) -> None:
        """Queue a message that can wait as long as an acknowledgement for something to ride on."""
        self.post(message)
        self._without_hurry += 1
        self._ack_due = min(self._ack_due, now + ACK_AFTER)

    def post_item(self, batch: type[Batch], item: Any, size: int = 64) -> None:
        """Queue one item of a batch message; joins the last message if that is of the same kind."""
        if self._pending:
            last = self._pending[-1]
            if type(last.message) is batch and last.items < MAX_ITEMS and last.bytes + size <= FRAME_BYTES:
                cast("list[object]", last.message.items).append(item)
                last.items += 1
                last.bytes += size
                return
        self._pending.append(_Pending(batch([item]), size, 1))

    def outgoing(self, now: float) -> list[bytes]:
        """The frames to be sent now. Those that the transport does not take are sent again in time."""
        frames = [body for _, body in self._resending]  # with the acknowledgement of their time
        self._resending.clear()
        sent_before = self._sent
        while self._pending and len(self._unacknowledged) < WINDOW:
            self._sent += 1
            body = self._next_body()
            self._unacknowledged.append((self._sent, body))
            frames.append(body)
        if self._sent > sent_before:
            self._ack_due = NEVER
            self._without_hurry = 0
        elif self._ack_due <= now:
            self._ack_due = NEVER
            frames.append(self.bare_acknowledgement())
        if self._resend_due == NEVER and self._unacknowledged:
            self._resend_due = now + self._resend_wait
        return frames

    def bare_acknowledgement(self) -> bytes:
        """A frame that carries nothing: acknowledges, and after a reconnect asks whether we are still known."""
        return encode(Frame(self.id, 0, self._received, []))

    def _next_body(self) -> bytes:
        messages = self._next_messages()
        body = encode(Frame(self.id, self._sent, self._received, messages))
        if len(body) <= MAX_FRAME_BYTES:
            return body
        # The sizes were estimates, and wrong: one message a frame; and a refusal for what is too large even so.
        self._pending.extendleft(_Pending(message, FRAME_BYTES, MAX_ITEMS) for message in reversed(messages[1:]))
        body = encode(Frame(self.id, self._sent, self._received, messages[:1]))
        if len(body) > MAX_FRAME_BYTES:
            body = encode(Frame(self.id, self._sent, self._received, [_refusal(messages[0], len(body))]))
        return body

    def _next_messages(self) -> list[Message]:
        size = 0
        messages: list[Message] = []
        while self._pending and (not messages or size + self._pending[0].bytes <= FRAME_BYTES):
            pending = self._pending.popleft()
            size += pending.bytes
            messages.append(pending.message)
        return messages

    # ---- incoming ------------------------------------------------------------------------------------------------

    def receive(self, frame: Frame, now: float) -> list[Message]:
        """Take in a frame; the messages that it newly delivers, in order."""
        self.acknowledge(frame.ack, now)
        if frame.seq == 0:
            return frame.items
        if frame.seq == self._received + 1:
            self._received = frame.seq
            self._ack_due = min(self._ack_due, now + ACK_AFTER)
            return frame.items
        self._ack_due = now  # a duplicate or a gap: tell at once what we have
        return []

    def acknowledge(self, ack: int, now: float) -> None:
        """The other end has all frames up to this one."""
        if not self._unacknowledged or ack < self._unacknowledged[0][0] or ack > self._sent:
            return
        while self._unacknowledged and self._unacknowledged[0][0] <= ack:
            self._unacknowledged.popleft()
        self._resend_wait = RESEND_AFTER
        self._resend_due = now + RESEND_AFTER if self._unacknowledged else NEVER

    # ---- time and connection -------------------------------------------------------------------------------------

    def due(self) -> float:
        """When `tick` wants to be called."""
        return min(self._ack_due, self._resend_due)

    def tick(self, now: float) -> None:
        """Time has passed: what stayed unacknowledged is sent again by the next `outgoing`."""
        if self._resend_due <= now:
            self._resending = list(self._unacknowledged)
            self._resend_wait = min(self._resend_wait * 2, RESEND_AT_MOST_EVERY)
            self._resend_due = now + self._resend_wait if self._unacknowledged else NEVER

    def reconnected(self, now: float) -> None:
        """A new connection carries the session: send what is unacknowledged again."""
        self._resending = list(self._unacknowledged)
        self._resend_wait = RESEND_AFTER
        self._resend_due = now + RESEND_AFTER if self._unacknowledged else NEVER

    def restart(self) -> None:
        """The other end does not know us any more: begin a new session and forget everything of the old one."""
        self.__init__()  # type: ignore[misc]

    @property
    def idle(self) -> bool:
        """Nothing is left to be sent or acknowledged."""
        return not self._pending and not self._unacknowledged

    @property
    def unacknowledged_bytes(self) -> int:
        """The size of the frames that were sent and not acknowledged."""
        return sum(len(body) for _, body in self._unacknowledged)

    @property
    def in_hurry(self) -> bool:
        """Whether messages wait that are to go as soon as the window is open."""
        return len(self._pending) > self._without_hurry

    @property
    def backlog(self) -> int:
        """Messages that wait for the window to open."""
        return len(self._pending)


def _refusal(message: Message, size: int) -> Refused:
    """What the other end gets in place of a message that no frame can carry."""
    what = f"a message of kind {message.kind} takes {size:,} bytes, over the limit of {MAX_FRAME_BYTES:,}"
    return Refused("too-large", what, getattr(message, "request", None))
