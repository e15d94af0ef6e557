"""A worker that can be trusted with any code: crashes, limits and cancellations, for real; `--full`: in full size."""

from __future__ import annotations

import asyncio
import shutil
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fastworker import Client, TaskCancelled, TaskCrashed, TaskFailed, TaskHandle, TaskTimeout
from fastworker.lifecycle import State
from tests.support.cluster import Cluster
from tests.support.waiting import Promised
from tests.worker import process_tasks

MORE = """

@task
async def doze(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task
def doze_in_thread(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not current_task().cancelled:
        time.sleep(0.005)


@task(run_in="process")
def compute(seconds: float) -> int:
    ends = time.monotonic() + seconds
    count = 0
    while time.monotonic() < ends:
        count += 1
    return count


@task
async def heartbeat(beats: int) -> float:
    late = 0.0
    for _ in range(beats):
        began = time.monotonic()
        await asyncio.sleep(0.01)
        late = max(late, time.monotonic() - began - 0.01)
    return late
"""
WAYS = {
    "SIGSEGV": "SIGSEGV (Segmentation fault)",
    "SIGKILL": "SIGKILL (from outside",
    "os._exit": "exit code 3",
}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane and a worker that knows tasks that die, hang and swallow."""
    with Cluster(tmp_path_factory.mktemp("any-code")) as cluster:
        source = Path(process_tasks.__file__)
        shutil.copy(source, cluster.folder / "tasks.py")
        with (cluster.folder / "tasks.py").open("a") as file:
            file.write(MORE)
        cluster.start("--processes", "0")
        cluster.worker("--concurrency", "4")
        yield cluster


@pytest.fixture
async def client(team: Cluster) -> AsyncIterator[Client]:
    async with Client(team.url) as client:
        yield client


@pytest.fixture
def full(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--full"))


async def reason_of(handle: TaskHandle[object]) -> str:
    """Why it failed, in its own words."""
    try:
        await handle.result()
    except TaskCrashed as error:
        return error.error_message
    except TaskFailed as error:
        return f"not a crash: {error}"
    return "succeeded"


@pytest.mark.timeout(900)
async def test_tasks_that_take_their_process_down_fail_by_themselves(client: Client, full: bool) -> None:
    each, good = (50, 10_000) if full else (3, 500)
    bad: dict[str, list[TaskHandle[object]]] = {how: [] for how in (*WAYS, "memory")}
    fine: list[TaskHandle[object]] = []
    for _ in range(each):
        for how in WAYS:
            bad[how].append(await client.submit("process_die", [how]))
        bad["memory"].append(await client.submit("process_eat", [400]))
        fine += await client.submit_many("process_noop", [()] * (good // each // 2))
        fine += await client.submit_many("thread_noop", [()] * (good // each // 2))
    for how, handles in bad.items():
        said = WAYS.get(how, "SIGKILL): it held")
        for handle in handles:
            assert said in await reason_of(handle)
            info = await handle.info()
            assert (info.state, info.reason, info.attempt) == (State.FAILED, "crashed", 1)
            assert [attempt.outcome for attempt in info.history] == ["crashed"]
    for handle in fine:
        await handle.result()
    assert {(await handle.info()).attempt for handle in fine[-200:]} == {1}


async def test_a_thousand_coroutines_sleep_side_by_side(team: Cluster, promised: Promised) -> None:
    worker = team.worker("--concurrency", "1000", name="wide")
    async with Client(team.url) as client:
        await client.pause(name="doze")
        handles = await client.submit_many("doze", [(1.0,)] * 1000)
        await client.resume(name="doze")
        began = time.monotonic()
        for handle in handles:
            await handle.result()
        took = time.monotonic() - began
    assert worker.terminate() == 0
    assert took < promised(3), f"{took:.2f} s"


async def test_what_computes_in_a_process_does_not_delay_the_event_loop(client: Client, promised: Promised) -> None:
    await (await client.submit("compute", [0.0])).result()
    busy = await client.submit("compute", [3.0])
    late = await (await client.submit("heartbeat", [150])).result()
    assert not await is_ended(busy)
    assert late < promised(0.1), f"{late * 1000:.0f} ms"
    await busy.result()


async def is_ended(handle: TaskHandle[object]) -> bool:
    return (await handle.info()).finished_at is not None


async def test_the_hard_limit_kills_within_half_a_second_and_the_slot_works_again_within_one(
    client: Client, promised: Promised
) -> None:
    await (await client.submit("process_noop")).result()
    for _ in range(3):
        handle = await client.submit("process_deaf", [60.0], timeout=0.1, hard_timeout=0.5)
        with pytest.raises(TaskTimeout, match=r"hard_timeout of 0\.5 s"):
            await handle.result()
        info = await handle.info()
        assert info.started_at is not None
        assert info.finished_at is not None
        assert info.finished_at - info.started_at < 0.5 + promised(0.5)
        again = time.monotonic()
        await (await client.submit("process_noop")).result()
        assert time.monotonic() - again < promised(1.0)


async def test_the_soft_limit_can_be_caught(client: Client) -> None:
    handle = await client.submit("process_clean_up", timeout=0.2)
    assert await handle.result() == "cleaned up"


async def started(handle: TaskHandle[object]) -> None:
    while await handle.status() == State.QUEUED:  # noqa: ASYNC110 - it happens in another process
        await asyncio.sleep(0.002)


async def end_of(handle: TaskHandle[object]) -> str:
    """What really became of a task."""
    try:
        await handle.result()
    except TaskCancelled:
        return "cancelled"
    return "succeeded"


@pytest.mark.timeout(600)
async def test_the_answer_to_a_cancellation_is_what_happened(client: Client, full: bool) -> None:
    rounds = 100 if full else 6
    answers: Counter[tuple[str, str]] = Counter()
    await client.pause(name="process_add")
    for _ in range(rounds):
        for name, args in [("doze", [20.0]), ("doze_in_thread", [20.0]), ("process_nap", [20.0])]:
            handle = await client.submit(name, args)
            await started(handle)
            answers[name, await handle.cancel()] += 1
            assert await end_of(handle) == ("succeeded" if name == "doze_in_thread" else "cancelled")
        held = await client.submit("process_add", [1, 2])
        answers["held", await held.cancel()] += 1
        assert await end_of(held) == "cancelled"
        assert (await held.info()).attempt == 0
        done = await client.submit("thread_noop")
        await done.result()
        answers["done", await done.cancel()] += 1
        answers["unknown", await client.cancel("01900000-0000-7000-8000-000000000000")] += 1
    await client.resume(name="process_add")
    assert answers == {
        ("doze", "interrupted"): rounds,
        ("doze_in_thread", "asked"): rounds,
        ("process_nap", "killed"): rounds,
        ("held", "was_queued"): rounds,
        ("done", "already_done"): rounds,
        ("unknown", "not_found"): rounds,
    }


async def test_an_answer_that_races_with_the_end_is_true_too(client: Client, full: bool) -> None:
    expected = {"already_done": {"succeeded"}, "asked": {"succeeded", "cancelled"}}
    await (await client.submit("process_noop")).result()
    for number in range(100 if full else 30):
        handle = await client.submit(
            ("process_noop", "thread_noop", "doze")[number % 3], [0.001] if number % 3 == 2 else []
        )
        await asyncio.sleep(0.0003 * (number % 10))
        answer = await handle.cancel()
        assert await end_of(handle) in expected.get(answer, {"cancelled"}), answer


async def test_cancellations_work_while_the_worker_drains(team: Cluster) -> None:
    async with Client(team.url) as client:
        (team.folder / "draining.py").write_text(
            "import asyncio, time\nfrom pathlib import Path\n\nfrom fastworker import task\n\n\n"
            "@task\nasync def last() -> None:\n    Path('last').touch()\n    await asyncio.sleep(30)\n\n\n"
            "@task(run_in='process')\ndef last_in_process() -> None:\n"
            "    Path('last_in_process').touch()\n    time.sleep(30)\n"
        )
        worker = team.worker("draining", name="leaving")
        handles = {name: await client.submit(name) for name in ("last", "last_in_process")}
        for name in handles:
            while not (team.folder / name).exists():  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.002)
        worker.signal(signal.SIGTERM)
        while "drains" not in worker.log:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        assert [await handle.cancel() for handle in handles.values()] == ["interrupted", "killed"]
        assert worker.wait(10) == 0


@pytest.mark.calm
async def test_a_process_costs_at_most_three_times_a_thread(client: Client) -> None:
    """Side by side, in turns, so that whatever else the machine does hits both."""

    async def seconds(name: str, count: int) -> float:
        began = time.monotonic()
        for handle in await client.submit_many(name, [()] * count):
            await handle.result()
        return time.monotonic() - began

    for name in ("thread_noop", "process_noop"):
        await seconds(name, 500)
    ratios = [await seconds("process_noop", 1500) / await seconds("thread_noop", 1500) for _ in range(5)]
    assert statistics.median(ratios) <= 3, ratios
    print(f"a process costs {statistics.median(ratios):.1f} times a thread")


async def test_code_that_differs_between_client_and_worker_fails_once_and_shows_both(client: Client) -> None:
    handle = await client.submit("process_add", [1], {"c": "two"}, retries=5)
    with pytest.raises(TaskFailed) as failed:
        await handle.result()
    assert "process_add(a: 'int', b: 'int')" in str(failed.value)
    assert "submitted as process_add(integer, c: string)" in str(failed.value)
    assert (await handle.info()).attempt == 1
