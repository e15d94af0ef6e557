"""Records what passes a network interface: `python -m tests.support.capture INTERFACE FILE`, until it is terminated.

The payloads of the TCP connections are put together (RFC 9293, section 3.4), each direction for itself, so that no text
is cut in two by the border of a packet; then they are written to the file.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
from collections import defaultdict
from pathlib import Path

ALL_PROTOCOLS = 0x0003
IPV4 = 0x0800
TCP = 6
BUFFER_BYTES = 256 * 1024 * 1024
SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS = 33, 263, 6
"""socket(7) and packet(7); Python has no names for them."""
STATISTICS = struct.Struct("II")

Flow = tuple[bytes, bytes, bytes]
"""Source, destination, and both ports."""


class Capture:
    """All segments that were seen, by flow and sequence number."""

    def __init__(self, interface: str) -> None:
        self._flows: dict[Flow, dict[int, bytes]] = defaultdict(dict)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self._socket.bind((interface, 0))
        self._socket.settimeout(0.1)

    def see(self) -> bool:
        """The next packet; False if none comes."""
        try:
            packet = self._socket.recv(1 << 17)
        except TimeoutError:
            return False
        if len(packet) >= 54 and int.from_bytes(packet[12:14]) == IPV4 and packet[23] == TCP:
            self._keep(packet[14 : 14 + int.from_bytes(packet[16:18])])
        return True

    def _keep(self, datagram: bytes) -> None:
        segment = datagram[(datagram[0] & 0x0F) * 4 :]
        payload = segment[(segment[12] >> 4) * 4 :]
        if payload:
            flow = (datagram[12:16], datagram[16:20], segment[:4])
            self._flows[flow][int.from_bytes(segment[4:8])] = payload

    def streams(self) -> list[bytes]:
        """What went each way over each connection, as far as it was seen."""
        return [b"".join(segments[number] for number in sorted(segments)) for segments in self._flows.values()]

    def dropped(self) -> int:
        """Packets that came too fast."""
        return int(STATISTICS.unpack(self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, STATISTICS.size))[1])


def main(interface: str, file: str) -> None:
    """Record; what is on its way when we are told to end is taken too."""
    capture = Capture(interface)
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    print("recording", flush=True)
    while capture.see() or not told:
        pass
    Path(file).write_bytes(b"\0".join(capture.streams()))
    print(f"dropped {capture.dropped()}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
