"""The queue's own verbs: options that become known late, other priorities, the history of attempts."""

from __future__ import annotations

from typing import Any

import pytest

from fastworker.lifecycle import State
from fastworker.tasks import Backoff, Definition, Options, Priority, Task
from fastworker_server.queue import HISTORY_TRACEBACK, LONGEST_HISTORY
from tests.server.stage import START, Stage, hello

AT_ONCE = Backoff("constant", 0.0, 0.0, jitter=False)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def join(stage: Stage, slots: int = 1, **options: Any) -> None:
    """A worker comes that defines `add` with these options."""
    introduction = hello("w", slots)
    introduction.definitions = [Definition("add", Options(**options))]
    stage.engine.join(introduction, stage.now)


def queued(stage: Stage) -> dict[str, dict[str, int]]:
    """How much waits, by queue and priority."""
    return {lane.view().queue: lane.view().queued for lane in stage.engine.lanes if len(lane)}


# ---- a definition becomes known --------------------------------------------------------------------------------------


def test_what_is_not_said_is_taken_from_the_definition_when_it_becomes_known(stage: Stage) -> None:
    task = stage.submit("t", timeout=1.0)
    assert task.options == Options(timeout=1.0)
    join(stage, retries=5, timeout=9.0, acks="early")
    assert (task.options.retries, task.options.timeout, task.options.acks) == (5, 1.0, "early")
    assert task.rewrite  # the store is to have it too


def test_a_task_moves_to_the_queue_and_the_priority_of_its_definition(stage: Stage) -> None:
    stage.submit("t")
    join(stage, queue="mail", priority=Priority.HIGH)
    assert queued(stage) == {"mail": {"high": 1}}
    stage.engine.lanes.pause("mail", None)
    assert stage.started() == []
    stage.engine.lanes.resume("mail", None)
    assert stage.started() == ["t"]
    assert stage.engine.lanes.totals == [0, 0, 0, 0]


def test_a_task_that_only_changes_its_queue_is_in_no_other_one(stage: Stage) -> None:
    for n in range(3):
        stage.submit(str(n))
    join(stage, 10, queue="mail")
    assert queued(stage) == {"mail": {"normal": 3}}
    stage.engine.lanes.pause("mail", None)
    assert stage.started() == []
    stage.engine.lanes.resume("mail", None)
    assert stage.started() == ["0", "1", "2"]
    assert stage.engine.lanes.totals == [0, 0, 0, 0]


def test_it_expires_from_its_submission_on_by_a_definition_that_comes_later(stage: Stage) -> None:
    stage.submit("t")
    stage.advance(3.0)
    stage.engine.lanes.pause("default", None)
    join(stage, expires=5.0)
    stage.advance(1.9)
    assert stage.state("t") is State.QUEUED
    stage.advance(0.1)
    assert stage.state("t") is State.EXPIRED


def test_a_definition_that_says_nothing_new_changes_nothing(stage: Stage) -> None:
    stage.submit("a")
    stage.submit("b")
    moves = len(stage.engine.outbox)
    join(stage)
    assert len(stage.engine.outbox) == moves
    assert stage.started() == ["a"]


def test_tasks_of_an_earlier_control_plane_wait_for_their_definition_too(stage: Stage) -> None:
    task = Task(1, "t", "add", "[]", Options(), "default", 2, START, state=State.QUEUED, stored=True)
    stage.engine.recover([task], [], stage.now)
    join(stage, acks="early")
    assert task.options.acks == "early"


# ---- another priority ------------------------------------------------------------------------------------------------


def test_a_better_priority_starts_earlier_and_a_worse_one_later(stage: Stage) -> None:
    for task_id in ("a", "b", "c"):
        stage.submit(task_id)
    assert stage.engine.reprioritise("c", Priority.CRITICAL, stage.now) is True
    assert stage.engine.reprioritise("a", Priority.LOW, stage.now) is True
    assert queued(stage) == {"default": {"critical": 1, "normal": 1, "low": 1}}
    stage.join("w", 3)
    assert stage.started() == ["c", "b", "a"]
    assert stage.engine.lanes.totals == [0, 0, 0, 0]


def test_a_task_leaves_its_old_place_whatever_its_number_is_in_the_new_one(stage: Stage) -> None:
    """Each priority counts its turns by itself: the first of one and the first of another have the same number."""
    stage.submit("was critical", priority=Priority.CRITICAL)
    stage.submit("normal")
    stage.engine.reprioritise("was critical", Priority.LOW, stage.now)
    lane = stage.engine.lanes.lane(stage.task("normal"), stage.now)
    assert (lane.before(stage.task("normal")), lane.before(stage.task("was critical"))) == (0, 1)
    stage.join("w", 2)
    assert stage.started() == ["normal", "was critical"]


