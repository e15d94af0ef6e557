"""A control plane for a few minutes, in a folder that is deleted afterwards: what `demo` and `bench` run on.

It is the real one: `fastworker start` in a process of its own, with its own address and its own store.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import typer

from fastworker.client import Client
from fastworker.errors import ConnectionFailed
from fastworker.parent import when_parent_ends
from fastworker.settings import StoreKind

FIRST_WORD_WITHIN: Final = 60.0
"""Seconds that the control plane and its workers get to be ready: a cold disk can be slow."""
END_WITHIN: Final = 10.0
LOOK_EVERY: Final = 0.05


class TemporaryControlPlane:
    """A running control plane.

    Attributes:
        url: where it listens.
        processes: how many workers it has.
    """

    def __init__(self, folder: Path, process: Process, processes: int) -> None:
        self.url = _url(folder)
        self.processes = processes
        self._folder = folder
        self._process = process

    async def ready(self, client: Client) -> None:
        """Start the client, and wait until all workers have joined.

        Raises:
            ConnectionFailed: the control plane ended; holds what it said.
        """
        starting = asyncio.create_task(client.start())
        try:
            async with asyncio.timeout(FIRST_WORD_WITHIN):
                while not starting.done():
                    self._check_alive()
                    await asyncio.wait([starting], timeout=LOOK_EVERY)
                await starting
                while len(await client.workers()) < self.processes:
                    self._check_alive()
                    await asyncio.sleep(LOOK_EVERY)
        except TimeoutError:
            raise self._failure(f"was not ready within {FIRST_WORD_WITHIN:g} s") from None
        finally:
            starting.cancel()

    def _check_alive(self) -> None:
        if self._process.returncode is not None:
            raise self._failure(f"ended with exit code {self._process.returncode}")

    def _failure(self, what: str) -> ConnectionFailed:
        said = _log(self._folder).read_text(errors="replace").strip()
        return ConnectionFailed(f"the control plane {what}. It said:\n{said}")


@asynccontextmanager
async def temporary_control_plane(
    modules: Sequence[str], *, processes: int, slots: int, store: StoreKind = "sqlite"
) -> AsyncIterator[TemporaryControlPlane]:
    """Start a control plane with its workers; end it and delete its folder afterwards.

    Args:
        modules: what the workers import.
        processes: how many workers.
        slots: tasks that each runs at once.
    """
    with tempfile.TemporaryDirectory(prefix="fastworker-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        process = await _start(
            folder, *modules, "--store", store, "--processes", str(processes), "--concurrency", str(slots)
        )
        try:
            yield TemporaryControlPlane(folder, process, processes)
        finally:
            await asyncio.shield(_end(process))


def run_until_signal[T](work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, with which SIGTERM does what Ctrl-C does: end the control plane and its workers, then this."""

    async def run() -> T:
        task = asyncio.ensure_future(work)
        with suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise typer.Exit(128 + signal.SIGTERM) from None


async def _start(folder: Path, *arguments: str) -> Process:
    here = (
        "--listen",
        _url(folder),
        "--store-path",
        str(folder / "store"),
        "--sync",
        "normal",
        "--grace",
        "1",
        "--no-dashboard",
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTWORKER_")}
    environment["FASTWORKER_RUNTIME_DIR"] = str(folder)
    with _log(folder).open("wb") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, *arguments, *here,
            stdin=PIPE, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip


async def _end(process: Process) -> None:
    """SIGTERM, so that it ends its workers; SIGKILL if that takes too long."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), END_WITHIN)
    except TimeoutError:
        process.kill()
        await process.wait()


def _url(folder: Path) -> str:
    return f"ipc://{folder / 'socket'}"


def _log(folder: Path) -> Path:
    return folder / "log"


if __name__ == "__main__":
    from fastworker.cli import main

    when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
    main(["start", *sys.argv[1:]])
