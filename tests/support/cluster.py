"""A control plane and workers as real processes, in a folder of their own, ended by their ids whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from fastworker import BlockingClient
from tests.support.forked import Forked, can_be_forked
from tests.support.journal import VARIABLE, Journal
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
COMMAND = Path(sys.executable).with_name("fastworker")
SAMPLE_TASKS = Path(__file__).with_name("sample_tasks.py")
LONGEST_START = 30.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


class Program:
    """A process of a cluster that goes on until it is told to end."""

    def __init__(self, process: subprocess.Popen[bytes] | Forked, log: Path) -> None:
        self.process = process
        self.log_path = log
        self.pid = process.pid

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self.log_path.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def children(self) -> list[psutil.Process]:
        """The processes that it started, theirs too."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return list(psutil.Process(self.pid).children(recursive=True))
        return []

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        """The exit code."""
        return self.process.wait(timeout)

    def terminate(self, timeout: float = 20.0) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)


class Cluster:
    """Programs that share a folder, a runtime directory, a key and a store; nothing of it is the user's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Directly below /tmp: the path of a socket has at most 107 bytes.
        self.runtime = Path(tempfile.mkdtemp(prefix="fw-", dir="/tmp"))
        self.url = f"ipc://{self.runtime / 'control-plane'}"
        self.journal = Journal(folder / "journal")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTWORKER_")}
        self.environment |= {
            "FASTWORKER_RUNTIME_DIR": str(self.runtime),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "FASTWORKER_DASHBOARD": "false",  # its tests ask for it
            "COLUMNS": "300",
            VARIABLE: str(self.journal.path),
        }
        self.programs: list[Program] = []
        self._clients: list[BlockingClient] = []
        shutil.copy(SAMPLE_TASKS, folder / "tasks.py")

    # ---- processes -----------------------------------------------------------------------------------------------

    def start(self, *options: str, listen: str | None = None, wait: bool = True, **environment: str) -> Program:
        """`fastworker start`; returns when it listens and its own workers have joined.

        Args:
            listen: an address; default: the socket in the runtime directory.
            wait: False returns at once.
            environment: more variables.
        """
        words = ["start", *options, "--listen", listen or self.url]
        program = self.program("control-plane", *words, **environment)
        if wait:
            self.await_listening(program)
            own = int(options[options.index("--processes") + 1]) if "--processes" in options else 1
            if listen is None:
                until(lambda: self.own_workers() >= own, LONGEST_START, "own workers")
        return program

    def await_listening(self, program: Program) -> None:
        """Wait until a control plane listens."""
        until(lambda: "FastWorker control plane" in program.log or not program.alive, LONGEST_START, "the start")
        assert program.alive, f"the control plane ended at once:\n{program.log}"

    def worker(self, *options: str, name: str = "worker", wait: bool = True, **environment: str) -> Program:
        """`fastworker worker start`; returns when it has joined."""
        program = self.program(name, "worker", "start", *options, "--name", name, **environment)
        if wait:
            until(lambda: "is ready" in program.log or not program.alive, LONGEST_START, "the worker's start")
            assert program.alive, f"the worker ended at once:\n{program.log}"
        return program

    def program(self, name: str, *words: str, **environment: str) -> Program:
        """Start a `fastworker` command that goes on; `name` names its log."""
        if not can_be_forked(environment):
            return self.launch(name, [str(COMMAND), *words], **environment)
        log = self._log(name)
        return self._started(Forked(words, self.folder, self.environment | environment, log, log), log)

    def module(self, module: str, *words: str, **environment: str) -> Program:
        """`python -m` a module that goes on."""
        if not can_be_forked(environment):
            return self.launch(module, [sys.executable, "-m", module, *words], **environment)
        log = self._log(module)
        return self._started(Forked(words, self.folder, self.environment | environment, log, log, module), log)

    def launch(self, name: str, words: Sequence[str], **environment: str) -> Program:
        """Start any program that goes on."""
        log = self._log(name)
        with log.open("ab") as file:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        return self._started(process, log)

    def _log(self, name: str) -> Path:
        log = self.folder / f"{name}-{len(self.programs)}.log"
        log.touch()
        return log

    def _started(self, process: subprocess.Popen[bytes] | Forked, log: Path) -> Program:
        program = Program(process, log)
        self.programs.append(program)
        return program

    def run(self, *words: str, timeout: float = 60.0, **environment: str) -> Finished:
        """Run a `fastworker` command to its end."""
        if not can_be_forked(environment):
            return self.execute([str(COMMAND), *words], timeout, **environment)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            command = Forked(words, self.folder, self.environment | environment, out, err)
            try:
                code = command.wait(timeout)
            finally:
                command.kill()
            seconds = time.monotonic() - began
            return Finished(code, out.read_text(), err.read_text(), seconds)

    def script(self, text: str, *arguments: str, timeout: float = 60.0, **environment: str) -> Finished:
        """Run a Python program in the folder, where `import tasks` works."""
        (self.folder / "script.py").write_text(text)
        return self.execute([sys.executable, "script.py", *arguments], timeout, **environment)

    def execute(self, words: Sequence[str], timeout: float = 60.0, **environment: str) -> Finished:
        """Run any program to its end."""
        began = time.monotonic()
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    # ---- questions -----------------------------------------------------------------------------------------------

    @property
    def client(self) -> BlockingClient:
        """A client that lives as long as the cluster."""
        if not self._clients:
            self._clients.append(BlockingClient(self.url, connect_timeout=10).start())
        return self._clients[0]

    def await_starts(self, count: int, deadline: float = 60.0) -> None:
        """Wait until the journal has so many starts."""
        until(lambda: self.journal.count("start") >= count, deadline, f"{count} starts")

    def await_ends(self, count: int, deadline: float = 60.0) -> None:
        """Wait until the journal has so many ends."""
        until(lambda: self.journal.count("end") >= count, deadline, f"{count} ends")

    def await_own_worker(self, deadline: float = 60.0) -> None:
        """Wait until an own worker is connected."""
        until(lambda: self.own_workers() == 1, deadline, "the own worker")

    def own_workers(self) -> int:
        """How many own workers of the control plane are connected."""
        return sum(worker.own and worker.connected for worker in self.client.workers())

    def workers(self) -> set[str]:
        """The names of the workers that are connected and are not the control plane's own."""
        return {worker.name for worker in self.client.workers() if worker.connected and not worker.own}

    def logs(self) -> Iterator[tuple[str, str]]:
        """What each program printed."""
        for program in self.programs:
            yield program.log_path.name, program.log

    # ---- the end -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process of this cluster, and what those started."""
        for client in self._clients:
            with contextlib.suppress(Exception):
                client.stop()
        for program in self.programs:
            if program.alive:
                program.kill()
        for process in self._left_over():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self.runtime, ignore_errors=True)

    def _left_over(self) -> Iterator[psutil.Process]:
        """Processes with our runtime directory in their environment: started by ours, and orphans by now."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("FASTWORKER_RUNTIME_DIR") == str(self.runtime):
                    yield process


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
