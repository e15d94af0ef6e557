"""Lanes and routes: who goes first, what is held, and which workers serve."""

from __future__ import annotations

import pytest

from fastworker.activity import Pause
from fastworker.tasks import PRIORITIES, Priority
from tests.server.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_critical_task_goes_before_a_hundred_normal_ones(stage: Stage) -> None:
    for n in range(100):
        stage.submit(f"normal {n}")
    stage.submit("urgent", priority=Priority.CRITICAL)
    stage.join()
    assert stage.started() == ["urgent"]


def test_priorities_go_in_order_across_names_and_queues(stage: Stage) -> None:
    for n, priority in enumerate(reversed(PRIORITIES)):
        stage.submit(priority.value, ("add", "sub")[n % 2], priority=priority, queue=("mail", "default")[n // 2])
    stage.join("w", 4, "add", "sub")
    assert stage.started() == ["critical", "high", "normal", "low"]


def test_within_a_priority_the_first_come_is_the_first_served(stage: Stage) -> None:
    names = [f"{n}" for n in range(20)]
    for n, task_id in enumerate(names):
        stage.submit(task_id, ("add", "sub")[n % 2])
    stage.join("w", 20, "add", "sub")
    assert stage.started() == names


def test_the_least_loaded_worker_gets_the_next_task(stage: Stage) -> None:
    for name, slots in (("small", 1), ("large", 3)):
        stage.join(name, slots)
    for n in range(4):
        stage.submit(str(n))
    assert sorted(worker for worker, _, _ in stage.dispatch()) == ["large", "large", "large", "small"]


def test_a_task_whose_workers_are_busy_holds_up_no_other(stage: Stage) -> None:
    stage.join("adds", 1, "add")
    stage.join("subs", 1, "sub")
    stage.submit("a1", "add", priority=Priority.HIGH)
    stage.submit("a2", "add", priority=Priority.HIGH)
    stage.submit("s", "sub", priority=Priority.LOW)
    assert stage.started() == ["a1", "s"]


# ---- leaving a lane otherwise than by being started ------------------------------------------------------------------


def test_the_next_task_moves_up_when_the_first_is_cancelled(stage: Stage) -> None:
    for task_id in ("first", "second"):
        stage.submit(task_id)
    stage.engine.cancel("first", stage.now)
    stage.join()
    assert stage.started() == ["second"]


def test_the_next_task_moves_up_when_the_first_expires_while_workers_wait(stage: Stage) -> None:
    stage.join()
    stage.engine.lanes.pause("default", None)
    stage.submit("first", expires=5.0)
    stage.submit("second")
    stage.submit("third")
    stage.engine.lanes.resume("default", None)
    stage.advance(5.0)
    stage.engine.cancel("second", stage.now)
    assert stage.started() == ["third"]


def test_a_lane_full_of_cancelled_tasks_is_swept(stage: Stage) -> None:
    for n in range(5000):
        stage.submit(str(n))
    for n in range(4990):
        stage.engine.cancel(str(n), stage.now)
    lane = stage.engine.lanes.lane(stage.task("4990"), stage.now)
    assert (len(lane), len(lane._heap) < 2500) == (10, True)
    stage.join("w", 10)
    assert stage.started() == [str(n) for n in range(4990, 5000)]


def test_how_many_go_before_a_task(stage: Stage) -> None:
    tasks = [stage.submit(str(n), priority=(Priority.NORMAL, Priority.HIGH)[n % 2]) for n in range(6)]
    stage.engine.cancel("1", stage.now)
    lane = stage.engine.lanes.lane(tasks[0], stage.now)
    assert [lane.before(task) for task in tasks if task.id != "1"] == [2, 3, 0, 4, 1]


# ---- pause -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [("default", None), (None, "add")])
def test_a_paused_lane_starts_nothing_until_it_is_resumed(stage: Stage, what: tuple[str | None, str | None]) -> None:
    stage.join()
    stage.submit("before")
    stage.engine.lanes.pause(*what)
    stage.submit("after")
    assert stage.started() == []
    stage.engine.lanes.resume(*what)
    assert stage.started() == ["before"]


def test_a_lane_that_is_paused_twice_over_waits_for_both(stage: Stage) -> None:
    stage.join()
    stage.engine.lanes.pause("default", "add")
    stage.submit("t")
    stage.engine.lanes.resume("default", None)
    assert stage.started() == []
    stage.engine.lanes.resume(None, "add")
    assert stage.started() == ["t"]


def test_a_pause_holds_lanes_that_come_later(stage: Stage) -> None:
    stage.join("w", 1, "add", "new")
    stage.engine.lanes.pause("mail", None)
    stage.submit("held", "new", queue="mail")
    stage.submit("free", "new", queue="default")
    assert stage.started() == ["free"]


def test_who_paused_it_first_is_told_until_it_is_resumed(stage: Stage) -> None:
    lanes = stage.engine.lanes
    lanes.pause("mail", "add", "ann", 5.0)
    lanes.pause("mail", None, "bob", 6.0)
    assert list(lanes.pauses.values()) == [Pause("queue", "mail", "ann", 5.0), Pause("name", "add", "ann", 5.0)]
    lanes.resume("mail", None)
    assert list(lanes.pauses.values()) == [Pause("name", "add", "ann", 5.0)]


# ---- routes ----------------------------------------------------------------------------------------------------------


def test_the_control_planes_own_worker_serves_only_where_no_other_can(stage: Stage) -> None:
    stage.join("own", 4, "add", "sub", own=True)
    other = stage.join("other", 1, "add")
    for task_id in ("a1", "a2"):
        stage.submit(task_id, "add")
    stage.submit("s", "sub")
    assert stage.dispatch() == [("other", "a1", 1), ("own", "s", 1)]
    stage.engine.leave(other, stage.now)
    assert sorted(stage.started()) == ["a1", "a2"]


def test_a_worker_that_drains_gets_nothing_and_leaves_its_lanes_to_others(stage: Stage) -> None:
    stage.join("own", 1, own=True)
    draining = stage.join("draining", 1)
    stage.engine.set_slots(draining, 0)
    stage.submit("t")
    assert stage.dispatch() == [("own", "t", 1)]


def test_what_a_lane_says_of_itself(stage: Stage) -> None:
    task = stage.submit("t", "resize", queue="mail", priority=Priority.HIGH)
    lane = stage.engine.lanes.lane(task, stage.now)
    assert (lane.view().queued, lane.view().held, lane.view().oldest) == ({"high": 1}, "no capable worker", stage.now)
    stage.engine.lanes.pause("mail", None)
    assert lane.view().held == "paused"
