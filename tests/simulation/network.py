"""The network: pipes that delay, lose and break, between dialers and the one listener.

It keeps the transport's promises and no more: order within a pipe; what is sent may get lost with it; and each end
notices a broken pipe at its own time, up to which it reads what had arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from fastworker.keys import Key
from tests.simulation.world import Process, VirtualLoop, World

OnMessage = Callable[[int, bytes], None]
OnPipe = Callable[[int], None]
OnTurn = Callable[[], None]

NOTICE = 0.004
"""A broken pipe is noticed within so many seconds."""
DIAL_AGAIN = (0.05, 0.5)


@dataclass
class Link:
    """The way of one process to the control plane: how good it is now."""

    random: Random
    delay: tuple[float, float] = (0.0001, 0.002)
    drop: float = 0.0
    refuse: float = 0.0
    parted_until: float = 0.0

    def travel(self) -> float:
        """Seconds that the next frame takes."""
        return self.random.uniform(*self.delay)


@dataclass
class Contact:
    """What the control plane can know of one process: the physical truth that judges the engine."""

    heard_at: float
    down_since: float | None = None


@dataclass
class Network:
    """All pipes."""

    world: World
    seed: str
    listener: SimListener | None = None
    links: dict[str, Link] = field(default_factory=dict)
    dialers: dict[str, SimDialer] = field(default_factory=dict)
    contacts: dict[str, Contact] = field(default_factory=dict)
    pipes_made: int = 0
    last_arrival: float = 0.0
    """Of all that is under way; what was sent over a link that is parted arrives late, even if its sender is dead."""

    def link(self, name: str) -> Link:
        """The way of this process."""
        if name not in self.links:
            self.links[name] = Link(Random(f"{self.seed}/link/{name}"))
        return self.links[name]

    def contact(self, name: str) -> Contact:
        """What is known of this process."""
        return self.contacts.setdefault(name, Contact(self.world.now))

    def part(self, name: str, seconds: float, *, cut: bool) -> None:
        """Nothing passes for a while; what was sent arrives afterwards, unless the connection breaks too."""
        self.link(name).parted_until = self.world.now + seconds
        dialer = self.dialers.get(name)
        if cut and dialer is not None and dialer.pipe is not None:
            dialer.pipe.cut(NOTICE if seconds < 1 else seconds / 2)

    def cut(self, name: str, notice: float = NOTICE) -> None:
        """Break the connection."""
        dialer = self.dialers.get(name)
        if dialer is not None and dialer.pipe is not None:
            dialer.pipe.cut(notice)


class Pipe:
    """One connection."""

    def __init__(self, network: Network, dialer: SimDialer, listener: SimListener) -> None:
        network.pipes_made += 1
        self._network = network
        self.id = network.pipes_made
        self.dialer = dialer
        self.listener = listener
        self.broken_at: float | None = None
        self._link = dialer.link
        self._world = network.world
        self._last = {True: 0.0, False: 0.0}

    def send(self, body: bytes, *, up: bool) -> bool:
        """Send towards the listener (`up`) or the dialer."""
        link = self._link
        if link.refuse and link.random.random() < link.refuse:
            return False
        if self.broken_at is None and not (link.drop and link.random.random() < link.drop):
            start = max(self._world.now, link.parted_until)
            self._last[up] = when = max(self._last[up], start + link.travel())
            self._network.last_arrival = max(self._network.last_arrival, when)
            end = self.listener if up else self.dialer
            end.process.loop.call_io(when, self._arrive, body, up)
        return True

    def _arrive(self, body: bytes, up: bool) -> None:
        if self.broken_at is not None and self._link.random.random() < 0.5:
            return
        if up:
            self.listener.arrive(self, body)
        elif self.dialer.pipe is self:
            self.dialer.arrive(self, body)

    def cut(self, notice: float = NOTICE) -> None:
        """Break; each end notices at its own time."""
        if self.broken_at is None:
            self.broken_at = self._world.now
            random = self._link.random
            self.dialer.process.loop.call_io(self._world.now + random.uniform(0, notice), self.dialer.lose, self)
            self.listener.process.loop.call_io(self._world.now + random.uniform(0, notice), self.listener.lose, self)


class SimListener:
    """Stands for `fastworker.transport.Listener`."""

    def __init__(self, network: Network, process: Process) -> None:
        self.network = network
        self.process = process
        self.pipes: dict[int, Pipe] = {}
        self.listening = False
        self._turning = False
        process.on_kill.append(self.close)

    def open(self, on_message: OnMessage, on_connect: OnPipe, on_disconnect: OnPipe, on_turn: OnTurn) -> None:
        self._on_message, self._on_connect = on_message, on_connect
        self._on_disconnect, self._on_turn = on_disconnect, on_turn

    def listen(self, url: str, keys: Sequence[Key] = ()) -> None:
        self.listening = True
        self.network.listener = self

    def send(self, pipe: int, body: bytes) -> bool:
        known = self.pipes.get(pipe)
        return known is not None and known.send(body, up=False)

    def peer_uid(self, pipe: int) -> int | None:
        return None

    def is_locked(self, pipe: int) -> bool:
        return False

    def certified_name(self, pipe: int) -> str | None:
        return None

    def disconnect(self, pipe: int) -> None:
        if pipe in self.pipes:
            self.pipes[pipe].cut()

    def close(self) -> None:
        self.listening = False
        if self.network.listener is self:
            self.network.listener = None
        for pipe in list(self.pipes.values()):
            pipe.cut()

    # ---- from the network ----------------------------------------------------------------------------------------

    def welcome(self, pipe: Pipe) -> None:
        """A dialer got through."""
        self.pipes[pipe.id] = pipe
        self.process.loop.call_io(self.network.world.now, self._on_connect, pipe.id)

    def arrive(self, pipe: Pipe, body: bytes) -> None:
        if pipe.id not in self.pipes:
            return
        contact = self.network.contact(pipe.dialer.process.name)
        contact.heard_at = self.network.world.now
        contact.down_since = None
        self._on_message(pipe.id, body)
        if not self._turning:
            self._turning = True
            self.process.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        self._on_turn()

    def lose(self, pipe: Pipe) -> None:
        """The break of a pipe is noticed."""
        if self.pipes.pop(pipe.id, None) is None:
            return
        name = pipe.dialer.process.name
        if not any(other.dialer.process.name == name for other in self.pipes.values()):
            self.network.contact(name).down_since = self.network.world.now
        self._on_disconnect(pipe.id)


class SimDialer:
    """Stands for `fastworker.transport.Dialer`."""

    def __init__(self, network: Network, loop: VirtualLoop) -> None:
        self.network = network
        self.process = loop.process
        self.link = network.link(self.process.name)
        self.pipe: Pipe | None = None
        self.closed = False
        network.dialers[self.process.name] = self
        self.process.on_kill.append(self.close)

    def open(self, on_message: OnMessage, on_connect: OnPipe, on_disconnect: OnPipe, on_turn: OnTurn) -> None:
        self._on_message, self._on_connect = on_message, on_connect
        self._on_disconnect, self._on_turn = on_disconnect, on_turn

    def dial(self, url: str, key: Key | None = None) -> None:
        self._try_later(0.0)

    def send(self, body: bytes) -> bool:
        return self.pipe is not None and not self.closed and self.pipe.send(body, up=True)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self.pipe is not None:
                self.pipe.cut()

    # ---- from the network ----------------------------------------------------------------------------------------

    def _try_later(self, delay: float) -> None:
        self.process.loop.call_io(self.network.world.now + delay, self._try)

    def _try(self) -> None:
        listener = self.network.listener
        parted = self.network.world.now < self.link.parted_until
        if self.closed or self.pipe is not None:
            return
        if listener is None or parted or listener.process.stopped:
            self._try_later(self.link.random.uniform(*DIAL_AGAIN))
            return
        self.pipe = Pipe(self.network, self, listener)
        listener.welcome(self.pipe)
        self._on_connect(self.pipe.id)

    def arrive(self, pipe: Pipe, body: bytes) -> None:
        if not self.closed:
            self._on_message(pipe.id, body)
            self._on_turn()

    def lose(self, pipe: Pipe) -> None:
        """The break of a pipe is noticed."""
        if self.pipe is pipe:
            self.pipe = None
            if not self.closed:
                self._on_disconnect(pipe.id)
                self._try_later(self.link.random.uniform(*DIAL_AGAIN))
