"""The engine's verbs as stories. The tests own the clock."""

from __future__ import annotations

from typing import Any

import pytest

from fastworker.lifecycle import Reason, State
from fastworker.limits import RateLimit, TaskLimits
from fastworker.protocol import Note, Token
from fastworker.tasks import Backoff, Definition, Options, Task
from fastworker_server.queue import REMEMBERED
from fastworker_server.workers import WorkerPlace, WorkerRecord
from tests.server.stage import START, Stage, hello, submission

AT_ONCE = Backoff("constant", 0.0, 0.0, jitter=False)
LATER = Backoff("constant", 5.0, 5.0, jitter=False)


@pytest.fixture
def stage() -> Stage:
    return Stage()


# ---- from submission to result ---------------------------------------------------------------------------------------


def test_a_task_runs_and_its_result_is_kept(stage: Stage) -> None:
    stage.join()
    stage.submit("t")
    assert stage.dispatch() == [("w", "t", 1)]
    stage.report("t", result="42")
    task = stage.task("t")
    assert (task.state, task.result, task.finished_at) == (State.SUCCEEDED, "42", START)
    assert [moved.after for moved in stage.engine.outbox] == [State.QUEUED, State.RUNNING, State.SUCCEEDED]


def test_the_same_id_submitted_twice_is_one_task(stage: Stage) -> None:
    stage.join()
    stage.submit("t")
    assert stage.engine.submit(submission("t"), stage.now) is None
    stage.started()
    stage.report("t")
    assert stage.engine.submit(submission("t"), stage.now) is None
    assert stage.started() == []


def test_options_said_at_the_submission_go_before_those_of_the_definition(stage: Stage) -> None:
    definition = Definition("add", Options(retries=5, timeout=9.0))
    introduction = hello("w", 1)
    introduction.definitions = [definition]
    stage.engine.join(introduction, stage.now)
    task = stage.submit("t", timeout=1.0)
    assert (task.options.retries, task.options.timeout, task.options.acks) == (5, 1.0, "late")


def test_a_task_that_no_worker_knows_waits_for_one_that_does(stage: Stage) -> None:
    stage.join("w", 1, "add")
    stage.submit("t", "resize")
    assert stage.started() == []
    stage.join("v", 1, "resize")
    assert stage.dispatch() == [("v", "t", 1)]


# ---- time ------------------------------------------------------------------------------------------------------------


def test_a_delayed_task_waits_for_its_time(stage: Stage) -> None:
    stage.join()
    stage.submit("t", delay=10.0)
    stage.advance(9.9)
    assert (stage.state("t"), stage.started()) == (State.SCHEDULED, [])
    stage.advance(0.1)
    assert stage.started() == ["t"]


def test_a_moment_in_the_past_is_now(stage: Stage) -> None:
    stage.join()
    stage.submit("t", eta=START - 5.0)
    assert stage.started() == ["t"]


@pytest.mark.parametrize("delay", [None, 60.0])
def test_a_task_expires_if_it_was_not_started_in_time(stage: Stage, delay: float | None) -> None:
    stage.submit("t", expires=30.0, delay=delay)
    stage.advance(30.0)
    stage.join()
    assert (stage.state("t"), stage.started()) == (State.EXPIRED, [])


def test_a_task_that_was_started_in_time_may_end_after_its_expiry(stage: Stage) -> None:
    stage.join()
    stage.submit("t", expires=30.0)
    stage.started()
    stage.advance(60.0)
    stage.report("t")
    assert stage.state("t") is State.SUCCEEDED


@pytest.mark.parametrize("how", ["fails", "is handed back", "loses its worker"])
def test_a_task_is_not_started_again_after_its_expiry(stage: Stage, how: str) -> None:
    worker = stage.join()
    stage.submit("t", expires=30.0, retries=5, backoff=AT_ONCE)
    stage.started()
    stage.advance(31.0)
    match how:
        case "fails":
            stage.report("t", "failed")
        case "is handed back":
            stage.engine.hand_back(worker, Token("t", 1), stage.now)
        case _:
            stage.engine.leave(worker, stage.now)
    stage.join("other")
    stage.advance(1.0)
    assert (stage.state("t"), stage.started()) == (State.EXPIRED, [])


# ---- failures --------------------------------------------------------------------------------------------------------


def test_a_failed_task_is_tried_again_until_its_retries_are_used_up(stage: Stage) -> None:
    stage.join()
    stage.submit("t", retries=2, backoff=LATER)
    for attempt in (1, 2, 3):
        assert stage.dispatch() == [("w", "t", attempt)]
        stage.report("t", "failed")
        stage.advance(5.0)
    task = stage.task("t")
    assert (task.state, task.reason, task.failures) == (State.FAILED, Reason.ERROR, 3)


