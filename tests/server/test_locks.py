"""Uniqueness: a lock lives in its task and dies with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fastworker.lifecycle import Reason, State
from fastworker.protocol import Submission
from fastworker.tasks import Options, Task, Ties
from fastworker_server.locks import Locks
from tests.server.stage import START, Stage, submission


@pytest.fixture
def stage() -> Stage:
    return Stage()


def unique(task_id: str, **ties: Any) -> Submission:
    return replace(submission(task_id), ties=Ties(**{"unique": "lock", **ties}))


def submit(stage: Stage, task_id: str, **ties: Any) -> None:
    assert stage.engine.submit(unique(task_id, **ties), stage.now) is not None


def holder(stage: Stage, **ties: Any) -> str | None:
    """The task that stands in the way of another one."""
    return stage.engine.duplicates([unique("another", **ties)], stage.now).get("another")


@pytest.mark.parametrize("end", ["succeeds", "fails", "is cancelled", "expires", "is lost too often"])
def test_a_lock_lasts_until_its_task_has_ended_however_it_ends(stage: Stage, end: str) -> None:
    worker = stage.join()
    options = Options(expires=5.0) if end == "expires" else Options(acks="early")
    stage.engine.submit(replace(unique("t"), options=options), stage.now)
    assert holder(stage) == "t"
    if end == "expires":
        stage.advance(5.0)
    else:
        stage.started()
        assert holder(stage) == "t"
    match end:
        case "succeeds":
            stage.report("t")
        case "fails":
            stage.report("t", "failed")
        case "is cancelled":
            stage.engine.cancel("t", stage.now)
            stage.report("t", "cancelled")
        case "is lost too often":
            stage.engine.leave(worker, stage.now)
        case _:
            pass
    assert stage.task("t").state not in (State.QUEUED, State.RUNNING)
    assert holder(stage) is None


def test_a_lock_lasts_through_retries(stage: Stage) -> None:
    stage.join()
    stage.engine.submit(replace(unique("t"), options=Options(retries=1)), stage.now)
    stage.started()
    stage.report("t", "failed")
    assert (stage.state("t"), holder(stage)) == (State.RETRYING, "t")


def test_a_lock_while_queued_is_free_once_the_task_runs(stage: Stage) -> None:
    stage.join()
    submit(stage, "t", unique_while="queued")
    assert holder(stage) == "t"
    stage.started()
    assert holder(stage) is None
    submit(stage, "next", unique_while="queued")
    stage.report("t")
    assert holder(stage) == "next"  # the end of the first is not the end of the second's lock


def test_a_lock_for_a_time_outlives_the_success_of_its_task(stage: Stage) -> None:
    stage.join()
    submit(stage, "t", unique_while=60.0)
    stage.started()
    stage.report("t")
    assert holder(stage) == "t"
    stage.advance(59.9)
    assert holder(stage) == "t"
    stage.advance(0.1)
    assert holder(stage) is None


def test_a_lock_for_a_time_dies_with_a_task_that_was_cancelled(stage: Stage) -> None:
    submit(stage, "t", unique_while=60.0)
    stage.engine.cancel("t", stage.now)
    assert holder(stage) is None


def test_the_same_submission_again_is_not_its_own_duplicate(stage: Stage) -> None:
    submit(stage, "t")
    assert stage.engine.duplicates([unique("t")], stage.now) == {}


def test_duplicates_within_one_request_are_seen(stage: Stage) -> None:
    request = [unique("a"), unique("b"), unique("c"), replace(unique("d"), ties=Ties(unique="other"))]
    assert stage.engine.duplicates(request, stage.now) == {"b": "a", "c": "a"}
    replacing = [unique(task_id, on_duplicate="replace") for task_id in "abc"]
    assert stage.engine.duplicates(replacing, stage.now) == {"b": "a", "c": "b"}


def test_a_newer_task_takes_the_place_of_one_that_waits(stage: Stage) -> None:
    """With a delay this is a debounce: only the last of a burst runs, once it is quiet."""
    stage.join()
    for n in range(5):
        made = replace(unique(str(n), on_duplicate="replace"), options=Options(delay=2.0))
        for old in stage.engine.duplicates([made], stage.now).values():
            stage.engine.replace(old, stage.now)
        stage.engine.submit(made, stage.now)
        stage.advance(1.0)
    assert [(stage.state(str(n)), stage.task(str(n)).reason) for n in range(4)] == [
        (State.CANCELLED, Reason.REPLACED)
    ] * 4
    stage.advance(1.0)
    assert stage.started() == ["4"]


@pytest.mark.parametrize("end", ["cancelled", "failed", "succeeded"])
def test_a_newer_task_stops_one_that_runs(stage: Stage, end: Any) -> None:
    stage.join("w", 2)
    submit(stage, "old")
    stage.started()
    stage.engine.replace("old", stage.now)
    submit(stage, "new", on_duplicate="replace")
    assert [token.id for _, token in stage.engine.stops] == ["old"]
    stage.report("old", end)
    expected = (State.SUCCEEDED, None) if end == "succeeded" else (State.CANCELLED, Reason.REPLACED)
    assert (stage.state("old"), stage.task("old").reason) == expected
    assert holder(stage) == "new"


def test_a_task_that_is_requeued_does_not_take_a_lock_away(stage: Stage) -> None:
    stage.join("w", 2)
    submit(stage, "old")
    stage.started()
    stage.report("old", "failed")
    submit(stage, "new")
    stage.engine.requeue(stage.task("old"), stage.now)
    assert holder(stage) == "new"
    stage.started()
    stage.report("old")
    assert holder(stage) == "new"


# ---- restart and memory ----------------------------------------------------------------------------------------------


def recovered(task_id: str, state: State, attempt: int, **ties: Any) -> Task:
    made = Task(1, task_id, "add", "[]", Options(), "default", 2, START, state=state, attempt=attempt)
    made.ties = Ties(**{"unique": "lock", **ties})
    return made


@pytest.mark.parametrize(
    ("state", "attempt", "while_", "held"),
    [
        (State.QUEUED, 0, "running", True),
        (State.RUNNING, 1, "running", True),
        (State.QUEUED, 0, "queued", True),
        (State.RUNNING, 1, "queued", False),
        (State.RETRYING, 1, "queued", False),
        (State.QUEUED, 0, 60.0, True),
    ],
)
def test_an_open_task_has_its_lock_after_a_restart(
    stage: Stage, state: State, attempt: int, while_: Any, held: bool
) -> None:
    task = recovered("t", state, attempt, unique_while=while_)
    task.due_at = START + 5.0 if state is State.RETRYING else None
    stage.engine.recover([task], [], stage.now)
    assert holder(stage) == ("t" if held else None)


def test_a_lock_for_a_time_comes_back_after_a_restart(stage: Stage) -> None:
    stage.engine.locks.restore([("lock", "ended", START + 60.0), ("old", "older", START - 1.0)])
    assert holder(stage) == "ended"
    assert holder(stage, unique="old") is None


def test_locks_for_a_time_are_swept() -> None:
    locks = Locks()
    for n in range(50_000):
        task = recovered(str(n), State.QUEUED, 0, unique=f"lock {n}", unique_while=1.0)
        task.submitted_at = START + n
        locks.take(task, START + n)
    assert len(locks._locks) <= 20_000
