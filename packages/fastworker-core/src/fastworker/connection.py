"""A peer's connection to the control plane: a session over a dialer, kept alive across reconnects and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from fastworker.addresses import is_encrypted, is_insecure
from fastworker.credentials import Credential
from fastworker.errors import ConfigurationError, ForkError, ProtocolMismatch
from fastworker.forks import refuse_if_forked
from fastworker.keys import Key
from fastworker.pipe import PipeId
from fastworker.protocol import (
    Batch,
    Challenge,
    Frame,
    FromPeer,
    Goodbye,
    Hello,
    MalformedFrame,
    Message,
    Proof,
    Refused,
    Watch,
    Welcome,
    decode,
    encode,
)
from fastworker.route import Route
from fastworker.session import NEVER, Session
from fastworker.transport import Dialer

logger = logging.getLogger("fastworker.connection")

COME_BACK_WITHIN: Final = 1.0
"""Seconds in which the dialer, which dials the same address again, most often succeeds; then others are tried too."""
SILENT_AFTER: Final = 5.0
"""Seconds without a word in which what was said must be acknowledged, or the cable is cut though nobody told us."""
SLOWEST_LINK: Final = 100_000
"""Bytes a second; larger frames get more time."""
ASK_AFTER: Final = 3.0
"""Seconds of silence after which something is said over the network, so that an acknowledgement must come."""
WATCH_EVERY: Final = 1.0
SENT_TOGETHER: Final = 32
"""Messages of one turn of the event loop that make a frame: so the control plane works on them while we say more."""


class Connection:
    """Delivers messages to and from the control plane, in order, once.

    Args:
        url: where the control plane listens; several addresses with commas between them, or `lan://`, if it may
            be at one of several places.
        credential: the key of a role or certificates, where an address needs them.
        hello: makes the first message of each session.
        on_message: gets each message, in the event loop.
        on_welcome: is called when a session has begun; whatever the control plane must know is to be said again.
    """

    def __init__(
        self,
        url: str,
        credential: Credential | None,
        *,
        hello: Callable[[], Hello],
        on_message: Callable[[Message], None],
        on_welcome: Callable[[Welcome], None],
    ) -> None:
        self.url = url
        self._credential = credential
        self._shown: Credential | None = None  # what the address that was dialled last is shown
        self._route = Route(url, credential)
        self._address = ""
        self._looking: asyncio.Task[None] | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._hello = hello
        self._on_message = on_message
        self._on_welcome = on_welcome
        self._session = Session()
        self._pipe: PipeId | None = None
        self._welcomed: asyncio.Future[None] | None = None
        self._settled: asyncio.Event | None = None
        self._here = asyncio.Event()
        self._gone = asyncio.Event()
        self._flush_soon = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = NEVER
        self._closed = False

    async def open(self, timeout: float | None) -> None:
        """Dial, and wait to be welcomed.

        Raises:
            TimeoutError: nobody welcomed us in time; the connection is closed.
            Refused: the control plane wants nothing to do with us.
            ConfigurationError: several control planes are on the network, and none was named.
        """
        self._loop = asyncio.get_running_loop()
        self._dialer = Dialer(self._loop)
        self._welcomed = self._loop.create_future()
        self._session.post(self._hello())
        self._dialer.open(self._received, self._connected, self._disconnected, self.flush)
        try:
            if self._route.only is not None:
                self._dial(self._route.only)
            else:
                self._looking = asyncio.create_task(self._look())
            await asyncio.wait_for(asyncio.shield(self._welcomed), timeout)
        except BaseException:
            self._shut()
            raise

    # ---- the way -------------------------------------------------------------------------------------------------

    def _dial(self, address: str) -> None:
        """Dial this address, and no longer the one before."""
        if is_insecure(address) and address != self._address:
            logger.warning("INSECURE: %s is plain TCP: whoever is on the way reads along, and may change it", address)
        self._address = address
        self._heard_at = self._loop.time()
        self._shown = self._credential if is_encrypted(address) else None
        self._dialer.dial(address, self._shown)

    async def _look(self) -> None:
        """Try one place after the other; again whenever the control plane is gone for more than a moment."""
        while not self._closed:
            try:
                if await self._reach():
                    await self._until_gone()
            except ConfigurationError as error:
                if self._welcomed is not None and not self._welcomed.done():
                    self._welcomed.set_exception(error)
                    return
                logger.warning("%s", error)
                await asyncio.sleep(COME_BACK_WITHIN)

    async def _reach(self) -> bool:
        """Go round once; whether somebody answered."""
        for place in self._route.places:
            for address in await self._route.addresses(place):
                self._dial(address)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._route.turn(address)):
                        await self._here.wait()
                    self._route.reached(address)
                    return True
        self._route.went_round()
        return False

    async def _until_gone(self) -> None:
        while True:
            await self._gone.wait()
            try:
                async with asyncio.timeout(COME_BACK_WITHIN):
                    await self._here.wait()
            except TimeoutError:
                return

    def _watch_soon(self) -> None:
        if self._watching is None and "tcp://" in self._address:
            self._watching = self._loop.call_later(WATCH_EVERY, self._watch)

    def _watch(self) -> None:
        """A network that has gone tells nobody: say something into a silence, and dial anew if it goes on."""
        self._watching = None
        if self._pipe is None or self._closed:
            return
        silence = self._loop.time() - self._heard_at
        patience = SILENT_AFTER + self._session.unacknowledged_bytes / SLOWEST_LINK
        if self._session.idle and silence > ASK_AFTER:
            self.post(Watch([]))
        elif not self._session.idle and silence > patience:
            logger.warning("nothing was heard of the control plane at %s for %.0f s", self._address, silence)
            self._disconnected(self._pipe)
            self._dial(self._address)
            return
        self._watch_soon()

    # ---- what is said --------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the control plane is there now."""
        return self._pipe is not None

    async def until_connected(self) -> None:
        """Wait until the control plane is there."""
        await self._here.wait()

    @property
    def backlog(self) -> int:
        """Messages that wait to be sent."""
        return self._session.backlog

    def post(self, message: FromPeer, size: int = 64) -> None:
        """Send a message, together with what else is said in this turn of the loop."""
        self._usable()
        self._session.post(message, size)
        self._flush_in_a_moment()

    def post_item(self, batch: type[Batch], item: object, size: int = 64) -> None:
        """Send one item of a batch message, likewise."""
        self._usable()
        self._session.post_item(batch, item, size)
        self._flush_in_a_moment()

    def _usable(self) -> None:
        try:
            refuse_if_forked()
        except ForkError:
            self._closed = True
            raise
        if self._closed:
            raise ConnectionResetError("the connection was closed")

    async def close(self, timeout: float = 2.0) -> None:
        """Say goodbye, wait until all that was said has been received, and close."""
        if self._closed:
            return
        try:
            if self._pipe is not None:
                self.post(Goodbye())
                await self.settle(timeout)
        finally:
            self._shut()

    async def settle(self, timeout: float) -> bool:
        """Wait until the control plane has received all that was posted; False if that took too long."""
        self._settled = asyncio.Event()
        self.flush()
        try:
            async with asyncio.timeout(timeout):
                while not self._session.idle:
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            return False
        finally:
            self._settled = None
        return True

    def _shut(self) -> None:
        self._closed = True
        for timer in (self._timer, self._watching):
            if timer is not None:
                timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
        self._dialer.close()

    # ---- out -----------------------------------------------------------------------------------------------------

    def _flush_in_a_moment(self) -> None:
        """Send the first message of a turn at once, and what else is said in this turn together, in a few frames."""
        if not self._flush_soon:
            self._flush_soon = True
            self._loop.call_soon(self._turn_ended)
            self.flush()
        elif self._session.backlog % SENT_TOGETHER == 0:
            self.flush()

    def _turn_ended(self) -> None:
        self._flush_soon = False
        self.flush()

    def flush(self) -> None:
        """Send what can be sent now."""
        if self._pipe is None or self._closed:
            return
        now = self._loop.time()
        for body in self._session.outgoing(now):
            self._dialer.send(body)
        self._set_timer()

    def _set_timer(self) -> None:
        """See to it that the session is looked at when it is due, or before: a timer that is early looks again."""
        due = self._session.due()
        if due >= self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer_due = NEVER
        now = self._loop.time()
        if self._session.due() > now:
            self._set_timer()
            return
        self._session.tick(now)
        self.flush()

    # ---- in ------------------------------------------------------------------------------------------------------

    def _connected(self, pipe: PipeId) -> None:
        if not isinstance(self._shown, Key):
            self._go_on(pipe)

    def _prove(self, pipe: PipeId, challenge: Challenge, key: Key) -> None:
        """Show that we hold the key; before, nothing that we say would be listened to."""
        proof = Proof(key.id, key.proof(challenge.nonce))
        self._dialer.send(encode(Frame("", 0, 0, [proof])))
        self._go_on(pipe)

    def _go_on(self, pipe: PipeId) -> None:
        """The session goes on over this connection."""
        self._pipe = pipe
        self._heard_at = self._loop.time()
        self._gone.clear()
        self._here.set()
        self._watch_soon()
        self._session.reconnected(self._loop.time())
        if self._session.idle:
            self._dialer.send(self._session.bare_acknowledgement())  # are we still known?
        self.flush()

    def _disconnected(self, pipe: PipeId) -> None:
        if self._pipe == pipe:
            self._pipe = None
            self._here.clear()
            self._gone.set()

    def _received(self, pipe: PipeId, body: bytes) -> None:
        try:
            frame = decode(body)
        except MalformedFrame as error:
            logger.warning("dropped a frame of the control plane that can't be read: %s", error)
            return
        if self._closed:
            return
        self._heard_at = self._loop.time()
        match frame.items:
            case [Challenge() as challenge] if isinstance(self._shown, Key):
                self._prove(pipe, challenge, self._shown)
        if frame.session != self._session.id:
            return
        self._take(frame)
        if self._settled is not None and self._session.idle:
            self._settled.set()

    def _take(self, frame: Frame) -> None:
        for message in self._session.receive(frame, self._loop.time()):
            match message:
                case Welcome():
                    self._welcome(message)
                case Refused(request=None):
                    self._refused(message)
                case _:
                    self._on_message(message)

    def _welcome(self, welcome: Welcome) -> None:
        self._on_welcome(welcome)
        if self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_result(None)

    def _refused(self, refused: Refused) -> None:
        if refused.code == "unknown-session":
            self._session.restart()
            self._session.post(self._hello())
            return
        error = refusal(refused)
        if self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_exception(error)
        else:
            logger.error("the control plane refused a frame of ours: %s", error)


def refusal(refused: Refused) -> Exception:
    """The error for a refusal."""
    from fastworker import errors

    match refused.code:
        case "version":
            return ProtocolMismatch(refused.message, refused.code)
        case "unknown-task":
            return errors.UnknownTask(refused.message)
        case "unknown-dependency":
            return errors.UnknownDependency(refused.message)
        case "duplicate":
            return errors.DuplicateSubmission(refused.message)
        case "too-large":
            return errors.PayloadTooLarge(refused.message)
        case "schedule":
            return errors.ScheduleError(refused.message)
        case "too-many-schedules":
            return errors.TooManySchedules(refused.message)
        case "not-allowed":
            return errors.NotAllowed(refused.message, refused.code)
        case _:
            return errors.Refused(refused.message, refused.code)
