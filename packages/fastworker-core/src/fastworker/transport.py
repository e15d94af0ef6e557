"""Messages between the control plane and its peers: one `Listener` there, a `Dialer` in every peer.

Both ends may send at any time, and sending never blocks: what can't be taken now (`send` returns False)
is the session's to send again.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from fastworker.byte_streams import OpenStream, Stream
from fastworker.credentials import Certificates, Credential
from fastworker.errors import AddressInUse
from fastworker.forks import refuse_if_forked
from fastworker.keys import Key
from fastworker.nng import hand_over
from fastworker.nng_streams import BAD_CREDENTIALS, HUNG_UP, NOBODY_LISTENS, StreamDialer, StreamListener
from fastworker.pipe import (
    GREETING_OF_DIALER,
    GREETING_OF_LISTENER,
    LocalPipe,
    Pipe,
    PipeEnded,
    PipeId,
    StreamPipe,
)
from fastworker.protocol import MAX_FRAME_BYTES
from fastworker.unix_sockets import UnixDialer, UnixListener

OnMessage = Callable[[PipeId, bytes], None]
OnPipe = Callable[[PipeId], None]
OnTurn = Callable[[], None]

MESSAGES_PER_TURN: Final = 64
"""How many messages one turn of the event loop takes in before others get theirs."""
MESSAGES_AT_ONCE: Final = 16
"""How many of these come from one peer before the others get their turn: as many as a session's window has."""
GREETING_WITHIN: Final = 10.0
"""Seconds that the other end has to greet, and to prove itself if TLS wants that."""
MOST_GREETING: Final = 1000
"""Connections that may be at that at once; beyond, the oldest go."""
TOO_LATE: Final = -1
"""No code of NNG's: the other end did not greet in time."""
RECONNECT: Final = (0.05, 0.5)
"""Seconds, from and to, between two attempts to connect."""
WATCHES_UNIX_SOCKETS: Final = sys.platform == "linux"
"""Whether the event loop does that itself; elsewhere it may be unable to, and NNG does."""


