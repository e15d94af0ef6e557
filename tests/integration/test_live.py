"""What running tasks say reaches whoever listens, soon, in bounded memory, and without slowing anybody."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path

import psutil
import pytest

from fastworker import Client, ResultExpired, TaskFailed
from fastworker.errors import NoPartsKept
from fastworker.lifecycle import State
from tests.integration import live_tasks
from tests.support.cluster import Cluster
from tests.support.waiting import Promised


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane and a worker that knows the talkative tasks."""
    with Cluster(tmp_path_factory.mktemp("live")) as cluster:
        shutil.copy(Path(live_tasks.__file__), cluster.folder / "live_tasks.py")
        cluster.start("--processes", "0")
        cluster.worker("live_tasks")
        yield cluster


@pytest.fixture
async def client(live: Cluster) -> AsyncIterator[Client]:
    async with Client(live.url) as client:
        yield client


async def test_parts_arrive_while_the_task_runs_as_the_annotated_type(client: Client) -> None:
    handle = await live_tasks.days.submit(3, 1.0)
    parts = handle.stream()
    assert await anext(parts) == date(2026, 1, 1)
    assert await handle.status() == State.RUNNING
    assert [part async for part in parts] == [date(2026, 1, 2), date(2026, 1, 3)]
    assert await handle.result() == "all"  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("name", ["count", "count_async", "count_in_process"])
async def test_many_parts_come_all_once_and_in_order(name: str, client: Client, tmp_path: Path) -> None:
    """More than are kept, from a task that never gets so far ahead that some are forgotten unread."""
    reader = tmp_path / "reader"
    reader.touch()
    handle = await client.submit(name, [30_000, str(reader)])
    parts: list[object] = []
    async for part in handle.stream():
        parts.append(part)
        if len(parts) % 1000 == 0:
            with reader.open("ab") as mark:
                mark.write(b".")
    assert parts == list(range(30_000))


async def test_whoever_comes_after_the_end_still_gets_the_parts(client: Client) -> None:
    handle = await client.submit("count", [5])
    assert await handle.result() is None
    for _ in range(2):
        assert [part async for part in handle.stream()] == [0, 1, 2, 3, 4]


async def test_whoever_comes_too_late_is_told_so(client: Client) -> None:
    handle = await client.submit("count", [50_000])
    await handle.result()
    with pytest.raises(ResultExpired, match=r"parts 0 to .* are no longer kept"):
        [part async for part in handle.stream()]


async def test_a_failure_comes_after_the_parts_before_it(client: Client) -> None:
    handle = await client.submit("stumble")
    parts = handle.stream()
    assert await anext(parts) == 1
    with pytest.raises(TaskFailed, match="stumbled"):
        await anext(parts)


async def test_a_task_that_yields_nothing_has_no_stream(client: Client) -> None:
    handle = await client.submit("keep_quiet")
    await handle.result()
    with pytest.raises(NoPartsKept, match="no parts are kept"):
        [part async for part in handle.stream()]


async def test_a_slow_reader_slows_nobody(client: Client, promised: Promised) -> None:
    handle = await live_tasks.days.submit(50, 0.01)
    parts = handle.stream()
    await anext(parts)
    began = time.monotonic()
    assert await handle.result() == "all"  # type: ignore[comparison-overlap]
    assert time.monotonic() - began < promised(5)
    assert len([part async for part in parts]) == 49


@pytest.mark.parametrize("name", ["talk", "talk_in_process"])
async def test_log_and_progress_reach_another_process_within_half_a_second(
    name: str, client: Client, promised: Promised
) -> None:
    await (await client.submit(name, [0.0])).result()  # its process is warm now
    handle = await client.submit(name, [2.0])
    began = time.monotonic()
    lines: list[str] = []
    async for note in handle.notes():
        lines += note.log
        if note.progress is not None:
            break
    assert time.monotonic() - began < promised(0.5)
    assert await handle.status() == State.RUNNING
    assert note.progress == (0.3, "resizing")
    assert lines == ["INFO shop: a record", "a printed line"]
    assert (await handle.info()).progress == (0.3, "resizing")


async def test_what_is_printed_stays_out_of_the_log_unless_it_is_asked_for(live: Cluster, client: Client) -> None:
    handle = await client.submit("keep_quiet")
    await handle.result()
    assert not (await handle.info()).log
    assert "not for the log" in live.programs[1].log


@pytest.mark.parametrize("name", ["babble", "babble_in_process"])
async def test_a_million_printed_lines_grow_no_process(
    name: str, live: Cluster, client: Client, pytestconfig: pytest.Config
) -> None:
    lines = 1_000_000 if pytestconfig.getoption("--full") else 100_000
    await (await client.submit(name, [20_000])).result()

    def held() -> dict[int, int]:
        programs = [psutil.Process(program.pid) for program in live.programs]
        family = [*programs, *(child for program in programs for child in program.children(recursive=True))]
        return {process.pid: process.memory_info().rss for process in [psutil.Process(), *family]}

    before = held()
    handle = await client.submit(name, [lines])
    seen = 0
    left_out = False
    most: dict[int, int] = {}
    notes = handle.notes()
    async for note in notes:
        seen += len(note.log)
        left_out |= any("lines left out" in line for line in note.log)
        now = await asyncio.to_thread(held)
        most = {pid: max(rss, most.get(pid, 0)) for pid, rss in now.items()}
    grown = {pid: (rss - before[pid]) / 1024**2 for pid, rss in most.items() if pid in before}
    assert len(grown) >= 3
    assert max(grown.values()) < 20, grown
    log = (await handle.info()).log
    assert len(log) <= 200
    assert log[-1] == f"line {lines - 1}"
    assert left_out
    assert 0 < seen < lines
