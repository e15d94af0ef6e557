"""Sends mutated frames to a control plane: `python -m tests.security.mutate URL KEY COUNT SEED`; KEY may be `-`.

Each connection sends less garbage than ends it. Half of the frames are mutated whole; the other half begin a session of
their own properly and carry a mutated message, so that what is still readable reaches its handler.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

from fastworker.keys import Key
from tests.support.stranger import hello
from tests.support.wire import Wire

FRAMES_PER_CONNECTION = 900
FRAMES_PER_WRITE = 50
TASK = "0190b7e2-7c1d-7cc3-98c4-dc0c0c07398f"
OPTIONS = {"expires": 1.0, "retries": 1, "tags": ["a"], "backoff": {"kind": "linear", "base": 2.0}}
SEEDS: list[dict[str, Any]] = [
    hello(),
    {"kind": "submit", "request": 1, "tasks": [{"id": TASK, "name": "add", "args": "[1,2]", "options": OPTIONS}]},
    {"kind": "watch", "items": [TASK, TASK], "live": True},
    {"kind": "cancel", "request": 2, "task": TASK, "workflow": True},
    {"kind": "requeue", "request": 3, "task": TASK, "args": "[2]"},
    {"kind": "query", "request": 4, "what": "list", "limit": 5, "before": 99, "state": "failed", "name": "add"},
    {"kind": "query", "request": 5, "what": "search", "filter": {"words": ["w"], "states": ["failed"], "before": 1.7}},
    {"kind": "query", "request": 6, "what": "info", "task": TASK},
    {"kind": "outcomes", "number": 7, "items": [{"id": TASK, "attempt": 1, "status": "succeeded", "started": 1, "ran": 1}]},  # noqa: E501
    {"kind": "heartbeat", "notes": [{"id": TASK, "attempt": 2, "progress": [0.5, ""], "log": ["one"], "parts": ["1"]}]},
    {"kind": "handback", "items": [{"id": TASK, "attempt": 1}], "started": True},
    {"kind": "credit", "slots": 5},
    {"kind": "proof", "key": "0123456789abcdef", "proof": "ab" * 32},
    {"kind": "welcome", "instance": "me", "release": "1", "drop": [{"id": TASK, "attempt": 1}]},
    {"kind": "goodbye"},
]  # fmt: skip
EXTREMES = [
    b"-1",
    b"0",
    b"1e400",
    b"NaN",
    b"9" * 400,
    b"9" * 5000,
    b"1.5",
    b"null",
    b'""',
    b"[[[[[]]]]]",
    b"{}",
    b"true",
]


def mutated(frame: bytes, chance: Random) -> bytes:
    """The frame, changed in one to three places."""
    changed = bytearray(frame)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(7):
            case 0 if changed:
                changed[at % len(changed)] = chance.randrange(256)
            case 1 if changed:
                changed[at % len(changed)] ^= 1 << chance.randrange(8)
            case 2:
                changed[at:at] = chance.randbytes(chance.randint(1, 8))
            case 3:
                del changed[at : at + chance.randint(1, 30)]
            case 4:
                changed[at:at] = changed[chance.randrange(len(changed) + 1) :][:50]
            case 5:
                numbers = [match.span() for match in re.finditer(rb"\d+", bytes(changed))] or [(0, 0)]
                start, end = chance.choice(numbers)
                changed[start:end] = chance.choice(EXTREMES)
            case _:
                del changed[at:]
    return bytes(changed)


def frames(chance: Random) -> Iterator[bytes]:
    """Mutated frames without end."""
    begin, messages = json.dumps(hello()).encode(), [json.dumps(message).encode() for message in SEEDS]
    while True:
        message = chance.choice(messages)
        session = b"%x" % chance.getrandbits(64)
        if chance.random() < 0.5:
            yield mutated(
                b'{"session":"%b","seq":%d,"ack":0,"items":[%b]}' % (session, chance.randrange(3), message), chance
            )
        else:
            yield b'{"session":"%b","seq":1,"ack":0,"items":[%b,%b]}' % (session, begin, mutated(message, chance))


def main(url: str, key: str, count: int, seed: int) -> None:
    """Send them all."""
    os.nice(19)  # an attacker brings a machine of his own along, and does not take ours
    stream = frames(Random(seed))
    for start in range(0, count, FRAMES_PER_CONNECTION):
        with Wire(url, None if key == "-" else Key.from_text(key)) as one:
            for rest in range(min(FRAMES_PER_CONNECTION, count - start), 0, -FRAMES_PER_WRITE):
                one.say(itertools.islice(stream, min(FRAMES_PER_WRITE, rest)))
                one.overhears()
            one.settle()
    print(count)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
