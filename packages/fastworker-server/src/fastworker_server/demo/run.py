"""The run: a temporary control plane, one task per file, and what came of each."""

from __future__ import annotations

import asyncio
import os
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastworker.client import Client
from fastworker.errors import FastWorkerError, TaskCrashed, TaskFailed
from fastworker.handle import TaskHandle
from fastworker.tasks import TaskInfo
from fastworker_server.demo.progress import Progress
from fastworker_server.demo.tasks import MeasuredModule, measure_module
from fastworker_server.temporary import temporary_control_plane

MOST_PROCESSES: Final = 8
STUCK_AFTER: Final = 60.0
"""Seconds without any result after which the demo gives up. The largest file takes one or two."""

LONGEST_REASON: Final = 150


@dataclass(frozen=True)
class FailedFile:
    """A file whose task failed, as it is expected of some."""

    file: str
    task: str
    reason: str


@dataclass(frozen=True)
class Figures:
    """What the demo has to tell. Durations are seconds.

    Attributes:
        missing: why a file has neither been measured nor failed; empty if all is well.
        infos: the control plane's record of each task.
    """

    folder: Path
    files: int
    processes: int
    measured: Sequence[MeasuredModule]
    failed: Sequence[FailedFile]
    missing: Sequence[str]
    infos: Sequence[TaskInfo]
    starting: float
    submitting: float
    working: float


def standard_library() -> tuple[Path, list[str]]:
    """The folder of the running Python's standard library, and all Python files below it."""
    folder = Path(sysconfig.get_path("stdlib"))
    others = {"site-packages", "dist-packages", "__pycache__"}
    return folder, sorted(str(path) for path in folder.rglob("*.py") if others.isdisjoint(path.parts))


async def run(folder: Path, files: Sequence[str], *, show_progress: bool) -> Figures:
    """Measure the files in a temporary control plane's workers."""
    processes = min(MOST_PROCESSES, max(2, os.cpu_count() or 1))
    began = time.perf_counter()
    # One slot per process: parsing needs the processor, so more threads would only wait for each other.
    async with temporary_control_plane([measure_module.__module__], processes=processes, slots=1) as control_plane:
        client = Client(control_plane.url, connect_timeout=60.0)
        await control_plane.ready(client)
        started = time.perf_counter()
        async with client:
            handles = await measure_module.map(files)
            submitted = time.perf_counter()
            collector = Collector(files, handles)
            with Progress(len(files), enabled=show_progress) as progress:
                await collector.collect(progress)
            ended = time.perf_counter()
            infos = await asyncio.gather(*(handle.info() for handle in handles))
    return Figures(
        folder, len(files), processes, collector.measured, collector.failed, collector.missing, infos,
        starting=started - began, submitting=submitted - started, working=ended - started,
    )  # fmt: skip


class Collector:
    """Waits for all tasks, and sorts what came of them."""

    def __init__(self, files: Sequence[str], handles: Sequence[TaskHandle[MeasuredModule]]) -> None:
        self._tasks = list(zip(files, handles, strict=True))
        self.measured: list[MeasuredModule] = []
        self.failed: list[FailedFile] = []
        self.missing: list[str] = []
        self._last_end = time.monotonic()

    async def collect(self, progress: Progress) -> None:
        """Return when all have ended, or when none has for a long time."""
        waiting = {asyncio.create_task(self._one(file, handle, progress)) for file, handle in self._tasks}
        while waiting and time.monotonic() - self._last_end < STUCK_AFTER:
            _, waiting = await asyncio.wait(waiting, timeout=1.0)
        for task in waiting:
            task.cancel()
            self.missing.append("a task did not end in time")

    async def _one(self, file: str, handle: TaskHandle[MeasuredModule], progress: Progress) -> None:
        try:
            self.measured.append(await handle.result())
        except TaskCrashed as error:
            self.missing.append(f"{file}: {error}")
        except TaskFailed as error:
            self.failed.append(FailedFile(file, handle.id, _one_line(error)))
        except FastWorkerError as error:
            self.missing.append(f"{file}: {error}")
        self._last_end = time.monotonic()
        progress.show(len(self.measured), len(self.failed) + len(self.missing))


def _one_line(error: TaskFailed) -> str:
    return f"{error.error_type.removeprefix('builtins.')}: {' '.join(error.error_message.split())}"[:LONGEST_REASON]
