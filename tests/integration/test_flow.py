"""Limits, uniqueness and workflows against real processes: from the client, in the workers, on the command line."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastworker import (
    Client,
    ConfigurationError,
    DuplicateSubmission,
    EventsLost,
    InvalidArguments,
    PayloadTooLarge,
    TaskCancelled,
    TaskNotFound,
    UnknownDependency,
    UpstreamFailed,
    chain,
    group,
)
from fastworker.portal import wait_for
from fastworker.tasks import new_task_id
from tests.support import flow_tasks as flow
from tests.support.cluster import Cluster
from tests.support.waiting import until

FLOW_TASKS = Path(flow.__file__)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with one own worker that knows the tasks of flows, too."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        shutil.copy(FLOW_TASKS, cluster.folder)
        cluster.start()
        yield cluster


@pytest.fixture
def flowing(cluster: Cluster) -> Cluster:
    """A folder with the tasks of flows, in which nothing runs yet."""
    shutil.copy(FLOW_TASKS, cluster.folder)
    return cluster


def started(cluster: Cluster, task_id: str) -> int:
    return cluster.journal.starts_by_task()[str(task_id)]


def open_gate(flag: str) -> None:
    """Let those go on who wait for this file."""
    Path(flag).touch()


# ---- workflows -------------------------------------------------------------------------------------------------------


async def test_a_handle_is_a_value(running: Cluster) -> None:
    async with Client(running.url):
        one: Any = await flow.number.submit(1)
        total: Any = await flow.plus.submit(await flow.plus.submit(one, 2), 3)
        assert await total.result(15) == 6
        several = await flow.total.submit([one, total, 10])
        assert await several.result(15) == 17


async def test_a_handle_is_a_value_by_name_too(running: Cluster) -> None:
    async with Client(running.url) as client:
        first = await client.delay("number", 20)
        assert await (await client.delay("plus", first, b=await client.delay("number", 2))).result(15) == 22


async def test_chains_groups_and_what_comes_after_them(running: Cluster) -> None:
    async with Client(running.url):
        handle = await chain(flow.number.s(1), flow.plus.s(2), flow.plus.s(3)).submit()
        assert await handle.result(15) == 6
        numbers = await group([flow.number.s(n) for n in range(5)]).submit()
        assert await numbers.result(15) == [0, 1, 2, 3, 4]
        joined = await group([flow.number.s(n) for n in range(5)]).then(flow.total.s() | flow.plus.s(100)).submit()
        assert await joined.result(15) == 110
        nested = await (
            group([flow.number.s(1) | flow.plus.s(1), group([flow.number.s(5)]) | flow.total.s()]) | flow.total.s()
        ).submit()
        assert await nested.result(15) == 7
        assert await (await (group([]) | flow.total.s()).submit()).result(15) == 0


def test_a_workflow_from_blocking_code(running: Cluster) -> None:
    done = running.script(
        """
from fastworker import group
from flow_tasks import number, plus, total

