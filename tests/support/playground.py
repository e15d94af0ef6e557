"""A place of its own for a test that runs the commands as a user does: folder, sockets, settings, processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import psutil

from tests.support.waiting import until

COMMAND = str(Path(sys.executable).with_name("fastworker"))


class Playground:
    """Runs commands in a folder. What they start is ended at the end, and nothing reaches the user's own control plane.

    Args:
        folder: the working directory of the commands.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sockets = Path(tempfile.mkdtemp(prefix="fw-"))  # not in the folder: a socket's path must be short
        self.url = f"ipc://{self._sockets / 'control-plane'}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("FASTWORKER_", "UV_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FASTWORKER_RUNTIME_DIR": str(self._sockets),
            "FASTWORKER_LISTEN": self.url,
            "FASTWORKER_DASHBOARD": "false",  # a process more at each start; who is to see it asks for it
            "XDG_CONFIG_HOME": str(self._sockets / "config"),
            "COLUMNS": "200",
        }
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in the background; what it says goes to a file, see `said`."""
        log = (self._sockets / f"{len(self._processes)}.log").open("w")
        with log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                text=True, start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def said(self) -> str:
        """What all background commands have said so far."""
        return "\n".join(log.read_text(errors="replace") for log in sorted(self._sockets.glob("*.log")))

    def run(self, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip

    def start_control_plane(self, *arguments: str) -> subprocess.Popen[str]:
        """`fastworker start`, ready with at least one worker."""
        process = self.start(COMMAND, "start", *arguments)
        self.wait_until(lambda: " is ready: " in self.said() or process.poll() is not None, "a worker is ready")
        assert process.poll() is None, self.said()
        return process

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
        """Look again and again until the condition holds."""
        try:
            until(condition, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}. The processes said:\n{self.said()}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            end_with_descendants(process)
        shutil.rmtree(self._sockets, ignore_errors=True)


def end_with_descendants(process: subprocess.Popen[str], within: float = 15.0) -> None:
    """SIGTERM, then SIGKILL for it and whatever it had started."""
    started = descendants(process)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(started, timeout=within)
    for left in alive:
        left.kill()


def descendants(process: subprocess.Popen[str]) -> Sequence[psutil.Process]:
    """All processes that it has started and those have started."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
