"""What a task queue must be able to do to be measured: the one contract for us and every peer."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from benchmarks import tally
from benchmarks.job import Job
from benchmarks.processes import Processes


class Contender(ABC):
    """A task queue behind the verbs that the scenarios use.

    Its task does nothing but count itself with `tally.Counter`. The verbs are blocking; a contender with an async
    client runs its own event loop inside them.
    """

    distribution: ClassVar[str]
    """The package whose version the report names."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.processes = Processes(job.log)

    @abstractmethod
    def start_server(self) -> int:
        """Start what holds the queue, wait until it accepts tasks, and answer its process id."""

    @abstractmethod
    def start_workers(self) -> None:
        """Start the workers; they need not be ready yet."""

    @abstractmethod
    def connect(self) -> None:
        """Open the client; the server is running."""

    @abstractmethod
    def submit_one_by_one(self, count: int) -> None:
        """Submit no-op tasks with a call each; return when the queue holds them."""

    def submit_bulk(self, count: int) -> None:
        """Submit no-op tasks in the fastest way of one client process."""
        self.submit_one_by_one(count)

    @abstractmethod
    def round_trips(self, count: int) -> list[float]:
        """Submit a task and wait for its result, one after the other: the seconds that each took."""

    def run_to_end(self, count: int) -> None:
        """Submit tasks in the fastest way; return when all are known to have finished."""
        target = self.finished + count
        self.submit_bulk(count)
        tally.wait_for(self.job.tally_folder, target)

    @property
    def finished(self) -> int:
        return tally.read(self.job.tally_folder).count

    def close(self) -> None:
        """End the client and every process started."""
        self.processes.close()


def timed(call: Callable[[], object]) -> float:
    """The seconds that a call took."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
