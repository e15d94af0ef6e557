"""What can be said of a task, against real processes: retries, times, limits, priorities, results."""

from __future__ import annotations

import itertools
import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from fastworker import ResultExpired, TaskCrashed, TaskExpired, TaskFailed, TaskTimeout
from tests.support.cluster import Cluster
from tests.support.journal import Event
from tests.support.waiting import until


def starts(cluster: Cluster, task_id: str) -> list[Event]:
    return [event for event in cluster.journal.events("start") if event.task == task_id]


# ---- retries -----------------------------------------------------------------------------------------------------


def test_a_failing_task_is_tried_again_until_it_succeeds(running: Cluster) -> None:
    task_id = running.client.delay("flaky", 3)
    assert running.client.result(task_id, 15) == 3
    assert [event.attempt for event in starts(running, task_id)] == [1, 2, 3]
    info = running.client.info(task_id)
    assert (info.state, info.attempt, info.failures, info.error) == ("succeeded", 3, 2, None)


def test_retries_wait_longer_each_time_and_end(running: Cluster) -> None:
    task_id = running.client.delay("always_fails")
    with pytest.raises(TaskFailed, match="never") as caught:
        running.client.result(task_id, 20)
    assert "in always_fails" in caught.value.remote_traceback
    times = [event.at for event in starts(running, task_id)]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(waits) == 3
    for wait, least in zip(waits, (0.2, 0.4, 0.8), strict=True):
        assert least <= wait < least + 1.0


def test_give_up_on_ends_the_retries(running: Cluster) -> None:
    task_id = running.client.delay("gives_up")
    with pytest.raises(TaskFailed, match="hopeless"):
        running.client.result(task_id, 15)
    assert len(starts(running, task_id)) == 1


def test_retry_asks_for_another_attempt_without_using_up_a_retry(running: Cluster) -> None:
    task_id = running.client.delay("again_later", 3)
    assert running.client.result(task_id, 15) == 4
    assert running.client.info(task_id).failures == 0


# ---- times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["delay", "eta", "eta with a zone"])
def test_a_task_does_not_start_before_its_time(running: Cluster, what: str) -> None:
    client = running.client
    moment = time.time() + 1.0
    match what:
        case "delay":
            task_id = client.submit("work", ["x"], delay=1.0)
        case "eta":
            task_id = client.submit("work", ["x"], eta=moment)
        case _:
            task_id = client.submit("work", ["x"], eta=datetime.now(UTC) + timedelta(seconds=1))
    assert client.info(task_id).state == "scheduled"
    assert client.result(task_id, 15) == "done:x"
    [start] = starts(running, task_id)
    assert -0.005 <= start.at - moment < 1.0


def test_what_was_not_started_in_time_expires(running: Cluster) -> None:
    client = running.client
    client.pause(queue="slow lane")
    task_id = client.submit("work", ["x"], queue="slow lane", expires=0.3)
    with pytest.raises(TaskExpired):
        client.result(task_id, 15)
    client.resume(queue="slow lane")
    assert client.info(task_id).state == "expired"
    assert starts(running, task_id) == []


def test_what_was_started_in_time_does_not_expire(running: Cluster) -> None:
    task_id = running.client.submit("nap", [1.0, "slept"], expires=0.5)
    assert running.client.result(task_id, 15) == "slept"


# ---- time limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["too_slow", "too_slow_async"])
def test_a_task_that_is_too_slow_is_broken_off(running: Cluster, name: str) -> None:
    task_id = running.client.delay(name)
    with pytest.raises(TaskTimeout):
        running.client.result(task_id, 15)
    info = running.client.info(task_id)
    assert (info.state, info.reason) == ("failed", "timeout")
    assert 0.3 <= (info.finished_at or 0) - (info.started_at or 0) < 1.5


def test_a_time_limit_can_be_caught_in_a_thread(running: Cluster) -> None:
    task_id = running.client.delay("cleans_up")
    assert running.client.result(task_id, 15) == "cleaned up"


def test_a_time_limit_lets_a_coroutine_clean_up(running: Cluster) -> None:
    task_id = running.client.delay("cleans_up_async")
    with pytest.raises(TaskTimeout):
        running.client.result(task_id, 15)
    assert [event.task for event in running.journal.events("end") if event.task == task_id] == [task_id]


