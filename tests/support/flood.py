"""A rogue on the network: `python -m tests.support.flood COUNT`. It has no key, but hears every query.

It floods those who answer with noise in the form of queries and with the queries that it has heard, and those who ask
with answers of its own that repeat their nonces.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from fastworker.discovery import ANSWER, NONCE_BYTES, PACKET_BYTES, QUERY, SIGNATURE_BYTES
from fastworker.keys import Key
from fastworker.multicast import GROUP, PORT, answering_socket, interfaces, join

HEAR_EVERY = 100
PLACE = b'{"name":"office","instance":"x","urls":["tls+tcp://10.6.6.6:5555"]}'


def flood(count: int) -> None:
    """Send so many datagrams, as fast as they go."""
    hearing = answering_socket()
    hearing.setblocking(False)
    join(hearing)
    sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    for interface in list(interfaces())[1:]:  # but for the loopback
        sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
    identity = Key.new().of("worker").identity.encode()
    noise = (QUERY + os.urandom(NONCE_BYTES) + identity).ljust(PACKET_BYTES, b"\0")
    heard: list[tuple[bytes, tuple[str, int]]] = [(noise, (GROUP, PORT))]
    print("flooding", flush=True)
    for number in range(0, count, 4):
        if number % HEAR_EVERY == 0:
            with contextlib.suppress(BlockingIOError):
                heard.append(hearing.recvfrom(PACKET_BYTES))
        query, asker = heard[-1 - number % min(len(heard), 8)]
        forged = ANSWER + query[len(QUERY) :][:NONCE_BYTES] + len(PLACE).to_bytes(2) + PLACE + bytes(SIGNATURE_BYTES)
        for packet in (noise, query):
            _send(sending, packet, (GROUP, PORT))
        for packet in (forged, noise):
            _send(sending, packet, asker)


def _send(sending: socket.socket, packet: bytes, to: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):  # nobody listens there any more
        sending.sendto(packet, to)


if __name__ == "__main__":
    flood(int(sys.argv[1]))