print((group([number.s(n) for n in range(10)]) | total.s() | plus.s(b=1)).submit_sync().result_sync(20))
"""
    )
    assert (done.out, done.err) == ("46\n", "")


@pytest.mark.parametrize(
    ("end", "expected"),
    [(flow.report, ["broken failed: broken on purpose", "2"]), (flow.total_of_the_rest, 2)],
    ids=["run", "ignore"],
)
async def test_a_join_may_go_on_without_what_failed(running: Cluster, end: Any, expected: Any) -> None:
    async with Client(running.url):
        handle = await (group([flow.broken.s(), flow.number.s(2)]) | end.s()).submit()
        assert await handle.result(15) == expected


async def test_a_failure_ends_what_comes_after_it_and_names_the_cause(running: Cluster) -> None:
    async with Client(running.url):
        handle = await chain(flow.broken.s(), flow.plus.s(1), flow.plus.s(1)).submit()
        with pytest.raises(UpstreamFailed, match=r"broken .*, which it needs, has failed: .* on purpose") as caught:
            await handle.result(15)
        assert "in broken" in caught.value.remote_traceback
        assert started(running, handle) == 0


async def test_a_step_that_failed_is_requeued_with_other_arguments_and_the_rest_runs(running: Cluster) -> None:
    async with Client(running.url) as client:
        last = await chain(flow.halve.s(7), flow.plus.s(1)).submit()
        with pytest.raises(UpstreamFailed):
            await last.result(15)
        first, _ = await client.workflow(last)
        done = await asyncio.to_thread(running.run, "retry", first.id, "--args", "[8]")
        assert (done.code, done.out) == (0, "queued again\n")
        assert await client.result(first.id, 15) == 4
        assert await client.result(last.id, 15) == 5
        info = await client.info(first.id)
        assert [(attempt.number, attempt.outcome) for attempt in info.history] == [(1, "failed")]
        assert info.history[0].error is not None
        assert info.history[0].error.message == "7 is odd"
        assert (info.attempt, info.args) == (2, "[8]")


async def test_what_failed_for_want_of_another_is_retried_with_all_that_it_needs_after_a_restart(
    flowing: Cluster,
) -> None:
    """The control plane has only the store to know what these have become."""
    control_plane = flowing.start()
    async with Client(flowing.url) as client:
        total = await (group([flow.number.s(1), flow.halve.s(7)]) | flow.total.s()).submit()
        with pytest.raises(UpstreamFailed):
            await total.result(30)
        [halve] = [node for node in await client.workflow(total) if node.name == "halve"]
        control_plane.kill()
        await asyncio.to_thread(flowing.start)
        assert await client.requeue(halve.id, [8])
        assert await client.result(halve.id, 30) == 4
        job = await client.start_bulk("retry", "state:failed name:total")
        await asyncio.to_thread(until, lambda: flowing.client.info(total).state == "succeeded", 30, f"the end of {job}")
        assert await client.result(total, 30) == 5


async def test_the_graph_can_be_asked_for(running: Cluster) -> None:
    async with Client(running.url) as client:
        handle = await (group([flow.number.s(1), flow.number.s(2)]) | flow.total.s()).submit()
        await handle.result(15)
        one, two, total = await handle.workflow()
        assert [(node.name, node.state) for node in (one, two, total)] == [
            ("number", "succeeded"), ("number", "succeeded"), ("total", "succeeded"),
        ]  # fmt: skip
        assert total.needs == (one.id, two.id)
        shown = await asyncio.to_thread(running.run, "workflow", one.id, "--json")
        assert [node["id"] for node in shown.json] == [one.id, two.id, total.id]
        with pytest.raises(TaskNotFound):
            await client.workflow(new_task_id())


async def test_a_running_task_adds_children_and_waits_for_them(running: Cluster) -> None:
    async with Client(running.url) as client:
        handle = await flow.fan_out.submit(10)
        assert await handle.result(30) == 45
        children = [task for task in await client.list(name="number") if task.ties.parent == handle.id]
        assert len(children) == 10


async def test_cancelling_a_workflow_stops_what_runs_and_all_that_waits(running: Cluster) -> None:
    async with Client(running.url) as client:
        first = await client.delay("nap_async", 60)
        waits = await client.delay("plus", first, 1)
        last = await client.delay("plus", waits, 1)
        until(lambda: started(running, first) == 1, what="the start of the first")
        assert await last.cancel_workflow() == 3
        for handle in (first, waits, last):
            with pytest.raises(TaskCancelled):
                await handle.result(15)
        with pytest.raises(TaskNotFound):
            await client.cancel_workflow(new_task_id())


# ---- workflows: bad input --------------------------------------------------------------------------------------------


async def test_a_task_that_nobody_has_can_not_be_needed(running: Cluster) -> None:
    async with Client(running.url) as client:
        for stranger in (new_task_id(), "not an id"):
            with pytest.raises(UnknownDependency, match=r"is needed, but not known: .*of another control plane"):
                _ = await client.delay("plus", client.handle(stranger), 1)


async def test_a_circle_can_not_be_written(running: Cluster) -> None:
    """A handle is had only once its task is stored; an id that is made up beforehand is not known."""
    async with Client(running.url) as client:
        step: Any = flow.plus.s(client.handle(new_task_id()), 1)
        with pytest.raises(UnknownDependency):
            _ = await (step | flow.plus.s(1)).submit()


async def test_of_a_workflow_that_is_refused_nothing_is_queued(running: Cluster) -> None:
    async with Client(running.url) as client:
        before = (await client.stats()).states
        step: Any = flow.plus.s(client.handle(new_task_id()), 1)
        with pytest.raises(UnknownDependency):
            _ = await group([flow.number.s(1), step]).submit()
        with pytest.raises(PayloadTooLarge, match="submit them in parts"):
            _ = await group([flow.number.s(n) for n in range(60_000)]).submit()
        assert (await client.stats()).states == before


# ---- workflows: kill -9 ----------------------------------------------------------------------------------------------


def test_a_workflow_ends_right_though_everything_is_killed_in_the_middle(flowing: Cluster) -> None:
    control_plane = flowing.start("--processes", "0")
    victim = flowing.worker("--concurrency", "4", name="first")
    client = flowing.client
    parts = client.submit_many("number", [(n, 0.05) for n in range(40)])
    joined = client.submit("total", [list(parts)])
    steps = [client.submit("plus", [joined, 1])]
    for _ in range(10):
        steps.append(client.submit("plus", [steps[-1], 1]))
    flowing.await_starts(8)
    control_plane.kill()
    flowing.start("--processes", "0")
    flowing.await_starts(20)
    flowing.worker("--concurrency", "4", name="second")
    victim.kill()
    assert client.result(joined, 30) == sum(range(40))
    assert client.result(steps[-1], 30) == sum(range(40)) + 11
    starts = flowing.journal.starts_by_task()
    assert {starts[str(step)] for step in [joined, *steps]} == {1}


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_limits_are_seen_and_changed_while_tasks_wait(running: Cluster) -> None:
    client = running.client
    running.run("limit", "unlimited", "--max-concurrency", "1", "--rate", "1/h")
    [shown] = [view for view in running.run("limits", "--json").json if view["name"] == "unlimited"]
    assert (shown["rates"], shown["max_concurrency"], shown["set_by_client"]) == (
        [{"count": 1, "period": 3600.0}],
        1,
        True,
    )
    ids = client.submit_many("unlimited", [(n,) for n in range(5)])
    client.result(ids[0], 15)
    explanation = client.why(ids[-1])
    assert explanation.code == "rate limit"
    assert "limited to 1/h" in explanation.reason
    [lane] = [lane for lane in client.queues() if lane.name == "unlimited"]
    assert (lane.held, lane.queued) == ("rate limit", {"normal": 4})
    assert lane.held_until == pytest.approx(time.time() + 3600, abs=60)
    assert {client.info(task_id).attempt for task_id in ids[1:]} == {0}
    client.set_limits("unlimited", rate_limit="3/h")
    client.result(ids[2], 15)
    assert running.run("limit", "unlimited", "--reset").code == 0
    for task_id in ids:
        client.result(task_id, 15)
    assert "unlimited" not in {view.name for view in client.limits()}


def test_each_key_waits_for_itself_only(running: Cluster) -> None:
    client = running.client
    first = [client.submit("one_at_once_for_each", ["anna", 0.3]) for _ in range(3)]
    by_name = [client.submit("one_at_once_for_each", [user, 0.3], key=user) for user in ("ben", "ben", "cleo")]
    for task_id in [*first, *by_name]:
        client.result(task_id, 15)
    assert client.info(by_name[0]).ties.key == "ben"
    running_now: dict[str, int] = {}
    most: dict[str, int] = {}
    for event in running.journal.events():
        if event.task in by_name:
            running_now[event.payload] = running_now.get(event.payload, 0) + (1 if event.what == "start" else -1)
            most[event.payload] = max(most.get(event.payload, 0), running_now[event.payload])
    assert most == {"ben": 1, "cleo": 1}


def test_a_task_can_ask_all_of_its_kind_to_wait(running: Cluster, tmp_path: Path) -> None:
    client = running.client
    flag = str(tmp_path / "flag")
    first = client.submit("told_to_wait", [flag, 1.5])
    until(lambda: client.info(first).state == "retrying", what="the first to be told")
    second = client.submit("told_to_wait", [flag, 1.5])
    assert client.why(second).code == "held by a task"
    assert client.result(second, 15) == client.result(first, 15) == flag
    starts = [event.at for event in running.journal.events("start") if event.payload == flag]
    assert len(starts) == 3
    assert min(starts[1:]) - starts[0] >= 1.4
    assert client.info(first).failures == 0


@pytest.mark.parametrize("words", ["--rate 10/fortnight", "--reset --unlimited"])
def test_wrong_limits_are_refused_with_what_to_write(running: Cluster, words: str) -> None:
    done = running.run("limit", "add", *words.split())
    assert done.code == 2
    assert "Traceback" not in done.err


def test_wrong_limits_from_a_client_are_refused_before_anything_is_sent(running: Cluster) -> None:
    with pytest.raises(ConfigurationError, match="write it as '10/s'"):
        running.client.set_limits("add", rate_limit="10/fortnight")
    with pytest.raises(ConfigurationError, match="use a whole number from 1"):
        running.client.set_limits("add", max_concurrency=0)
    with pytest.raises(ConfigurationError, match="fastworker pause"):
        running.client.set_limits("add", rate_limit="0/s")


def test_a_schedule_has_the_key_of_its_arguments(running: Cluster) -> None:
    client = running.client
    client.add_schedule("anna's", flow.one_at_once_for_each, ["anna", 0.0], every=3600)
    client.add_schedule("ben's", "one_at_once_for_each", ["ben", 0.0], every=3600, key="ben")
    for schedule, key in (("anna's", "anna"), ("ben's", "ben")):
        ties = client.info(client.run_schedule(schedule)).ties
        assert (ties.key, ties.schedule) == (key, schedule)
    with pytest.raises(ConfigurationError, match="uniqueness is not for schedules"):
        client.add_schedule("anna's", flow.one_at_once_for_each, ["anna", 0.0], every=3600, unique="running")
    with pytest.raises(InvalidArguments, match="function of key raised ZeroDivisionError"):
        client.add_schedule("anna's", "one_at_once_for_each", ["anna", 0.0], every=3600, key=lambda *_: 1 // 0)


def test_orders_outlive_a_control_plane_that_is_killed(flowing: Cluster) -> None:
    control_plane = flowing.start()
    client = flowing.client
    client.set_limits("number", rate_limit="3/h")
    client.pause(worker="nobody")
    client.pause(name="halve")
    for task_id in client.submit_many("number", [(n,) for n in range(3)]):
        client.result(task_id, 15)
    told = client.submit("told_to_wait", [str(flowing.folder / "told"), 600.0])
    until(lambda: client.info(told).state == "retrying", what="a task to ask for its lane to be held")
    held = client.submit("number", [3])
    control_plane.kill()
    flowing.start(FASTWORKER_RECOVERY="1")
    until(lambda: flowing.client.why(held).code == "rate limit", what="the limit")
    assert client.why(client.submit("told_to_wait", ["", 0.0])).code == "held by a task"
    assert client.why(client.submit("halve", [2])).code == "paused"
    [pause] = wait_for(client.client.activity()).pauses
    assert (pause.what, pause.target, time.time() - pause.at < 60) == ("name", "halve", True)
    assert pause.by, "whoever paused it is known still"
    assert [view.name for view in client.limits() if view.set_by_client] == ["number"]
    client.reset_limits("number")
    assert client.result(held, 15) == 3


# ---- pause of a worker, other priorities -----------------------------------------------------------------------------


def test_a_paused_worker_gets_nothing_and_why_says_so(flowing: Cluster) -> None:
    flowing.start("--processes", "0")
    flowing.worker(name="only")
    client = flowing.client
    assert flowing.run("pause", "--worker", "only").code == 0
    [view] = client.workers()
    assert view.paused
    task_id = client.submit("number", [7])
    explanation = client.why(task_id)
    assert (explanation.code, explanation.advice) == ("workers paused", "fastworker resume --worker only")
    assert flowing.run("resume", "--worker", "only").code == 0
    assert client.result(task_id, 15) == 7


def test_a_queued_task_can_be_given_another_priority(flowing: Cluster) -> None:
    flowing.start("--concurrency", "1")
    client = flowing.client
    client.pause(name="number")
    ids = [client.submit("number", [n], priority=priority) for n, priority in enumerate(["critical", "normal", "low"])]
    assert flowing.run("priority", ids[0], "low").code == 0
    assert client.reprioritise(ids[2], "high")
    client.resume(name="number")
    for task_id in ids:
        client.result(task_id, 15)
    assert [event.payload for event in flowing.journal.events("start")] == [2, 1, 0]
    assert client.reprioritise(ids[0], "high") is False
    with pytest.raises(TaskNotFound):
        client.reprioritise(new_task_id(), "high")
    assert client.info(ids[0]).priority == "low"


# ---- uniqueness and idempotency --------------------------------------------------------------------------------------


async def test_two_that_are_the_same_are_one_task(running: Cluster, tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    async with Client(running.url):
        first = await flow.sync_account.submit("a", flag)
        second = await flow.sync_account.submit("a", flag)
        other = await flow.sync_account.submit("b")
        assert first == second != other
        open_gate(flag)
        assert await second.result(15) == "a"
        assert await other.result(15) == "b"
        again = await flow.sync_account.submit("a", flag)
        assert again != first
        assert await again.result(15) == "a"


async def test_a_duplicate_can_be_refused_and_a_whole_request_with_it(running: Cluster, tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    reject = flow.sync_account.options(on_duplicate="reject")
    async with Client(running.url) as client:
        first = await flow.sync_account.submit("a", flag)
        with pytest.raises(DuplicateSubmission, match="another one is there already"):
            _ = await reject.submit("a", flag)
        before = (await client.stats()).states
        with pytest.raises(DuplicateSubmission):
            _ = await group([flow.number.s(1), reject.s("a", flag)]).submit()
        after = (await client.stats()).states
        assert sum(after.values()) == sum(before.values())
        open_gate(flag)
        await first.result(15)


def test_of_a_burst_only_the_last_runs(running: Cluster) -> None:
    """A debounce: each replaces the one before it, which still waits for its delay."""
    client = running.client
    ids = [
        client.submit("number", [n], unique=True, unique_key="burst", on_duplicate="replace", delay=0.4)
        for n in range(10)
    ]
    assert client.result(ids[-1], 15) == 9
    infos = [client.info(task_id) for task_id in ids[:-1]]
    assert {(info.state, info.reason, info.attempt) for info in infos} == {("cancelled", "replaced", 0)}


def test_an_idempotency_key_is_one_task_over_clients_and_restarts(flowing: Cluster) -> None:
    control_plane = flowing.start()
    client = flowing.client
    first = client.submit("number", [1], idempotency_key="order 7")
    assert client.result(first, 15) == 1
    control_plane.kill()
    flowing.start(FASTWORKER_RECOVERY="1")
    again = flowing.script(
        """
