"""Peers that ask for much and read nothing: `python -m tests.security.deaf URL CLIENT_KEY WORKER_KEY CLIENTS WORKERS`.

Clients follow all that happens, and go on asking for lists; workers take tasks and beat, and hear no order. All of them
are sessions of their own, properly begun.
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

from fastworker.keys import Key
from tests.support.stranger import Stranger, hello

TASK = "hang"
"""Only such workers, and those that a test stops, know it."""
ASKED_AT_FIRST = 100
SPEAK_EVERY = 1.0


class Deaf:
    """One of them, that was welcomed and listens no more."""

    def __init__(self, url: str, key: Key, role: str, number: int) -> None:
        self._role = role
        self._stranger = Stranger.proved(url, key)
        self._seq = 0
        about: dict[str, Any] = {"slots": 2, "definitions": [{"name": TASK}]} if role == "worker" else {}
        self._say({**hello(role, **about), "name": f"deaf {role} {number}"})
        self._stranger.hears_a("welcome")
        if role == "client":
            self._say({"kind": "control", "action": "follow", "request": 1})
            for _ in range(ASKED_AT_FIRST):
                self.speak()

    def speak(self) -> None:
        """Say what such a peer says again and again."""
        question = {"kind": "query", "what": "list", "request": self._seq}
        self._say({"kind": "heartbeat"} if self._role == "worker" else question)

    def _say(self, message: dict[str, Any]) -> None:
        self._seq += 1
        self._stranger.say_frame(self._stranger.session, self._seq, message)


def main(url: str, client_key: Key, worker_key: Key, clients: int, workers: int) -> None:
    """Be there until the end."""
    deaf = [Deaf(url, client_key, "client", number) for number in range(clients)]
    deaf += [Deaf(url, worker_key, "worker", number) for number in range(workers)]
    print("deaf", flush=True)
    for one in itertools.cycle(deaf):
        one.speak()
        time.sleep(SPEAK_EVERY / len(deaf))


if __name__ == "__main__":
    main(sys.argv[1], Key.from_text(sys.argv[2]), Key.from_text(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