def test_a_retry_waits_for_its_backoff(stage: Stage) -> None:
    stage.join()
    stage.submit("t", retries=1, backoff=LATER)
    stage.started()
    stage.report("t", "failed")
    stage.advance(4.9)
    assert (stage.state("t"), stage.started()) == (State.RETRYING, [])
    stage.advance(0.1)
    assert stage.started() == ["t"]


def test_a_timeout_is_a_failure_with_its_own_reason(stage: Stage) -> None:
    stage.join()
    stage.submit("t")
    stage.started()
    stage.report("t", "timeout")
    assert (stage.state("t"), stage.task("t").reason) == (State.FAILED, Reason.TIMEOUT)


def test_what_can_not_be_retried_fails_at_once(stage: Stage) -> None:
    stage.join()
    stage.submit("t", retries=5)
    stage.started()
    stage.report("t", "failed", retryable=False)
    assert stage.state("t") is State.FAILED


def test_a_retry_that_the_task_asked_for_uses_up_none(stage: Stage) -> None:
    stage.join()
    stage.submit("t")
    for _ in range(5):
        stage.started()
        stage.report("t", "retry", after=3.0)
        stage.advance(3.0)
    assert (stage.state("t"), stage.task("t").failures) == (State.QUEUED, 0)


def test_a_success_forgets_the_errors_before_it(stage: Stage) -> None:
    stage.join()
    stage.submit("t", retries=1, backoff=AT_ONCE)
    stage.started()
    stage.report("t", "failed")
    stage.advance(0.0)
    stage.started()
    stage.report("t")
    assert (stage.task("t").error, stage.task("t").reason) == (None, None)


# ---- fencing ---------------------------------------------------------------------------------------------------------


def test_a_late_report_of_an_earlier_attempt_changes_nothing(stage: Stage) -> None:
    lost = stage.join("lost")
    stage.submit("t")
    stage.started()
    stage.engine.leave(lost, stage.now)
    stage.join("w")
    stage.started()
    stage.report("t", "failed", attempt=1, worker=lost)
    assert (stage.state("t"), stage.engine.stale_reports) == (State.RUNNING, 1)
    stage.report("t")
    assert stage.state("t") is State.SUCCEEDED


def test_a_late_success_of_a_task_that_is_queued_again_counts(stage: Stage) -> None:
    lost = stage.join("lost")
    stage.submit("t")
    stage.started()
    stage.engine.leave(lost, stage.now)
    stage.report("t", "succeeded", attempt=1, worker=lost, result="7")
    stage.join("w")
    assert (stage.state("t"), stage.task("t").result, stage.started()) == (State.SUCCEEDED, "7", [])


def test_a_note_of_another_attempt_is_ignored(stage: Stage) -> None:
    worker = stage.join()
    stage.submit("t")
    stage.started()
    stage.engine.note(worker, Note("t", 2, (0.9, "wrong"), ["wrong"]))
    stage.engine.note(worker, Note("t", 1, (0.4, "resizing"), ["one", "two"]))
    assert (stage.task("t").progress, stage.task("t").log) == ((0.4, "resizing"), ["one", "two"])


# ---- workers that come and go ----------------------------------------------------------------------------------------


def test_a_task_comes_back_when_its_worker_dies(stage: Stage) -> None:
    stage.engine.disconnected(_with_a_running_task(stage), stage.now)
    stage.advance(1.9)
    assert stage.state("t") is State.RUNNING
    stage.advance(0.1)
    assert (stage.state("t"), stage.task("t").crashes, stage.task("t").failures) == (State.QUEUED, 1, 0)


def test_a_worker_that_is_back_in_time_keeps_its_tasks(stage: Stage) -> None:
    worker = _with_a_running_task(stage)
    stage.engine.disconnected(worker, stage.now)
    stage.advance(1.9)
    stage.engine.reconnected(worker, stage.now)
    stage.advance(5.0)
    assert stage.state("t") is State.RUNNING


def test_a_silent_worker_gets_nothing_new_and_is_lost_after_its_lease(stage: Stage) -> None:
    worker = _with_a_running_task(stage, slots=2)
    stage.advance(10.0, silent=True)
    stage.submit("next")
    assert (worker.silent, stage.started()) == (True, [])
    stage.advance(49.9, silent=True)
    assert stage.state("t") is State.RUNNING
    stage.advance(0.2, silent=True)
    assert (stage.state("t"), stage.engine.workers) == (State.QUEUED, {})


def test_a_worker_that_speaks_again_gets_tasks_again(stage: Stage) -> None:
    worker = _with_a_running_task(stage, slots=2)
    stage.advance(11.0, silent=True)
    stage.engine.heard(worker, stage.now)
    stage.submit("next")
    assert stage.started() == ["next"]
    stage.advance(10.0, silent=True)
    assert worker.silent, "silence is noticed a second time"


