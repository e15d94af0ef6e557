"""`fastworker.testing`: the real queue in a user's test, with a clock that the test moves."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from fastworker import Client, TaskExpired, TaskFailed, task
from fastworker.lifecycle import State
from fastworker.testing import TaskQueue
from tests.support.waiting import Promised

attempts: list[str] = []


@task(name="testing_send", retries=5, backoff=1800)
def send(user_id: int, subject: str = "hello") -> str:
    attempts.append(subject)
    if len(attempts) < 4:
        raise ConnectionError("no route")
    return f"sent to {user_id}"


@task(name="testing_add")
async def add(a: int, b: int) -> int:
    return a + b


@task(name="testing_parent")
async def parent() -> str:
    return (await add.submit(1, 1)).id


@task(name="testing_sleepy")
def sleepy() -> None:
    time.sleep(0.5)


@pytest.fixture(autouse=True)
def fresh() -> None:
    attempts.clear()


async def test_a_task_runs_at_once_in_an_async_test(task_queue: TaskQueue) -> None:
    assert await (await add.submit(2, 3)) == 5


def test_a_task_runs_at_once_in_a_blocking_test(task_queue: TaskQueue) -> None:
    assert add.submit_sync(2, 3).result_sync(10) == 5


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_queue_of_its_own(turn: int, task_queue: TaskQueue) -> None:
    task_queue.assert_nothing_submitted()
    _ = add.submit_sync(turn, turn)
    assert [info.args for info in task_queue.submitted()] == [f'{{"a":{turn},"b":{turn}}}']


async def test_three_hours_of_retries_take_no_time(task_queue: TaskQueue, promised: Promised) -> None:
    handle = await send.submit(7)
    began = time.monotonic()
    task_queue.clock.advance(minutes=29)
    assert attempts == ["hello"]
    task_queue.clock.advance(hours=3)
    assert await handle == "sent to 7"
    assert len(attempts) == 4
    assert time.monotonic() - began < promised(2)


async def test_a_delayed_task_waits_for_its_moment(task_queue: TaskQueue) -> None:
    handle = await add.options(delay=timedelta(days=30)).submit(1, 2)
    before = task_queue.clock.now
    task_queue.clock.advance(days=29)
    assert await handle.status() == State.SCHEDULED
    task_queue.clock.advance(days=1)
    assert await handle == 3
    assert task_queue.clock.now - before == timedelta(days=30)


async def test_what_expires_expires(task_queue: TaskQueue) -> None:
    async with Client() as client:
        await client.pause(name="testing_add")
        handle = await add.options(expires=60).submit(1, 2)
        task_queue.clock.advance(seconds=61)
        with pytest.raises(TaskExpired):
            await handle.result()


def test_what_was_submitted_can_be_asserted(task_queue: TaskQueue) -> None:
    _ = send.options(delay=60).submit_sync(7, subject="welcome")
    info = task_queue.assert_submitted(send, 7, subject="welcome")
    assert info.state == State.SCHEDULED
    assert task_queue.assert_submitted("testing_send", user_id=7, subject="welcome").id == info.id
    task_queue.assert_nothing_submitted(add)
    with pytest.raises(AssertionError, match=r"testing_send was not submitted with .8,"):
        task_queue.assert_submitted(send, 8)
    with pytest.raises(AssertionError, match="submitted were"):
        task_queue.assert_nothing_submitted()


async def test_by_name_too(task_queue: TaskQueue) -> None:
    async with Client() as client:
        _ = await client.delay("testing_add", 1, b=2)
        _ = await client.submit("nowhere_known", [1, 2])
    task_queue.assert_submitted("nowhere_known", 1, 2)


def test_tasks_that_submit_tasks_settle_together(task_queue: TaskQueue) -> None:
    handle = parent.submit_sync()
    task_queue.settle()
    assert handle.result_sync(5) == task_queue.assert_submitted(add, 1, 1).id
    assert {info.state for info in task_queue.submitted()} == {State.SUCCEEDED}


def test_settling_waits_for_real_work(task_queue: TaskQueue) -> None:
    _ = sleepy.submit_sync()
    task_queue.settle()
    assert [info.state for info in task_queue.submitted()] == [State.SUCCEEDED]


async def test_a_failure_is_the_real_one(task_queue: TaskQueue) -> None:
    handle = await send.options(retries=0).submit(7)
    with pytest.raises(TaskFailed, match="no route"):
        await handle.result()


def test_time_does_not_go_backwards(task_queue: TaskQueue) -> None:
    with pytest.raises(ValueError, match="backwards"):
        task_queue.clock.advance(-1)


PLAIN = """
from fastworker import task

@task
def double(n: int) -> int:
    return 2 * n

def test_double(task_queue):
    assert double.submit_sync(4).result_sync(5) == 8
    task_queue.assert_submitted(double, 4)
"""


def test_the_plugin_is_found_by_a_plain_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_double.py").write_text(PLAIN)
    words = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), str(tmp_path)]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "1 passed" in ran.stdout