from flow_tasks import number
handle = number.options(idempotency_key="order 7").submit_sync(2)
print(handle, handle.result_sync(15))
"""
    )
    assert again.out.split() == [first, "1"], again.err
    assert client.submit("number", [2], idempotency_key="order 8") != first
    assert started(flowing, first) == 1


def test_many_at_once_with_the_same_key_are_one_task(running: Cluster) -> None:
    ids: list[str] = []

    def submit() -> None:
        ids.append(str(running.client.submit("number", [5], idempotency_key="crowd")))

    crowd = [threading.Thread(target=submit) for _ in range(20)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert len(set(ids)) == 1
    assert running.client.result(ids[0], 15) == 5
    assert started(running, ids[0]) == 1


# ---- events ----------------------------------------------------------------------------------------------------------


async def test_events_go_on_where_they_were_left(running: Cluster) -> None:
    async with Client(running.url) as client:
        seen = []
        stream = client.events(name="halve")
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        handle = await flow.halve.submit(8)
        seen.append(await asyncio.wait_for(reading, 15))
        await stream.aclose()
        await handle.result(15)
    async with Client(running.url) as client:
        async for change in client.events(task_id=handle.id, after=seen[-1].version):
            seen.append(change)
    assert [change.state for change in seen] == ["queued", "running", "succeeded"]
    assert [change.version for change in seen] == sorted({change.version for change in seen})


async def test_events_that_are_no_longer_known_are_said_to_be_lost(running: Cluster) -> None:
    async with Client(running.url) as client:
        with pytest.raises(EventsLost, match="not known any more"):
            async for _ in client.events(after=0):
                pass


# ---- a thousand ways to be asked at once -----------------------------------------------------------------------------


def test_a_group_of_two_thousand_and_its_join(running: Cluster) -> None:
    done = running.script(
        """
import json
from fastworker import group
from flow_tasks import long_chain, number, total

joined = (group([number.s(n) for n in range(2000)]) | total.s()).submit_sync()
steps = long_chain(0, 200).submit_sync()
print(json.dumps([joined.result_sync(60), steps.result_sync(60)]))
"""
    )
    assert done.err == ""
    assert json.loads(done.out) == [sum(range(2000)), 200]


def test_this_file_knows_the_tasks_that_the_workers_run() -> None:
    """The client's own copy must be the workers' one: a definition that differs would be another story."""
    assert sys.modules["tests.support.flow_tasks"].__file__ == str(FLOW_TASKS)