class _End:
    """What both ends share: pipes, whose messages and events are told in the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_bytes: int) -> None:
        refuse_if_forked()
        self._loop = loop
        self.max_bytes = max_bytes
        self.closed = False
        self._pipes: dict[PipeId, Pipe] = {}
        self._greeting: dict[PipeId, tuple[Pipe, float]] = {}  # those that have not yet greeted; the oldest first
        self._numbers = itertools.count(1)
        self._ready: deque[Pipe] = deque()
        self._turn_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._on_message: OnMessage = _ignore_message
        self._on_turn: OnTurn = _ignore_turn
        self._on_connect: OnPipe = _ignore_pipe
        self._on_disconnect: OnPipe = _ignore_pipe

    def open(self, on_message: OnMessage, on_connect: OnPipe, on_disconnect: OnPipe, on_turn: OnTurn) -> None:
        """Start to receive. All callbacks run in the event loop; `on_turn` after the messages that came together."""
        self._on_message = on_message
        self._on_turn = on_turn
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect

    # ---- pipes that have something to tell -----------------------------------------------------------------------

    def _is_ready(self, pipe: Pipe) -> None:
        """In any thread. Those that come together wake the event loop once."""
        self._ready.append(pipe)
        if not self._turn_is_due:
            self._turn_is_due = True
            hand_over(self._loop, self._turn)

    def _is_ready_here(self, pipe: Pipe) -> None:
        """The same, in the event loop."""
        self._ready.append(pipe)
        self._call_turn()

    def _call_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False  # from here on, who comes makes another one due
        left = MESSAGES_PER_TURN
        try:
            while self._ready and left > 0 and not self.closed:
                left -= max(1, self._serve(self._ready.popleft()))
        finally:
            if self._ready and not self.closed:
                self._call_turn()
        if not self.closed:
            self._on_turn()

    def _serve(self, pipe: Pipe) -> int:
        """Take in what came from one; how many messages."""
        if pipe.closed:
            return 0
        try:
            bodies = pipe.take(MESSAGES_AT_ONCE)
        except PipeEnded as ended:
            self._lost(pipe, ended.code)
            return 0
        if pipe.greeted and pipe.number not in self._pipes:
            self._greeting.pop(pipe.number, None)
            self._pipes[pipe.number] = pipe
            self._connected(pipe)
        for body in bodies:
            if not pipe.closed:
                self._on_message(pipe.number, body)
        return len(bodies)

    def _connected(self, pipe: Pipe) -> None:
        self._on_connect(pipe.number)

    def _lost(self, pipe: Pipe, code: int | None) -> None:
        """It is over; `code`: NNG's reason, None if the peer does not speak the protocol."""
        pipe.close()
        if self.closed:
            return
        self._greeting.pop(pipe.number, None)
        if self._pipes.pop(pipe.number, None) is not None:
            self._on_disconnect(pipe.number)
        else:
            self._never_greeted(code)

    def _never_greeted(self, code: int | None) -> None:
        raise NotImplementedError

    # ---- greetings -----------------------------------------------------------------------------------------------

    def _meet(self, open_stream: OpenStream, url: str, ours: bytes, theirs: bytes, *, locked: bool) -> None:
        """A new connection, that has to greet."""
        number = next(self._numbers)
        pipe = StreamPipe(
            number,
            open_stream,
            ours,
            theirs,
            has_kind=_is_ipc(url),
            locked=locked,
            max_bytes=self.max_bytes,
            on_ready=self._is_ready_here if _is_watched(url) else self._is_ready,
        )
        self._greeting[number] = (pipe, self._loop.time())
        if len(self._greeting) > MOST_GREETING:
            oldest, _ = next(iter(self._greeting.values()))
            self._lost(oldest, TOO_LATE)
        self._watch()

    def _watch(self) -> None:
        """Come back when the oldest silent connection has had its time."""
        if self._timer is None and self._greeting:
            _, since = next(iter(self._greeting.values()))
            self._timer = self._loop.call_at(since + GREETING_WITHIN, self._end_silent)

    def _end_silent(self) -> None:
        self._timer = None
        late = self._loop.time() - GREETING_WITHIN
        for pipe in [pipe for pipe, since in self._greeting.values() if since <= late]:
            self._lost(pipe, TOO_LATE)
        self._watch()

    # ---- sending and closing -------------------------------------------------------------------------------------

    def _send(self, pipe: Pipe | None, body: bytes) -> bool:
        if len(body) > self.max_bytes:
            raise ValueError(f"a frame of {len(body)} bytes is over the limit of {self.max_bytes}")
        return pipe is not None and pipe.send(body)

    def _all(self) -> list[Pipe]:
        return [*self._pipes.values(), *(pipe for pipe, _ in self._greeting.values())]

    def close(self) -> None:
        """Hang up. What was sent but not yet acknowledged may be lost."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        for pipe in [*self._all(), *self._ready]:
            pipe.close()
        self._pipes.clear()
        self._greeting.clear()
        self._ready.clear()


class Listener(_End):
    """The control plane's end: many peers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_bytes: int = MAX_FRAME_BYTES) -> None:
        super().__init__(loop, max_bytes)
        self.refused = Counter({"handshake": 0, "stalled": 0})
        """Connections that never were one: they failed in TLS, did not speak the protocol, or took too long over it."""
        self._listeners: list[StreamListener | UnixListener] = []
        self._locked: list[StreamListener] = []  # those that want a key
        self._local: list[str] = []

    def listen(self, url: str, accepted: Sequence[Key] | Certificates = ()) -> None:
        """Listen at an address too; call after `open`.

        Args:
            url: `inproc://…`, `ipc://…`, `tcp://…` or `tls+tcp://…`.
            accepted: the role keys that open it, or certificates of the same authority; for `tls+tcp` only.

        Raises:
            AddressInUse: another process listens there.
            ConfigurationError: NNG can't listen at such an address.
        """
        if _is_local(url):
            if _local_listeners.setdefault(url, self) is not self:
                raise AddressInUse(f"{url} is taken by another control plane of this process")
            self._local.append(url)
            return
        on_stream = partial(
            self._meet, url=url, ours=GREETING_OF_LISTENER, theirs=GREETING_OF_DIALER, locked=bool(accepted)
        )
        if _is_watched(url):
            self._listeners.append(UnixListener(url, self._loop, on_stream))
            return
        listener = StreamListener(url, accepted, self._loop, on_stream)
        self._listeners.append(listener)
        if accepted and not isinstance(accepted, Certificates):
            self._locked.append(listener)

    def change_keys(self, keys: Sequence[Key]) -> None:
        """From now on other keys open it. One connection that NNG waits for already still meets the old ones."""
        for listener in self._locked:
            listener.change_keys(keys)

    def meet_local(self, dialer: LocalPipe) -> LocalPipe:
        """The other end of a connection within the process; called in the dialer's thread."""
        pipe = LocalPipe(next(self._numbers), self._is_ready)
        pipe.other = dialer
        self._is_ready(pipe)
        if self.closed:
            pipe.close()
        return pipe

    def is_locked(self, pipe: PipeId) -> bool:
        """Whether a connection came in where a key is wanted. If it is gone and nobody knows any more: yes."""
        return self._pipes[pipe].locked if pipe in self._pipes else True

    def certified_name(self, pipe: PipeId) -> str | None:
        """The common name in the certificate of a peer, which TLS has verified; None where there is none."""
        stream = self._stream(pipe)
        return stream.certified_name() if stream is not None else None

    def peer_uid(self, pipe: PipeId) -> int | None:
        """The user id at the other end of an ipc pipe; None where there is none."""
        stream = self._stream(pipe)
        return stream.peer_uid() if stream is not None else None

    def _stream(self, number: PipeId) -> Stream | None:
        pipe = self._pipes.get(number)
        return pipe.stream if isinstance(pipe, StreamPipe) else None

    def send(self, pipe: PipeId, body: bytes) -> bool:
        """Send to one peer; False if it is too slow, or gone."""
        return self._send(self._pipes.get(pipe), body)

    def disconnect(self, pipe: PipeId) -> None:
        """Close one connection."""
        unwanted = self._pipes.get(pipe)
        if unwanted is not None and not unwanted.closed:
            unwanted.close()
            self._loop.call_soon(self._lost, unwanted, None)

    def _never_greeted(self, code: int | None) -> None:
        if code == TOO_LATE:
            self.refused["stalled"] += 1
        elif code is None or code in BAD_CREDENTIALS:
            self.refused["handshake"] += 1

    def close(self) -> None:
        """Hang up, and listen no longer."""
        if not self.closed:
            for url in self._local:
                del _local_listeners[url]
            for listener in self._listeners:
                listener.close()
        super().close()


