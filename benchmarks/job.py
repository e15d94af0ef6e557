"""What one driver process is asked to measure; its workers read the same from the environment."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

_VARIABLE = "BENCHMARK_JOB"


@dataclass(frozen=True, slots=True)
class Job:
    """One scenario of one contender, and where its processes meet.

    `results` says whether the scenario reads results: a queue that can run without storing them may do so otherwise.
    """

    scenario: str
    size: int
    results: bool
    folder: str
    port: int

    @property
    def tally_folder(self) -> Path:
        return Path(self.folder, "tally")

    @property
    def log(self) -> Path:
        """Where every server and worker process of this job writes."""
        return Path(self.folder, "processes.log")

    def publish(self) -> None:
        """Prepare the folder and hand the job down to the processes started from here."""
        self.tally_folder.mkdir()
        os.environ[_VARIABLE] = json.dumps(asdict(self))


def current_job() -> Job:
    """The job that this process, a driver or one of its workers, belongs to."""
    return Job(**json.loads(os.environ[_VARIABLE]))


def free_ports(count: int) -> int:
    """The first of `count` loopback ports in a row that nobody listens on."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            first: int = probe.getsockname()[1]
        if first + count < 65536 and all(map(_is_free, range(first, first + count))):
            return first


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
