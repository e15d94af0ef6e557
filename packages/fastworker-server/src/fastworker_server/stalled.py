"""Ends connections that take too long over the TLS handshake, or are too many in it: NNG lets them stay for ever.

NNG tells of a connection only once it is a pipe. Before that it is a descriptor of this process and nothing else. So
every two seconds a thread looks through the descriptors; one that is connected to a port of ours and belongs to no
pipe is in its handshake. Where a system does not list descriptors (Windows), nothing is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from fastworker_server.door import HANDSHAKE, Door

LOOK_EVERY: Final = 2.0
MOST_HANDSHAKES: Final = 1000
"""Connections that may be in their handshake at once; beyond, the oldest go."""
DESCRIPTORS: Final = Path("/dev/fd")
AT_A_TIME: Final = 200
"""Descriptors after which the thread lets others go on."""

Address = tuple[str, int]


async def end_stalled(urls: Iterable[str], door: Door) -> None:
    """Look, as long as the control plane runs."""
    ports = {port for port in map(_port, urls) if port}
    since: dict[Address, float] = {}
    while ports and DESCRIPTORS.is_dir():
        await asyncio.sleep(LOOK_EVERY)
        ended = await asyncio.to_thread(_look, ports, since, door)
        door.refused["stalled"] += ended


def _port(url: str) -> int:
    digits = url.rpartition(":")[2]
    return int(digits) if url.startswith(("tcp://", "tls+tcp://")) and digits.isdecimal() else 0


def _look(ports: set[int], since: dict[Address, float], door: Door) -> int:
    """End those that are late; how many. `since` remembers when each was seen first."""
    now = time.monotonic()
    found: dict[Address, int] = {}
    for number, (descriptor, address) in enumerate(_connected_to(ports)):
        if address not in door.addresses:
            found[address] = descriptor
        if number % AT_A_TIME == AT_A_TIME - 1:
            time.sleep(0.001)
    for address in since.keys() - found.keys():
        del since[address]
    for address in found:
        since.setdefault(address, now)
    by_age = sorted(found, key=lambda address: since[address])
    too_many = set(by_age[: max(0, len(by_age) - MOST_HANDSHAKES)])
    late = [address for address in by_age if address in too_many or now - since[address] >= HANDSHAKE]
    return sum(_shut_down(found[address], address, ports) for address in late)


def _connected_to(ports: set[int]) -> Iterator[tuple[int, Address]]:
    """The descriptors of this process that somebody connected to one of these ports, each with his address."""
    for name in os.listdir(DESCRIPTORS):
        with contextlib.suppress(OSError), _borrowed(int(name)) as sock:
            address = _peer(sock, ports)
            if address is not None:
                yield int(name), address


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A descriptor as a socket; closing that leaves the descriptor open.

    Raises:
        OSError: it is closed, or no socket.
    """
    copy = os.dup(descriptor)
    try:
        sock = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with sock:
        yield sock


def _peer(sock: socket.socket, ports: set[int]) -> Address | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return None
    if sock.getsockname()[1] not in ports:
        return None
    host, port = sock.getpeername()[:2]
    return host, port


def _shut_down(descriptor: int, address: Address, ports: set[int]) -> bool:
    """Hang up; NNG closes it then. The number may be another connection's by now: look again."""
    with contextlib.suppress(OSError), _borrowed(descriptor) as sock:
        if _peer(sock, ports) == address:
            sock.shutdown(socket.SHUT_RDWR)
            return True
    return False