def test_a_priority_goes_before_that_of_a_definition_that_comes_later(stage: Stage) -> None:
    stage.submit("t")
    stage.engine.reprioritise("t", Priority.HIGH, stage.now)
    join(stage, priority=Priority.LOW, retries=3)
    assert stage.task("t").rank == Priority.HIGH.rank


def test_a_task_that_runs_has_its_new_priority_once_it_is_queued_again(stage: Stage) -> None:
    worker = stage.join()
    stage.submit("t", retries=1, backoff=AT_ONCE)
    stage.started()
    stage.submit("u")
    stage.engine.reprioritise("t", Priority.LOW, stage.now)
    stage.report("t", "failed")
    stage.advance(0.0)
    assert worker._ahead == [0.0] * 4
    assert stage.started() == ["u"]


def test_a_running_tasks_share_of_its_worker_goes_with_it(stage: Stage) -> None:
    worker = stage.join("w", 2)
    stage.submit("t")
    stage.submit("stays")
    stage.started()
    stage.engine.reprioritise("t", Priority.LOW, stage.now)
    stage.report("t")
    assert worker._ahead == [0.0, 0.0, stage.task("stays").estimate, 0.0]


def test_a_task_that_is_set_aside_has_its_new_priority_when_it_is_due(stage: Stage) -> None:
    stage.submit("t", delay=5.0)
    stage.engine.reprioritise("t", Priority.CRITICAL, stage.now)
    stage.advance(4.0)
    stage.submit("u")
    stage.advance(1.0)
    stage.join()
    assert stage.started() == ["t"]


def test_what_has_ended_or_is_not_known_is_not_reprioritised(stage: Stage) -> None:
    stage.submit("t")
    stage.engine.cancel("t", stage.now)
    assert stage.engine.reprioritise("t", Priority.HIGH, stage.now) is False
    assert stage.engine.reprioritise("nowhere", Priority.HIGH, stage.now) is None


# ---- pause of a worker -----------------------------------------------------------------------------------------------


def test_a_paused_worker_gets_nothing_also_when_it_comes_back(stage: Stage) -> None:
    stage.join("w", 2)
    stage.submit("runs")
    assert stage.started() == ["runs"]
    stage.engine.pause_worker("w", paused=True)
    stage.submit("t")
    assert stage.started() == []
    stage.report("runs")
    assert stage.state("runs") is State.SUCCEEDED
    stage.join("w", 2)
    assert stage.started() == []
    stage.engine.pause_worker("w", paused=False)
    assert stage.started() == ["t"]


# ---- requeue with other arguments, and the history -------------------------------------------------------------------


def test_a_requeued_task_runs_on_other_arguments_and_keeps_its_history(stage: Stage) -> None:
    stage.join()
    stage.submit("t", retries=1, backoff=AT_ONCE)
    for _ in range(2):
        stage.started()
        stage.report("t", "failed")
        stage.advance(0.0)
    assert stage.state("t") is State.FAILED
    stage.engine.requeue(stage.task("t"), stage.now, "[7]")
    [(_, order)] = list(stage.engine.dispatch(stage.now))
    assert (order.args, order.attempt) == ("[7]", 3)
    stage.report("t")
    task = stage.task("t")
    assert (task.state, task.rewrite, task.failures) == (State.SUCCEEDED, True, 0)
    assert [(attempt.number, attempt.outcome, attempt.worker) for attempt in task.history] == [
        (1, "failed", "w"),
        (2, "failed", "w"),
    ]
    assert all(attempt.error is not None for attempt in task.history)


def test_a_crash_stands_in_the_history_as_one(stage: Stage) -> None:
    stage.submit("t")
    stage.engine.leave(_started_at(stage, "first"), stage.now)
    [attempt] = stage.task("t").history
    assert attempt.pid == 1, "whoever looks for the process that died has to know it"
    assert (attempt.outcome, attempt.worker) == ("crashed", "first")
    assert attempt.error is not None
    assert attempt.error.type == "fastworker.WorkerLost"


def _started_at(stage: Stage, name: str) -> Any:
    worker = stage.join(name)
    assert stage.started() != []
    return worker


def test_a_history_does_not_grow_for_ever(stage: Stage) -> None:
    stage.join()
    task = stage.submit("t", retries=100, backoff=AT_ONCE)
    for _ in range(50):
        stage.started()
        stage.report("t", "failed")
        stage.advance(0.0)
    assert [attempt.number for attempt in task.history] == list(range(51 - LONGEST_HISTORY, 51))
    assert all(len(attempt.error.traceback) <= HISTORY_TRACEBACK for attempt in task.history if attempt.error)