class Dialer(_End):
    """A peer's end: one control plane, dialled again and again until `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_bytes: int = MAX_FRAME_BYTES) -> None:
        super().__init__(loop, max_bytes)
        self._url = ""
        self._dialer: StreamDialer | UnixDialer | None = None
        self._pipe: Pipe | None = None
        self._wait = RECONNECT[0]
        self._again: asyncio.TimerHandle | None = None
        self._came_of_it: asyncio.Future[int | None] | None = None

    def dial(self, url: str, credential: Credential | None = None) -> None:
        """Connect in the background, again and again; call after `open`. The address dialled before is given up."""
        self._give_up()
        self._url = url
        self._wait = RECONNECT[0]
        if not _is_local(url):
            on_stream = partial(self._meet, url=url, ours=GREETING_OF_DIALER, theirs=GREETING_OF_LISTENER, locked=False)
            if _is_watched(url):
                self._dialer = UnixDialer(url, self._loop, on_stream, self._failed)
            else:
                self._dialer = StreamDialer(url, credential, self._loop, on_stream, self._failed)
        self._dial()

    def _dial(self) -> None:
        self._again = None
        if self._dialer is not None:
            self._dialer.dial()
            return
        listener = _local_listeners.get(self._url)
        if listener is None:
            self._failed(None)
            return
        pipe = LocalPipe(next(self._numbers), self._is_ready)
        pipe.other = listener.meet_local(pipe)
        self._is_ready(pipe)

    def _failed(self, code: int | None) -> None:
        """Try again, a little later each time."""
        self._tell(code)
        self._again = self._loop.call_later(self._wait, self._dial)
        self._wait = min(2 * self._wait, RECONNECT[1])

    def _tell(self, code: int | None) -> None:
        """To who dials once: what came of it."""
        if self._came_of_it is not None and not self._came_of_it.done():
            self._came_of_it.set_result(code)

    def _never_greeted(self, code: int | None) -> None:
        self._failed(code)

    def _connected(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._wait = RECONNECT[0]
        self._tell(0)
        super()._connected(pipe)

    def _lost(self, pipe: Pipe, code: int | None) -> None:
        mine = pipe is self._pipe
        if mine:
            self._pipe = None
        super()._lost(pipe, code)
        if mine and not self.closed:
            self._again = self._loop.call_later(self._wait, self._dial)

    def _stop_dialling(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if self._dialer is not None:
            self._dialer.close()
            self._dialer = None

    def _give_up(self) -> None:
        self._stop_dialling()
        given_up = self._all()
        self._pipe = None
        self._greeting.clear()
        for pipe in given_up:
            pipe.close()
            if pipe.number in self._pipes:
                self._loop.call_soon(self._lost, pipe, None)

    async def dial_once(self, url: str, credential: Credential | None, timeout: float) -> str:
        """Dial once, and close; what came of it in a few words."""
        self._came_of_it = self._loop.create_future()
        try:
            self.dial(url, credential)
            async with asyncio.timeout(timeout):
                return _in_words(await self._came_of_it)
        except TimeoutError:
            return "no answer"
        finally:
            self.close()

    def send(self, body: bytes) -> bool:
        """Send to the control plane; False if it is too slow, or away."""
        return self._send(self._pipe, body)

    def close(self) -> None:
        """Hang up, and dial no longer."""
        if not self.closed:
            self._stop_dialling()
        super().close()


_local_listeners: dict[str, Listener] = {}


def _is_local(url: str) -> bool:
    return url.startswith("inproc://")


def _is_ipc(url: str) -> bool:
    return url.startswith("ipc://")


def _is_watched(url: str) -> bool:
    return WATCHES_UNIX_SOCKETS and _is_ipc(url)


def _in_words(code: int | None) -> str:
    if code == 0:
        return "something listens there, but it does not answer"
    if code in NOBODY_LISTENS:
        return "nobody listens there"
    if code in BAD_CREDENTIALS:
        return "refused: the cluster keys differ"
    if code is None or code in HUNG_UP:
        return "refused: the cluster keys differ, or it is no control plane"
    return "no answer"


async def why_unreachable(url: str, credential: Credential | None, timeout: float = 1.0) -> str:
    """Why nobody welcomes us at an address, as far as can be found out."""
    return await Dialer(asyncio.get_running_loop()).dial_once(url, credential, timeout)


def _ignore_message(pipe: PipeId, body: bytes) -> None:
    """Before `open` nothing is delivered."""


def _ignore_turn() -> None:
    """Before `open` there are no turns."""


def _ignore_pipe(pipe: PipeId) -> None:
    """Before `open` nobody is told."""
