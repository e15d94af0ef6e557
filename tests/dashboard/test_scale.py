"""The dashboard in front of many tasks: every page fast, also a deep one; few clicks; quick bulk actions."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fastworker.lifecycle import State
from fastworker.tasks import DEFAULTS, ErrorInfo, Options, Task, new_task_id
from fastworker_server.storage.sqlite import SqliteStore
from tests.dashboard.site import Site, running_site
from tests.support.waiting import until

pytestmark = pytest.mark.full

START = 1_700_000_000.0
ROUNDS = 20
RARE = ErrorInfo("builtins.ConnectionError", "the bank did not answer", "Traceback …", "bank.py:7 in charge")


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is, and how fast it has to be: seconds at the 95th percentile.

    Attributes:
        before: rounds of submissions before a bulk action, that take about as long as those beside it.
    """

    finished: int
    queued: int
    failed: int
    page: float
    exact: float
    bulk: float
    before: int


FULL = Size(finished=1_000_000, queued=100_000, failed=100_000, page=0.05, exact=0.01, bulk=30.0, before=700)
SHORT = Size(finished=20_000, queued=2_000, failed=1_000, page=0.5, exact=0.25, bulk=30.0, before=50)
"""On two cores that others use too, the short size can only tell that nothing grows with the number of tasks."""


@pytest.fixture(scope="module")
def size(request: pytest.FixtureRequest) -> Size:
    return FULL if request.config.getoption("--full") else SHORT


def make_task(number: int, size: Size) -> Task:
    """The 12 rare failures lie evenly among all; the common ones are the newest of the finished."""
    rare = number <= size.finished and number % (size.finished // 12) == size.finished // 24
    name = "charge" if rare else f"task_{number % 30}"
    args = f'{{"user_id": {number}, "order": "order {number * 7}"}}'
    task = Task(number, new_task_id(), name, args, DEFAULTS, "default", 2, START + number / 100)
    if number > size.finished:
        task.state = State.QUEUED
        return task
    task.started_at, task.finished_at = task.submitted_at + 1, task.submitted_at + 2
    task.worker, task.attempt = "worker-1", 1
    if rare:
        task.state, task.reason, task.error = State.FAILED, "error", RARE
    elif number > size.finished - size.failed:
        task.state, task.reason, task.error = (
            State.FAILED,
            "error",
            ErrorInfo("builtins.ValueError", "bad", "", "x.py:1"),
        )
        task.options = Options(tags=("bulk",)).over(DEFAULTS)
    else:
        task.state, task.result = State.SUCCEEDED, '"done"'
    return task


async def fill(folder: Path, size: Size) -> None:
    store = SqliteStore(folder)
    await store.open()
    total = size.finished + size.queued
    for first in range(1, total + 1, 5000):
        store.save([make_task(number, size) for number in range(first, min(first + 5000, total + 1))])
        await store.saved()
    await store.indexer.catch_up()
    while await store.do(store.indexer._enter_arguments):
        pass
    await store.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, size: Size) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("large")
    asyncio.run(fill(folder / "store", size))
    keep = str(2 * (size.finished + size.queued))
    said = {"FASTWORKER_KEEP_FINISHED": keep, "FASTWORKER_KEEP_FOR": "1e9"}
    with running_site(folder, "--processes", "0", "--store-path", str(folder / "store"), **said) as site:
        yield site


def p95(site: Site, path: str) -> float:
    """Seconds until the whole answer is there."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        response = site.http.get(path, headers={"accept": "text/html"})
        times.append(time.perf_counter() - began)
        assert response.status_code == 200, path
        assert len(response.content) <= 512_000, path
    return sorted(times)[int(ROUNDS * 0.95) - 1]


@pytest.mark.timeout(600)
def test_every_page_is_fast_and_a_deep_one_as_fast_as_the_first(
    large: Site, size: Size, capsys: pytest.CaptureFixture[str]
) -> None:
    middle = size.finished // 2
    known = large.json("/api/v1/tasks", limit=1, before=middle)["tasks"][0]["id"]
    figures = {
        path: p95(large, path)
        for path in (
            "/", "/tasks", f"/tasks?before={middle}", "/tasks?q=state:failed", "/tasks?q=state:queued",
            f"/tasks?q=state:succeeded&before={middle}", "/tasks?q=name:task_7", "/tasks?q=name:task_7+state:queued",
            f"/tasks?q=args:%22order+{middle * 7}%22", "/tasks?q=bank", "/tasks?q=error:bank", "/tasks?q=zebra",
            "/tasks?q=took>5", "/tasks?q=tag:nothing", "/tasks?q=after:2023-11-14T23:00Z", f"/tasks/{known}", "/failed",
            "/queues", "/workers", "/workers/worker-1", "/types", "/types/task_7", "/schedules", "/audit", "/about",
        )
    }  # fmt: skip
    with capsys.disabled():
        worst = max(figures, key=lambda path: figures[path])
        print(f"\n{len(figures)} pages, p95 at most {figures[worst] * 1000:.1f} ms ({worst})")
    assert {path: took for path, took in figures.items() if took > size.page} == {}
    assert p95(large, f"/api/v1/tasks/{known}") <= size.exact


def test_the_twelve_failures_are_two_clicks_away(large: Site) -> None:
    overview = large.http.get("/").text
    assert 'href="/failed"' in overview
    rows = re.findall(r'<a href="(/tasks\?q=[^"]+)"><b>12</b>', large.http.get("/failed").text)
    assert len(rows) == 1
    found = large.http.get(rows[0].replace("&#34;", '"').replace("&amp;", "&")).text
    assert found.count("the bank did not answer") == 12


@pytest.mark.timeout(300)
def test_all_failures_are_retried_in_the_background_while_others_submit(
    large: Site, size: Size, capsys: pytest.CaptureFixture[str]
) -> None:
    def submit() -> float:
        began = time.perf_counter()
        large.cluster.client.submit("task_1", [1])
        return time.perf_counter() - began

    def look() -> Any:
        """The test's own questions, as often before as meanwhile: they take processors from the submissions, too."""
        return large.json("/api/v1/bulk")

    large.json("/api/v1/tasks", q="type:builtins.ValueError")  # so that all failures are in their index
    quiet: list[float] = []
    for _ in range(size.before):
        quiet += [submit() for _ in range(20)]
        look()
    began = time.monotonic()
    job = large.http.post("/api/v1/bulk", json={"action": "retry", "q": "state:failed type:builtins.ValueError"})
    assert job.status_code == 202
    busy: list[float] = []

    def ended() -> bool:
        busy.extend(submit() for _ in range(20))
        return bool(look()[0]["state"] == "done")

    until(ended, 120, "the end of the job")
    took = time.monotonic() - began
    quiet_p99, busy_p99 = (sorted(times)[int(len(times) * 0.99)] for times in (quiet, busy))
    done = look()[0]["done"]
    with capsys.disabled():
        print(f"\nretried {done} in {took:.1f} s; submit p99 {quiet_p99 * 1000:.1f} ms before (of {len(quiet)}),")
        print(f"{busy_p99 * 1000:.1f} ms meanwhile (of {len(busy)})")
    assert done >= size.failed - 12
    assert took <= size.bulk
    assert busy_p99 <= 3 * quiet_p99
    assert large.count("state:failed") <= 12
