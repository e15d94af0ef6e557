"""`fastworker` commands as processes that are forked from one that has imported them all.

Each is a process of its own, with its own environment, folder and output; only the half second that Python takes to
import everything is spent once, not at each of some thousand starts. The documentation, the examples and the wheels are
tried with the real command, and so is what Python itself reads at its start.
"""

from __future__ import annotations

import atexit
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

from fastworker.cli import build_app, main

ROOT = Path(__file__).resolve().parents[2]
READ_BY_PYTHON = ("PYTHON", "LC_", "LANG", "TZ")
"""How the names of variables begin that count at the start of the interpreter only."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["__main__", __name__])
if multiprocessing.current_process().name == "MainProcess":  # it is the forkserver that imports this: fork from here
    build_app()


class Forked:
    """A command that runs; like `subprocess.Popen`, as far as tests need it.

    Args:
        words: the arguments of `fastworker`.
        out, err: files that take what it prints.
        module: another module than `fastworker`, to be run as by `python -m`.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        out: Path,
        err: Path,
        module: str = "fastworker",
    ) -> None:
        _start_server()
        plain = [str(word) for word in words]  # a handle is a text, too
        self._process = _context.Process(target=_command, args=(module, plain, folder, dict(environment), out, err))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, or the negative number of the signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("fastworker", timeout or 0.0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)


def can_be_forked(environment: Mapping[str, str]) -> bool:
    """Whether a fork does with these variables what a start would do."""
    return not any(name.startswith(READ_BY_PYTHON) for name in environment)


def _start_server() -> None:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # the server can't be told its sys.path otherwise
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _command(module: str, words: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    """Runs in the new process."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, out, _APPEND), (2, err, _APPEND)):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0)  # noqa: SIM115 - for as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(line_buffering=True)
    sys.argv = [module, *words]
    try:
        if module == "fastworker":
            main()
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
