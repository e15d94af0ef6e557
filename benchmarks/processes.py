"""Starting processes so that none outlives the benchmark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_PATIENCE_SECONDS = 3.0


class Processes:
    """The servers and workers that a driver started, ended in the reverse order."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, environment: Mapping[str, str] | None = None) -> int:
        """Start a command whose output goes to the log; answers its process id."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(environment or {})}
            )
        self._started.append(process)
        return process.pid

    def close(self) -> None:
        """End them all: asked first, then killed."""
        for process in reversed(self._started):
            process.terminate()
        for process in reversed(self._started):
            _end(process)
        self._started.clear()


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def process_group(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own; leaving the block kills it and everything it started."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def own_command(name: str) -> str:
    """A command installed beside the running interpreter."""
    return str(Path(sys.executable).parent / name)


def resident_bytes(pid: int) -> int:
    """The memory that a process has resident now."""
    answer = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(answer.stdout) * 1024
