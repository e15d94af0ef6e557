"""The queue as stories: places, turns, and tasks that run again because another one does."""

from __future__ import annotations

import pytest

from fastworker.lifecycle import State
from fastworker.limits import TaskLimits
from fastworker.protocol import Submission
from fastworker.tasks import Definition, Options, Priority, Ties
from tests.server.stage import Stage, hello


@pytest.fixture
def stage() -> Stage:
    return Stage()


def submit(stage: Stage, task_id: str, name: str = "add", **ties: object) -> None:
    stage.engine.submit(Submission(task_id, name, "[]", ties=Ties(**ties)), stage.now)  # type: ignore[arg-type]


def join(stage: Stage, *definitions: Definition) -> None:
    message = hello("w", 1)
    message.definitions = list(definitions)
    stage.engine.join(message, stage.now)


# ---- places ----------------------------------------------------------------------------------------------------------


def test_a_task_with_another_priority_leaves_its_old_place_behind(stage: Stage) -> None:
    stage.submit("demoted", priority=Priority.CRITICAL)
    stage.engine.reprioritise("demoted", Priority.LOW, stage.now)
    stage.submit("normal")
    stage.join(slots=2)
    assert stage.started() == ["normal", "demoted"]


def test_a_priority_that_was_given_is_not_taken_back_by_a_definition_that_comes_later(stage: Stage) -> None:
    stage.submit("urgent")
    stage.engine.reprioritise("urgent", Priority.CRITICAL, stage.now)
    stage.submit("high", priority=Priority.HIGH)
    join(stage, Definition("add", Options(priority=Priority.LOW, retries=2)))
    assert stage.started() == ["urgent"]


def test_a_definition_that_comes_later_takes_waiting_tasks_to_its_queue(stage: Stage) -> None:
    stage.submit("a")
    stage.engine.lanes.pause("mail", None)
    join(stage, Definition("add", Options(queue="mail")))
    assert stage.started() == []
    assert {lane.key: len(lane) for lane in stage.engine.lanes} == {("default", "add", ""): 0, ("mail", "add", ""): 1}
    stage.engine.lanes.resume("mail", None)
    assert stage.started() == ["a"]


# ---- turns -----------------------------------------------------------------------------------------------------------


def test_who_comes_late_does_not_wait_for_the_backlog_of_a_lane_that_was_held(stage: Stage) -> None:
    stage.limit("slow", TaskLimits(max_concurrency=1))
    stage.join("w", 1000, "slow", "fast")
    for number in range(100):
        submit(stage, f"ant-{number}", "slow", fair_key="ant")
    for number in range(200):
        submit(stage, f"other-{number}", "fast")
    assert len(stage.started()) == 201  # meanwhile, the other lane has had many turns
    submit(stage, "bee", "slow", fair_key="bee")
    order = []
    for task_id in ("ant-0", "ant-1", "ant-2"):
        if stage.state(task_id) is State.RUNNING:
            stage.report(task_id)
        order += stage.started()
    assert "bee" in order


# ---- what runs again because another one does ------------------------------------------------------------------------


def test_a_long_chain_runs_again_with_its_first_task(stage: Stage) -> None:
    stage.join()
    submit(stage, "0")
    for number in range(1, 3000):
        submit(stage, f"{number}", needs=(f"{number - 1}",))
    stage.started()
    stage.report("0", "failed")
    assert stage.state("2999") is State.FAILED
    stage.engine.requeue(stage.task("0"), stage.now)
    assert stage.state("0") is State.QUEUED
    assert stage.state("2999") is State.WAITING