def test_a_task_that_kills_its_workers_fails_in_the_end(stage: Stage) -> None:
    stage.submit("t")
    for n in (1, 2, 3):
        worker = stage.join(f"w{n}")
        assert stage.started() == ["t"]
        stage.engine.leave(worker, stage.now)
    assert (stage.state("t"), stage.task("t").reason, stage.task("t").crashes) == (State.FAILED, Reason.CRASHED, 3)


def test_a_task_with_early_acks_is_started_once(stage: Stage) -> None:
    worker = stage.join()
    stage.submit("lost", acks="early")
    stage.started()
    stage.engine.leave(worker, stage.now)
    worker = stage.join()
    stage.submit("broken off", acks="early")
    stage.started()
    stage.engine.hand_back(worker, Token("broken off", 1), stage.now, started=True)
    assert (stage.state("lost"), stage.state("broken off")) == (State.FAILED, State.FAILED)


def test_what_was_handed_back_unstarted_keeps_its_place_and_its_number(stage: Stage) -> None:
    worker = stage.join()
    stage.submit("first")
    stage.submit("second")
    stage.started()
    stage.engine.hand_back(worker, Token("first", 1), stage.now)
    assert stage.dispatch() == [("w", "first", 1)]


def test_a_worker_that_joins_again_keeps_what_it_holds(stage: Stage) -> None:
    stage.join("w", 2)
    stage.submit("held")
    stage.submit("never arrived")
    stage.started()
    _, drop = stage.engine.join(hello("w", 2, "add", holding=[Token("held", 1), Token("gone", 4)]), stage.now)
    assert (stage.state("held"), stage.state("never arrived")) == (State.RUNNING, State.QUEUED)
    assert drop == [Token("gone", 4)]
    assert stage.task("never arrived").crashes == 0


def test_what_an_earlier_process_of_the_same_name_had_is_lost(stage: Stage) -> None:
    stage.join("w", pid=1)
    stage.submit("t")
    stage.started()
    stage.join("w", pid=2)
    assert (stage.state("t"), stage.task("t").crashes) == (State.QUEUED, 1)


# ---- cancel and requeue ----------------------------------------------------------------------------------------------


def test_a_queued_task_is_cancelled_at_once(stage: Stage) -> None:
    stage.submit("t")
    assert stage.engine.cancel("t", stage.now) == "was_queued"
    stage.join()
    assert (stage.state("t"), stage.started()) == (State.CANCELLED, [])
    assert stage.engine.cancel("t", stage.now) == "already_done"
    assert stage.engine.cancel("never was", stage.now) == "not_found"


def test_a_running_task_is_stopped_by_its_worker(stage: Stage) -> None:
    worker = _with_a_running_task(stage)
    assert stage.engine.cancel("t", stage.now) == "stopping"
    assert stage.engine.stops == [(worker, Token("t", 1))]
    stage.report("t", "cancelled")
    assert stage.state("t") is State.CANCELLED


@pytest.mark.parametrize("how", ["fails", "is handed back", "loses its worker", "is not held any more"])
def test_a_task_that_is_being_cancelled_is_not_started_again(stage: Stage, how: str) -> None:
    worker = _with_a_running_task(stage, retries=3)
    stage.engine.cancel("t", stage.now)
    match how:
        case "fails":
            stage.report("t", "failed")
        case "is handed back":
            stage.engine.hand_back(worker, Token("t", 1), stage.now)
        case "loses its worker":
            stage.engine.leave(worker, stage.now)
        case _:
            stage.join()
    assert stage.state("t") is State.CANCELLED


def test_a_task_that_ended_before_it_could_be_stopped_has_succeeded(stage: Stage) -> None:
    _with_a_running_task(stage)
    stage.engine.cancel("t", stage.now)
    stage.report("t")
    assert stage.state("t") is State.SUCCEEDED


def test_a_requeued_task_begins_anew(stage: Stage) -> None:
    stage.join()
    task = stage.submit("t", expires=60.0)
    stage.started()
    stage.report("t", "failed")
    stage.engine.requeue(task, stage.now)
    assert (task.state, task.failures, task.reason, task.finished_at) == (State.QUEUED, 0, None, None)
    stage.advance(100.0)
    assert stage.dispatch() == [("w", "t", 2)]


# ---- recovery --------------------------------------------------------------------------------------------------------


def test_a_worker_that_comes_back_after_a_restart_keeps_its_task() -> None:
    stage = _restarted(_running("t"))
    stage.advance(5.0)
    _, drop = stage.engine.join(hello("w", 1, "add", holding=[Token("t", 1)]), stage.now)
    stage.report("t")
    assert (drop, stage.state("t"), stage.task("t").crashes) == ([], State.SUCCEEDED, 0)


