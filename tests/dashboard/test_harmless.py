"""What it costs the queue that somebody looks: processor time with and without viewers, and the dashboard's memory.

Judged is the processor time that control plane and dashboard take for each task: where all cores are busy, that is
what viewers take from the throughput. The throughput itself is printed; it also tells what else the machine does.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.dashboard.site import Site, running_site
from tests.support.waiting import until

PAGES = ("/", "/tasks", "/queues", "/workers", "/failed")
MEBIBYTE = 1024 * 1024


ROUNDS = 5
TASKS = 40_000
MOST_BY_ONE, MOST_BY_FIFTY = 0.02, 0.1
"""By how much of itself viewers may raise the processor time of a task."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as site:
        yield site


class Viewers:
    """Live streams of pages, read in one thread."""

    def __init__(self, site: Site, count: int) -> None:
        self._site = site
        self._count = count
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._streams: list[asyncio.Task[None]] = []
        self.events = 0

    def __enter__(self) -> Viewers:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result(10)
        until(lambda: self.events >= self._count, 30, "a page for each viewer")
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _begin(self) -> None:
        self._streams = [asyncio.create_task(self._view(PAGES[n % len(PAGES)])) for n in range(self._count)]

    async def _view(self, page: str) -> None:
        async with (
            httpx.AsyncClient(base_url=self._site.url, timeout=60) as client,
            client.stream("GET", "/live", params={"page": page}) as response,
        ):
            async for part in response.aiter_bytes():
                self.events += part.count(b"event: page")

    async def _end(self) -> None:
        for stream in self._streams:
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)


def tasks_per_second(site: Site, count: int) -> float:
    client = site.cluster.client
    before = client.stats().states["succeeded"]
    began = time.perf_counter()
    client.submit_many("add", [(n, 1) for n in range(count)])
    until(lambda: client.stats().states["succeeded"] == before + count, 120, "the end of all")
    return count / (time.perf_counter() - began)


def processor_time(*processes: psutil.Process) -> float:
    return sum(process.cpu_times().user + process.cpu_times().system for process in processes)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_viewers_cost_little_throughput_and_the_dashboard_little_memory(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    control_plane = psutil.Process(site.program.pid)
    process = next(child for child in site.program.children() if "dashboard" in child.cmdline())
    tasks_per_second(site, TASKS)
    speeds: dict[int, list[float]] = {0: [], 1: [], 50: []}
    costs: dict[int, list[float]] = {0: [], 1: [], 50: []}
    for _ in range(ROUNDS):
        for count in speeds:
            with Viewers(site, count):
                spent = processor_time(control_plane, process)
                speeds[count].append(tasks_per_second(site, TASKS))
                costs[count].append((processor_time(control_plane, process) - spent) / TASKS)
    memory = process.memory_full_info().uss / MEBIBYTE
    with capsys.disabled():
        for count in speeds:
            print(
                f"\n{count} viewers: {statistics.median(costs[count]) * 1e6:.1f} µs a task in control plane and "
                f"dashboard, {statistics.median(speeds[count]):,.0f} tasks/s",
                end="",
            )
        print(f"; {memory:.0f} MB")
    alone, one, fifty = (statistics.median(costs[count]) for count in costs)
    assert memory <= 64
    assert one <= alone * (1 + MOST_BY_ONE)
    assert fifty <= alone * (1 + MOST_BY_FIFTY)
