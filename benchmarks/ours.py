"""FastWorker itself as a contender, in its durable default."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from itertools import batched, repeat
from typing import Any

from benchmarks.contender import Contender
from benchmarks.job import Job, current_job
from benchmarks.tally import Counter
from fastworker import Client, task

_job = current_job()
_counter = Counter(_job.tally_folder)
_PATIENCE_SECONDS = "60"
_AT_ONCE = 1000
"""Submissions that one client has under way at once. Each has a call and an answer of its own, after its commit; a web
application's handlers do the same."""


@task
def noop() -> None:
    """Counts itself."""
    _counter.add()


@task
async def answer() -> None:
    """Counts itself, on the worker's event loop."""
    _counter.add()


class FastWorker(Contender):
    """One control plane, one worker process with one slot: on two cores more of either only take turns.

    Where throughput counts the task is a plain function; for round trips it is a coroutine, which needs no thread.
    """

    distribution = "fastworker-core"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._url = f"ipc://{job.folder}/s"
        self._loop = asyncio.new_event_loop()
        self._client = Client(self._url, connect_timeout=float(_PATIENCE_SECONDS))

    def start_server(self) -> int:
        return self._start(
            "start",
            "--processes",
            "0",
            "--no-dashboard",
            "--listen",
            self._url,
            "--store-path",
            f"{self.job.folder}/store",
        )

    def start_workers(self) -> None:
        self._start("worker", "start", __name__, "--url", self._url, "--concurrency", "1")

    def connect(self) -> None:
        self._wait(self._client.start())

    def submit_one_by_one(self, count: int) -> None:
        self._wait(self._submit_each(count))

    def submit_bulk(self, count: int) -> None:
        self._wait(self._client.submit_many(noop.name, repeat((), count)))

    def round_trips(self, count: int) -> list[float]:
        return self._wait(self._round_trips(count))

    def close(self) -> None:
        self._wait(self._client.close())
        self._loop.close()
        super().close()

    async def _submit_each(self, count: int) -> None:
        for part in batched(range(count), _AT_ONCE):
            await asyncio.gather(*(noop.submit() for _ in part))

    async def _round_trips(self, count: int) -> list[float]:
        return [await self._round_trip() for _ in range(count)]

    async def _round_trip(self) -> float:
        began = self._loop.time()
        await (await answer.submit())
        return self._loop.time() - began

    def _start(self, *words: str) -> int:
        return self.processes.start(sys.executable, "-m", "fastworker", *words, "--log-level", "warning")

    def _wait[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)
