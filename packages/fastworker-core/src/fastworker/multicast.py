"""The sockets of discovery: queries to everybody on the networks of this host, answers to those who ask.

IPv4 multicast that no router forwards. A query goes out on each interface, because the system alone would choose one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from fastworker.discovery import PACKET_BYTES, Answering, Place, Search
from fastworker.keys import Key

GROUP: Final = "239.255.70.87"
"""Of the range for use within an organisation (RFC 2365)."""
PORT: Final = 5557
ASK_AT: Final = (0.0, 0.05, 0.15, 0.35, 0.6, 0.9, 1.2)
"""Seconds at which a search asks: packets get lost, and whoever is flooded drops some."""
SEARCH_SECONDS: Final = 1.5
OTHERS_WITHIN: Final = 0.4
"""Seconds that a search goes on after the first answer: another control plane may be there too."""
JOIN_EVERY: Final = 2.0
"""Interfaces come and go: a cable, a wireless network, a virtual machine."""
RECEIVE_BUFFER: Final = 1024 * 1024


async def search(key: Key, name: str = "") -> Sequence[Place]:
    """The control planes on the networks of this host that hold the key; all of this name, if one is said."""
    looking = Search(key, name)
    found = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Answers(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _: object) -> None:
            looking.take(data)
            if looking.found:
                found.set()

    sock = _asking_socket()
    transport, _ = await loop.create_datagram_endpoint(Answers, sock=sock)
    try:
        asking = asyncio.ensure_future(_ask(sock, looking))
        try:
            async with asyncio.timeout(SEARCH_SECONDS):
                await found.wait()
                await asyncio.sleep(OTHERS_WITHIN)
        except TimeoutError:
            pass
        finally:
            asking.cancel()
    finally:
        transport.close()
    return looking.found


async def _ask(sock: socket.socket, looking: Search) -> None:
    asked_at = 0.0
    for moment in ASK_AT:
        await asyncio.sleep(moment - asked_at)
        asked_at = moment
        for interface in interfaces():
            with contextlib.suppress(OSError):  # one that is down, or takes no multicast
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
                sock.sendto(looking.query(), (GROUP, PORT))


def _asking_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
    sock.bind(("", 0))
    return sock


def answer_forever(answering: Answering, each_second: Callable[[], None]) -> None:
    """Answer queries until the process ends; blocks."""
    sock = answering_socket()
    join_at = second_at = 0.0
    while True:
        now = time.monotonic()
        if now >= join_at:
            join_at = now + JOIN_EVERY
            join(sock)
        if now >= second_at:
            second_at = now + 1.0
            each_second()
        with contextlib.suppress(TimeoutError):
            packet, asker = sock.recvfrom(PACKET_BYTES + 1)
            key = answering.asked_by(packet, now)
            if key is not None:
                with contextlib.suppress(OSError):  # the asker can't be reached: nobody is there to be told
                    sock.sendto(answering.answer(packet, key, _our_host(asker)), asker)


def answering_socket() -> socket.socket:
    """A socket that gets the queries; several control planes on a host may have one each."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.settimeout(1.0)
    try:
        sock.bind((GROUP, PORT))  # so that only what is sent to the group comes
    except OSError:  # Windows wants an address of its own
        sock.bind(("", PORT))
    return sock


def join(sock: socket.socket) -> None:
    """Join the group on every interface; on most of them we are in it already."""
    for interface in interfaces():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + interface[4:])


def _our_host(asker: tuple[str, int]) -> str:
    """The address of this host that the asker sees."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(asker)  # sends nothing
        host: str = probe.getsockname()[0]
        return host


def our_hosts() -> Sequence[str]:
    """The addresses of this host on its networks, but for the loopback."""
    found = [_host_on(interface) for interface in interfaces()]
    return list(dict.fromkeys(host for host in found if host is not None and not host.startswith("127.")))


def _host_on(interface: bytes) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
        probe.connect((GROUP, PORT))  # sends nothing
        host: str = probe.getsockname()[0]
        return host
    return None


def interfaces() -> Iterator[bytes]:
    """Each interface as `struct ip_mreqn` of ip(7): group, address, index."""
    for index, _ in socket.if_nameindex():
        yield struct.pack("=4s4si", bytes(4), bytes(4), index)
