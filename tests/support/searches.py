"""Searches on the network: `python -m tests.support.searches COUNT` prints the seconds that each took, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from fastworker.key_file import read_keys
from fastworker.multicast import search


async def seconds(count: int) -> list[float]:
    """How long it took to find the right one and no other, so many times."""
    key = read_keys()[0].for_dialing()
    took = []
    for _ in range(count):
        began = time.monotonic()
        while not (found := await search(key)):
            pass
        took.append(round(time.monotonic() - began, 3))
        assert [place.urls for place in found] == [("tls+tcp://10.80.0.1:5555",)], found
    return took


if __name__ == "__main__":
    print(json.dumps(asyncio.run(seconds(int(sys.argv[1])))))
