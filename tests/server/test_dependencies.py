"""Tasks that need others: what they wait for, what they get, and what becomes of them when one of those fails."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from fastworker.lifecycle import Reason, State
from fastworker.protocol import MAX_PAYLOAD_BYTES
from fastworker.tasks import ErrorInfo, OnUpstreamFailure, Options, Task, Ties
from fastworker.upstream import LEFT_OUT
from fastworker_server.dependencies import Dependencies
from tests.server.stage import START, Stage, submission


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.join("w", 100)
    return stage


def submit(stage: Stage, task_id: str, *needs: str, policy: OnUpstreamFailure = "fail", **said: Any) -> Task:
    ties = Ties(needs=needs, on_upstream_failure=policy) if needs else None
    made = replace(submission(task_id, options=Options(**said) if said else None), ties=ties)
    task = stage.engine.submit(made, stage.now)
    assert task is not None
    return task


def run(stage: Stage, *task_ids: str, **said: Any) -> None:
    """These, and only these, start now and succeed with their own id as the result."""
    assert stage.started() == list(task_ids)
    for task_id in task_ids:
        stage.report(task_id, result=said.get("result", json.dumps(task_id)))


# ---- waiting ---------------------------------------------------------------------------------------------------------


def test_a_task_waits_for_all_that_it_needs_and_gets_the_results(stage: Stage) -> None:
    submit(stage, "a")
    submit(stage, "b")
    task = submit(stage, "sum", "a", "b")
    assert task.state is State.WAITING
    assert stage.started() == ["a", "b"]
    stage.report("b", result="2")
    assert stage.started() == []
    stage.report("a", result="1")
    [(_, order)] = list(stage.engine.dispatch(stage.now))
    assert (order.id, order.inputs) == ("sum", {"a": "1", "b": "2"})


def test_what_has_ended_already_need_not_be_waited_for(stage: Stage) -> None:
    submit(stage, "a")
    run(stage, "a")
    task = submit(stage, "b", "a")
    assert (task.state, task.inputs) == (State.QUEUED, {"a": '"a"'})


def test_a_need_that_failed_long_ago_fails_at_once(stage: Stage) -> None:
    submit(stage, "a")
    stage.started()
    stage.report("a", "failed")
    stage.advance(3600.0)
    task = submit(stage, "b", "a")
    assert (task.state, task.reason) == (State.FAILED, Reason.UPSTREAM)
    assert task.error is not None
    assert task.error.message == "add (a), which it needs, has failed: builtins.ValueError: bad luck"


def test_a_need_whose_result_is_gone_says_so(stage: Stage) -> None:
    submit(stage, "a")
    run(stage, "a")
    stage.task("a").result = None
    task = submit(stage, "b", "a")
    assert task.error is not None
    assert "the result of add (a), which it needs, is no longer kept" in task.error.message


def test_a_delay_counts_from_the_submission_and_the_longer_wait_wins(stage: Stage) -> None:
    submit(stage, "a")
    early, late = submit(stage, "early", "a", delay=5.0), submit(stage, "late", "a", delay=60.0)
    stage.advance(10.0)
    run(stage, "a")
    assert (early.state, late.state) == (State.QUEUED, State.SCHEDULED)
    run(stage, "early")
    stage.advance(50.0)
    assert stage.started() == ["late"]


def test_a_task_may_expire_while_it_waits_and_those_behind_it_know(stage: Stage) -> None:
    submit(stage, "a")
    submit(stage, "b", "a", expires=5.0)
    submit(stage, "c", "b")
    submit(stage, "d", "b", policy="ignore")
    stage.advance(5.0)
    assert (stage.state("b"), stage.state("c"), stage.state("d")) == (State.EXPIRED, State.FAILED, State.QUEUED)
    error = stage.task("c").error
    assert error is not None
    assert error.message == "add (b), which it needs, has expired"


def test_a_waiting_task_can_be_cancelled(stage: Stage) -> None:
    submit(stage, "a")
    submit(stage, "b", "a")
    assert stage.engine.cancel("b", stage.now) == "was_queued"
    run(stage, "a")
    assert stage.started() == []


def test_the_late_result_of_a_retry_releases_too(stage: Stage) -> None:
    submit(stage, "a", retries=1)
    submit(stage, "b", "a")
    stage.started()
    stage.report("a", "failed")
    assert stage.state("b") is State.WAITING
    stage.advance(5.0)
    run(stage, "a")
    run(stage, "b")


# ---- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "state", "inputs"),
    [
        ("fail", State.FAILED, None),
        ("ignore", State.QUEUED, {"a": LEFT_OUT, "b": '"b"'}),
        ("run", State.QUEUED, {
            "a": '{"task":"a","name":"add","state":"failed","type":"builtins.ValueError","message":"bad luck"}',
            "b": '"b"',
        }),
    ],
)  # fmt: skip
def test_what_becomes_of_a_join_of_which_one_fails(
    stage: Stage, policy: OnUpstreamFailure, state: State, inputs: Any
) -> None:
    submit(stage, "a")
    submit(stage, "b")
    task = submit(stage, "join", "a", "b", policy=policy)
    assert stage.started() == ["a", "b"]
    stage.report("a", "failed")
    stage.report("b", result='"b"')
    assert (task.state, task.inputs) == (state, inputs)


def test_a_cancelled_need_is_described_too(stage: Stage) -> None:
    submit(stage, "a")
    task = submit(stage, "join", "a", policy="run")
    stage.engine.cancel("a", stage.now)
    described = json.loads((task.inputs or {})["a"])
    assert (described["state"], described["message"]) == ("cancelled", "add (a), which it needs, has been cancelled")


def test_the_cause_of_a_failure_is_passed_on_with_its_traceback(stage: Stage) -> None:
    submit(stage, "a")
    task = submit(stage, "b", "a")
    stage.started()
    stage.task("a").failures = 0
    stage.engine.workers["w"].unassign(stage.task("a"))
    error = ErrorInfo("app.Broken", "no", "Traceback …", "app.py:7 in f")
    stage.engine.fail(stage.task("a"), Reason.ERROR, error, stage.now)
    assert task.error == ErrorInfo(
        "fastworker.UpstreamFailed", "add (a), which it needs, has failed: app.Broken: no", "Traceback …",
        "app.py:7 in f",
    )  # fmt: skip


def test_results_that_are_too_large_together_fail_the_join(stage: Stage) -> None:
    half = json.dumps("x" * (MAX_PAYLOAD_BYTES // 2))
    submit(stage, "a")
    submit(stage, "b")
    task = submit(stage, "join", "a", "b")
    assert stage.started() == ["a", "b"]
    stage.report("a", result=half)
    stage.report("b", result=half)
    assert (task.state, task.reason) == (State.FAILED, Reason.UPSTREAM)
    assert task.error is not None
    assert "let them return references" in task.error.message


# ---- large workflows -------------------------------------------------------------------------------------------------

LONG = 5000


def chain_of(stage: Stage, count: int) -> list[str]:
    ids = [f"step {n}" for n in range(count)]
    for before, task_id in zip(["", *ids], ids, strict=False):
        submit(stage, task_id, *([before] if before else []))
    return ids


def test_a_failure_goes_through_a_long_chain(stage: Stage) -> None:
    ids = chain_of(stage, LONG)
    stage.started()
    stage.report(ids[0], "failed")
    assert {stage.state(task_id) for task_id in ids} == {State.FAILED}
    assert {stage.task(task_id).reason for task_id in ids[1:]} == {Reason.UPSTREAM}
    error = stage.task(ids[-1]).error
    assert error is not None
    assert error.message == "add (step 0), which it needs, has failed: builtins.ValueError: bad luck"


def test_a_long_chain_is_requeued_by_its_first_step(stage: Stage) -> None:
    ids = chain_of(stage, LONG)
    stage.started()
    stage.report(ids[0], "failed")
    stage.engine.requeue(stage.task(ids[0]), stage.now)
    assert stage.state(ids[0]) is State.QUEUED
    assert {stage.state(task_id) for task_id in ids[1:]} == {State.WAITING}
    for task_id in ids:
        run(stage, task_id)
    assert {stage.state(task_id) for task_id in ids} == {State.SUCCEEDED}


def test_a_join_of_ten_thousand(stage: Stage) -> None:
    ids = [f"part {n}" for n in range(10_000)]
    for task_id in ids:
        submit(stage, task_id)
    began = time.process_time()
    join = submit(stage, "join", *ids)
    for _ in range(100):
        run(stage, *ids[:100])
        del ids[:100]
    assert time.process_time() - began < 5.0
    assert (join.state, len(join.inputs or {})) == (State.QUEUED, 10_000)


# ---- requeue ---------------------------------------------------------------------------------------------------------


def test_requeueing_a_failed_step_reruns_what_failed_because_of_it(stage: Stage) -> None:
    submit(stage, "a")
    submit(stage, "b", "a")
    submit(stage, "other")
    submit(stage, "join", "b", "other")
    assert stage.started() == ["a", "other"]
    stage.report("other", result='"other"')
    stage.report("a", "failed")
    assert stage.state("join") is State.FAILED
    stage.engine.requeue(stage.task("a"), stage.now)
    run(stage, "a")
    run(stage, "b")
    [(_, order)] = list(stage.engine.dispatch(stage.now))
    assert (order.id, order.inputs) == ("join", {"b": '"b"', "other": '"other"'})


def test_what_a_requeue_needs_and_the_engine_has_forgotten_is_told_beforehand(stage: Stage) -> None:
    """Also what those need that go with it."""
    submit(stage, "a")
    other = submit(stage, "other")
    submit(stage, "b", "a")
    submit(stage, "join", "b", "other")
    stage.started()
    stage.report("other", result='"other"')
    stage.report("a", "failed")
    del stage.engine.ended["other"]
    assert stage.engine.missing_to_requeue(stage.task("a")) == ["other"]
    stage.engine.remember([other])
    assert stage.engine.missing_to_requeue(stage.task("a")) == []
    stage.engine.requeue(stage.task("a"), stage.now)
    run(stage, "a")
    run(stage, "b")
    run(stage, "join")


def test_requeueing_a_join_alone_fails_again_while_its_need_has_failed(stage: Stage) -> None:
    submit(stage, "a")
    join = submit(stage, "join", "a")
    stage.started()
    stage.report("a", "failed")
    stage.engine.requeue(join, stage.now)
    assert (join.state, join.reason) == (State.FAILED, Reason.UPSTREAM)
    stage.engine.requeue(stage.task("a"), stage.now)
    run(stage, "a")
    run(stage, "join")


def test_a_step_that_failed_by_itself_is_requeued_with_what_it_got(stage: Stage) -> None:
    submit(stage, "a")
    task = submit(stage, "b", "a")
    run(stage, "a")
    assert stage.started() == ["b"]
    stage.report("b", "failed")
    stage.engine.requeue(task, stage.now)
    [(_, order)] = list(stage.engine.dispatch(stage.now))
    assert (order.id, order.attempt, order.inputs) == ("b", 2, {"a": '"a"'})


# ---- whole workflows -------------------------------------------------------------------------------------------------


def workflow(stage: Stage, task_id: str, *needs: str, policy: OnUpstreamFailure = "fail") -> Task:
    ties = Ties(needs=needs, workflow="flow", on_upstream_failure=policy)
    task = stage.engine.submit(replace(submission(task_id), ties=ties), stage.now)
    assert task is not None
    return task


@pytest.mark.parametrize("policy", ["fail", "run", "ignore"])
def test_cancelling_a_workflow_cancels_all_that_is_open(stage: Stage, policy: OnUpstreamFailure) -> None:
    workflow(stage, "done")
    run(stage, "done")
    workflow(stage, "runs", "done")
    assert stage.started() == ["runs"]
    workflow(stage, "waits", "runs", policy=policy)
    workflow(stage, "last", "waits", policy=policy)
    submit(stage, "another")
    assert stage.engine.cancel_workflow("flow", stage.now) == 3
    stage.report("runs", "cancelled")
    states = {task_id: stage.state(task_id) for task_id in ("done", "runs", "waits", "last", "another")}
    assert states == {
        "done": State.SUCCEEDED, "runs": State.CANCELLED, "waits": State.CANCELLED, "last": State.CANCELLED,
        "another": State.QUEUED,
    }  # fmt: skip
    assert stage.engine.cancel_workflow("flow", stage.now) == 0


def test_a_workflow_that_grew_from_handles_is_cancelled_whole(stage: Stage) -> None:
    """None of its tasks knew at its submission that it would be a workflow."""
    submit(stage, "first")
    submit(stage, "second", "first")
    third = submit(stage, "third", "second")
    assert third.ties.workflow == "first"
    assert stage.engine.cancel_workflow("first", stage.now) == 3
    assert {stage.state(task_id) for task_id in ("first", "second", "third")} == {State.CANCELLED}


def test_a_workflow_is_forgotten_with_its_last_task(stage: Stage) -> None:
    workflow(stage, "a")
    workflow(stage, "b", "a")
    run(stage, "a")
    run(stage, "b")
    dependencies = stage.engine.dependencies
    assert (dependencies._members, dependencies._dependents, dependencies._failed) == ({}, {}, {})


# ---- restart ---------------------------------------------------------------------------------------------------------


def stored(seq: int, task_id: str, state: State, *needs: str, **fields: Any) -> Task:
    task = Task(seq, task_id, "add", "[]", Options(), "default", 2, START, state=state, stored=True)
    task.ties = Ties(needs=needs, workflow="flow")
    for name, value in fields.items():
        setattr(task, name, value)
    return task


def test_waiting_tasks_go_on_after_a_restart(stage: Stage) -> None:
    done = stored(1, "done", State.SUCCEEDED, result="1")
    stage.engine.remember([done])
    stage.engine.recover(
        [
            stored(2, "open", State.QUEUED),
            stored(3, "join", State.WAITING, "done", "open"),
            stored(4, "ready", State.WAITING, "done"),
        ],
        [],
        stage.now,
    )
    assert (stage.state("ready"), stage.state("join")) == (State.QUEUED, State.WAITING)
    run(stage, "open", "ready", result="2")
    [(_, order)] = list(stage.engine.dispatch(stage.now))
    assert (order.id, order.inputs) == ("join", {"done": "1", "open": "2"})


def test_a_waiting_task_whose_need_is_gone_fails_and_says_so(stage: Stage) -> None:
    stage.engine.recover([stored(3, "join", State.WAITING, "nowhere")], [], stage.now)
    error = stage.task("join").error
    assert error is not None
    assert "is gone" in error.message


def test_an_order_that_was_requeued_keeps_its_inputs_over_a_restart(stage: Stage) -> None:
    stage.engine.recover([stored(3, "b", State.QUEUED, "a", inputs={"a": "1"})], [], stage.now)
    [(_, order)] = list(stage.engine.dispatch(stage.now))
    assert order.inputs == {"a": "1"}


def test_failures_that_are_remembered_no_more_are_dropped_and_only_they() -> None:
    dependencies = Dependencies()
    forgotten, kept = (stored(1, task_id, State.FAILED, "a") for task_id in ("b", "c"))
    dependencies.failed(forgotten, "a")
    dependencies.failed(kept, "a")
    dependencies.forget(forgotten)
    assert dependencies.failed_because_of("a") == [kept]
    dependencies.forget(kept)
    assert dependencies.failed_because_of("a") == []