def test_the_limit_of_one_submission_goes_before_that_of_the_task(running: Cluster) -> None:
    task_id = running.client.submit("too_slow", timeout=1.5)
    with pytest.raises(TaskTimeout):
        running.client.result(task_id, 15)
    info = running.client.info(task_id)
    assert (info.finished_at or 0) - (info.started_at or 0) >= 1.5


# ---- priorities --------------------------------------------------------------------------------------------------


def test_better_priorities_start_first_and_equal_ones_in_order(cluster: Cluster) -> None:
    cluster.start("--concurrency", "1")
    client = cluster.client
    client.pause(name="work")
    asked = [(priority, n) for n in range(3) for priority in ("low", "normal", "critical", "high")]
    ids = [client.submit("work", [f"{priority} {n}"], priority=priority) for priority, n in asked]
    client.resume(name="work")
    for task_id in ids:
        client.result(task_id, 15)
    ran = [event.payload for event in cluster.journal.events("start")]
    assert ran == [f"{priority} {n}" for priority in ("critical", "high", "normal", "low") for n in range(3)]


# ---- results -----------------------------------------------------------------------------------------------------


def test_a_result_expires(running: Cluster) -> None:
    client = running.client
    task_id = client.submit("add", [1, 2], result_ttl=0.5)
    assert client.result(task_id, 15) == 3
    until(lambda: client.info(task_id).result_expired, what="the expiry of the result")
    done = running.run("result", task_id)
    assert done.code == 1
    assert "no longer kept" in done.err
    assert "expired" in running.run("status", task_id).out


def test_a_result_that_expired_raises_in_a_client_that_comes_later(running: Cluster) -> None:
    task_id = running.client.submit("add", [1, 2], result_ttl=0.0)
    until(lambda: running.client.info(task_id).state == "succeeded")
    handle = running.client.client.handle(task_id)
    with pytest.raises(ResultExpired):
        handle.result_sync(15)


def test_arguments_and_results_of_every_annotated_type(running: Cluster) -> None:
    done = running.script(
        """
from datetime import datetime, UTC
from decimal import Decimal
from uuid import UUID
from tasks import typed

values = (datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), UUID(int=7), Decimal("0.10"), bytes(range(256)))
assert typed.submit_sync(*values).result_sync(15) == values
print("same")
"""
    )
    assert (done.out, done.err) == ("same\n", "")


def test_a_task_can_submit_tasks_and_wait_for_them(running: Cluster) -> None:
    assert running.client.result(running.client.delay("parent_async", 5), 30) == 20
    assert running.client.result(running.client.delay("parent", 5), 30) == 20


def test_results_of_all_sizes_up_to_the_limit(running: Cluster) -> None:
    client = running.client
    for size in (0, 1, 65_536, 1_000_000, 7_000_000):
        assert client.result(client.delay("echo", "x" * size), 30) == "x" * size


# ---- acknowledgement ---------------------------------------------------------------------------------------------


def test_acks_early_means_at_most_one_start(cluster: Cluster) -> None:
    cluster.start()
    task_id = cluster.client.delay("dies_early")
    with pytest.raises(TaskCrashed, match="was lost under it"):
        cluster.client.result(task_id, 30)
    until(lambda: cluster.own_workers() == 1, what="the next own worker")
    assert cluster.client.result(cluster.client.delay("add", 1, 1), 30) == 2
    assert len(starts(cluster, task_id)) == 1


def test_a_task_that_kills_its_worker_is_given_up_after_three_crashes(cluster: Cluster) -> None:
    cluster.start()
    task_id = cluster.client.delay("dies")
    with pytest.raises(TaskCrashed, match="3 in all"):
        cluster.client.result(task_id, 60)
    info = cluster.client.info(task_id)
    assert (info.state, info.reason, info.crashes) == ("failed", "crashed", 3)
    assert [event.attempt for event in starts(cluster, task_id)] == [1, 2, 3]
    until(lambda: cluster.own_workers() == 1, 30, "the next own worker")
    pid = json.loads(cluster.run("submit", "where").out)
    assert pid != os.getpid()
