"""How many tasks a worker gets: its free slots, and a little short work ahead."""

from __future__ import annotations

import pytest

from fastworker.protocol import Token
from fastworker.tasks import Priority
from fastworker_server.workers import AHEAD_SECONDS, FIRST_WINDOW
from tests.server.stage import Stage


def measured(ran: float, slots: int = 1) -> Stage:
    """A stage whose worker has run one task of the name `add` for so long."""
    stage = Stage()
    stage.join("w", slots)
    stage.submit("first")
    stage.started()
    stage.advance(ran)
    stage.report("first", ran=ran)
    return stage


def fill(stage: Stage, count: int = 100, prefix: str = "t") -> int:
    for n in range(count):
        stage.submit(f"{prefix}{n}")
    return len(stage.started())


def test_a_worker_gets_as_many_tasks_as_it_has_slots_while_run_times_are_unknown() -> None:
    stage = Stage()
    stage.join("w", 4)
    assert fill(stage) == 4


def test_long_tasks_never_go_ahead() -> None:
    assert fill(measured(ran=1.0, slots=2)) == 2


def test_short_tasks_go_ahead_up_to_the_window() -> None:
    assert fill(measured(ran=0.0001)) == 1 + FIRST_WINDOW


def test_no_more_than_twenty_milliseconds_of_work_go_ahead() -> None:
    assert fill(measured(ran=AHEAD_SECONDS / 4)) == 4


def test_the_window_grows_while_work_ahead_does_not_wait_long() -> None:
    stage = measured(ran=0.0001)
    worker = stage.engine.workers["w"]
    fill(stage, 500)
    for task_id in list(worker.assigned)[:3]:
        stage.report(task_id, ran=0.0001)
        stage.started()
    assert worker.window > FIRST_WINDOW


def test_the_window_shrinks_once_work_ahead_waits_too_long() -> None:
    stage = measured(ran=0.0001)
    worker = stage.engine.workers["w"]
    fill(stage)
    stage.advance(10 * AHEAD_SECONDS)
    stage.report(next(iter(worker.assigned)), ran=0.0001)
    assert worker.window < FIRST_WINDOW


def test_nothing_goes_ahead_after_a_worker_handed_tasks_back() -> None:
    stage = measured(ran=0.0001)
    worker = stage.engine.workers["w"]
    fill(stage)
    for task in list(worker.assigned.values())[1:]:
        stage.engine.hand_back(worker, Token(task.id, task.attempt), stage.now)
    assert (len(worker.assigned), stage.started()) == (1, [])


def test_less_urgent_work_ahead_does_not_keep_urgent_work_out() -> None:
    stage = measured(ran=AHEAD_SECONDS / 4)
    assert fill(stage) == 4, "there is no room for more of the same"
    stage.submit("urgent", priority=Priority.CRITICAL)
    assert stage.started() == ["urgent"]


def test_what_a_worker_says_of_itself() -> None:
    stage = measured(ran=1.0, slots=2)
    stage.submit("t")
    stage.started()
    stage.advance(3.0, silent=True)
    view = stage.engine.workers["w"].view(stage.now)
    assert (view.assigned, view.tasks, view.finished, view.silent_for) == (1, ["t"], 1, 3.0)


def test_a_worker_s_memory_is_what_it_told_last_if_that_can_be_true() -> None:
    stage = Stage()
    worker = stage.join("w")
    assert worker.view(stage.now).memory is None
    for told in (52_428_800, None, 0, -1, 10**400):
        stage.engine.holds(worker, told)
        assert worker.view(stage.now).memory == 52_428_800


def test_a_worker_s_rate_follows_what_it_ends_and_fades_when_it_ends_nothing() -> None:
    stage = Stage()
    worker = stage.join("w", 100)
    for second in range(60):
        fill(stage, 5, f"{second}-")
        for task_id in list(worker.assigned):
            stage.report(task_id, ran=0.1)
        stage.advance(1.0)
    assert worker.view(stage.now).per_second == pytest.approx(5, rel=0.1)
    stage.advance(60.0)
    assert worker.view(stage.now).per_second < 0.05