def test_nothing_is_started_until_the_workers_are_back() -> None:
    stage = _restarted(_running("t"))
    stage.join("other")
    stage.submit("new")
    assert stage.started() == []
    stage.join("w", 1, holding=[Token("t", 1)])
    assert stage.started() == ["new"]


def test_a_worker_that_stays_away_after_a_restart_is_lost() -> None:
    stage = _restarted(_running("t"))
    stage.join("other")
    stage.advance(10.0)
    assert (stage.dispatch(), stage.task("t").crashes) == ([("other", "t", 2)], 1)


def test_what_failed_because_its_worker_came_back_without_it_is_requeued_like_any_other() -> None:
    task = _running("t")
    task.options = Options(acks="early")
    stage = _restarted(task)
    stage.join("w", 1)
    assert stage.state("t") is State.FAILED
    stage.engine.requeue(stage.task("t"), stage.now)
    assert stage.started() == ["t"]
    assert not stage.task("t").recovering


@pytest.mark.parametrize("state", [State.QUEUED, State.SCHEDULED, State.RETRYING])
def test_an_attempt_whose_start_was_not_written_down_is_adopted(state: State) -> None:
    stage = _restarted(_stored("t", state, due_at=None if state is State.QUEUED else START + 1))
    stage.join("w", 1, holding=[Token("t", 1)])
    stage.advance(5.0)
    assert (stage.state("t"), stage.task("t").worker, stage.started()) == (State.RUNNING, "w", [])


def test_of_several_attempts_the_newest_is_adopted() -> None:
    stage = _restarted(_running("t"))
    _, drop = stage.engine.join(hello("w", 1, "add", holding=[Token("t", 1), Token("t", 2)]), stage.now)
    stage.report("t", attempt=2)
    assert (drop, stage.state("t")) == ([Token("t", 1)], State.SUCCEEDED)


def test_a_later_attempt_that_is_adopted_is_told_to_the_store_and_counts() -> None:
    """Else the end of the one before would be recorded, and nothing stored of it."""
    stage = _restarted(_running("t"))
    stage.engine.limits.set("add", TaskLimits(rates=(RateLimit(1, 5.0),)))
    stage.join("w", 2, holding=[Token("t", 2)])
    assert [(moved.task.id, moved.task.attempt) for moved in stage.engine.outbox] == [("t", 2)]
    stage.submit("next")
    assert stage.started() == []
    stage.advance(5.0)
    assert stage.started() == ["next"]


def test_a_number_that_a_late_worker_names_is_not_given_out_again() -> None:
    stage = _restarted(_stored("t", State.QUEUED))
    stage.advance(10.0)
    stage.join("w", 1, holding=[Token("t", 1)])
    assert stage.dispatch() == [("w", "t", 2)]


def test_recovered_tasks_keep_their_times() -> None:
    stage = _restarted(
        _stored("due", State.SCHEDULED, due_at=START + 20), _stored("expires", State.QUEUED, expires_at=START + 5)
    )
    stage.advance(20.0)
    assert (stage.state("due"), stage.state("expires")) == (State.QUEUED, State.EXPIRED)


# ---- counts and memory -----------------------------------------------------------------------------------------------


def test_counts_follow_every_move(stage: Stage) -> None:
    stage.join()
    stage.submit("a")
    stage.submit("b")
    stage.started()
    stage.report("a")
    counts = {state: count for state, count in stage.engine.counts.items() if count > 0}
    assert counts == {State.QUEUED: 1, State.SUCCEEDED: 1}


def test_old_ends_are_forgotten_once_they_are_stored(stage: Stage) -> None:
    for n in range(REMEMBERED + 5):
        stage.submit(f"t{n}")
        stage.engine.cancel(f"t{n}", stage.now)
    stage.engine.forget_ended(stored_version=4)
    assert len(stage.engine.ended) == REMEMBERED + 3, "two tasks had ended by version 4"
    stage.engine.forget_ended(stage.engine.version)
    assert len(stage.engine.ended) == REMEMBERED


def _with_a_running_task(stage: Stage, slots: int = 1, **said: Any) -> WorkerRecord:
    worker = stage.join("w", slots)
    stage.submit("t", **said)
    assert stage.started() == ["t"]
    return worker


def _stored(task_id: str, state: State, **fields: object) -> Task:
    task = Task(1, task_id, "add", "[]", Options(acks="late"), "default", 2, START, state=state)
    for name, value in fields.items():
        setattr(task, name, value)
    return task


def _running(task_id: str) -> Task:
    return _stored(task_id, State.RUNNING, worker="w", attempt=1, started_at=START)


def _restarted(*tasks: Task) -> Stage:
    """A control plane that has found these tasks, and awaits the worker `w`."""
    stage = Stage()
    stage.engine.recover(tasks, [WorkerPlace("w", "host", 1)], stage.now)
    return stage
