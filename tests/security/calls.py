"""Somebody who makes calls while others misbehave, and takes the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import quantiles

from fastworker import BlockingClient

CALLS_PER_SECOND = 100


class Calls:
    """The seconds that each call took, from the submission to the result."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @property
    def p99(self) -> float:
        """99 of 100 took no longer."""
        return quantiles(self.seconds, n=100)[98]


@contextmanager
def calling(connect: Callable[[], BlockingClient]) -> Iterator[Calls]:
    """Call, a hundred times a second, until the end of the block; every answer must be right."""
    calls = Calls()
    stop = threading.Event()
    failures: list[BaseException] = []

    def call() -> None:
        try:
            with connect() as client:
                while not stop.wait(1 / CALLS_PER_SECOND) or len(calls.seconds) < CALLS_PER_SECOND:
                    asked = time.monotonic()
                    assert client.result(client.delay("add", 20, 22), 30) == 42
                    calls.seconds.append(time.monotonic() - asked)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield calls
    finally:
        stop.set()
        thread.join(60)
    assert not failures, failures
