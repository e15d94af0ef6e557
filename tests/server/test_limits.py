"""Rate and concurrency limits: how exact they are, for whom they count, and what becomes of them over time."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastworker.lifecycle import State
from fastworker.limits import RateLimit, TaskLimits
from fastworker.protocol import Token
from fastworker.tasks import Definition, Options, Task, Ties
from fastworker_server.limits import GRAINS, Window
from fastworker_server.workers import WorkerPlace
from tests.server.stage import START, Stage, hello, submission

LEAST_USED = 0.98
HALF_A_MICROSECOND = 5e-7


def most_in_any(period: float, starts: list[float]) -> int:
    """The most starts in any half-open stretch of that length."""
    ordered = sorted(starts)
    return max(bisect_left(ordered, at + period - HALF_A_MICROSECOND) - i for i, at in enumerate(ordered))


# ---- one window ------------------------------------------------------------------------------------------------------

RATES = st.builds(RateLimit, st.integers(1, 300), st.sampled_from([0.5, 1.0, 30.0, 60.0]))


@given(RATES, st.lists(st.floats(0.0, 2.0), min_size=1, max_size=200))
def test_never_more_than_the_count_start_in_any_period(rate: RateLimit, gaps: list[float]) -> None:
    """Bursts and pauses as they come: after each gap (in periods) as many start as may."""
    window, now = Window(rate), START
    starts: list[float] = []
    for gap in gaps:
        now += gap * rate.period / 8
        while window.free_at(now) <= now and len(starts) < 2000:
            window.add(now)
            starts.append(now)
    assert most_in_any(rate.period, starts) <= rate.count


@given(RATES, st.floats(0.0, 1.0))
def test_under_load_the_allowance_is_used(rate: RateLimit, phase: float) -> None:
    """Something always waits: whenever one may start, one does. After a ragged beginning, counted over ten periods."""
    window, now = Window(rate), START
    starts: list[float] = []
    while now < START + 11 * rate.period:
        free = window.free_at(now)
        if free <= now:
            window.add(now)
            starts.append(now)
            now += phase * rate.period / rate.count  # starts take time, and so spread over the period
        else:
            now = free
    counted = sum(at >= START + rate.period for at in starts)
    assert counted >= LEAST_USED * 10 * rate.count - 1
    assert most_in_any(rate.period, starts) <= rate.count


@given(RATES, st.lists(st.tuples(st.floats(0.0, 0.2), st.floats(0.0, 0.5)), min_size=1, max_size=200))
def test_what_really_started_later_counts_later(rate: RateLimit, steps: list[tuple[float, float]]) -> None:
    """Each start is corrected before the next is asked for: then the limit holds for the real starts."""
    window, now = Window(rate), START
    starts: list[float] = []
    for gap, late in steps:
        now += gap * rate.period
        if window.free_at(now) <= now:
            window.add(now)
            really = now + late * rate.period
            window.correct(now, really)
            starts.append(really)
    assert not starts or most_in_any(rate.period, starts) <= rate.count


def test_a_correction_never_holds_a_start_for_more_than_a_period() -> None:
    window = Window(RateLimit(1, 1.0))
    window.add(START)
    window.correct(START, START + 500.0)
    assert window.free_at(START + 1.5) == START + 2.0


def test_a_correction_of_what_is_gone_changes_nothing() -> None:
    window = Window(RateLimit(1, 1.0))
    window.correct(START, START + 0.5)
    window.add(START)
    assert window.free_at(START + 1.0) <= START + 1.0
    window.correct(START, START + 0.9)
    assert window.free_at(START + 1.0) == START + 1.0


def test_a_window_stays_small_however_much_starts() -> None:
    window = Window(RateLimit(1_000_000, 60.0))
    for n in range(100_000):
        window.add(START + n / 1000)
    window.free_at(START + 100.0)
    assert len(list(window)) <= GRAINS + 1


# ---- over the whole queue --------------------------------------------------------------------------------------------


@pytest.fixture
def stage() -> Stage:
    return Stage()


def submit(stage: Stage, task_id: str, key: str | None = None, name: str = "add") -> Task:
    made = replace(submission(task_id, name), ties=Ties(key=key) if key else None)
    task = stage.engine.submit(made, stage.now)
    assert task is not None
    return task


def rate(count: int, period: float = 1.0) -> TaskLimits:
    return TaskLimits((RateLimit(count, period),))


def test_a_waiting_task_uses_no_slot_and_no_attempt(stage: Stage) -> None:
    stage.limit("add", rate(2))
    stage.join("w", 4, "add", "sub")
    for n in range(4):
        submit(stage, str(n))
    assert stage.started() == ["0", "1"]
    submit(stage, "other", name="sub")
    assert stage.started() == ["other"]
    assert (stage.task("2").attempt, stage.state("2")) == (0, State.QUEUED)
    stage.report("0")
    stage.advance(0.999)
    assert stage.started() == []
    stage.advance(0.001)
    assert stage.started() == ["2", "3"]


def test_a_limit_holds_over_all_workers_together(stage: Stage) -> None:
    stage.limit("add", TaskLimits(max_concurrency=3))
    for name in ("a", "b", "c", "d"):
        stage.join(name, 5)
    for n in range(10):
        submit(stage, str(n))
    assert stage.started() == ["0", "1", "2"]
    stage.report("1")
    assert stage.started() == ["3"]


@pytest.mark.parametrize("how", ["fails", "asks for later", "is cancelled", "is handed back", "loses its worker"])
def test_a_slot_comes_back_however_an_attempt_ends(stage: Stage, how: str) -> None:
    stage.limit("add", TaskLimits(max_concurrency=1))
    worker = stage.join("w", 5)
    stage.join("other", 5)
    first, second = submit(stage, "first"), submit(stage, "second")
    assert stage.started() == ["first"]
    worker = stage.engine.workers[first.worker or ""]
    match how:
        case "fails":
            stage.report("first", "failed")
        case "asks for later":
            stage.report("first", "retry", after=5.0)
        case "is cancelled":
            stage.engine.cancel("first", stage.now)
            stage.report("first", "cancelled")
        case "is handed back":
            stage.engine.hand_back(worker, Token("first", 1), stage.now)
            stage.engine.cancel("first", stage.now)
        case _:
            stage.engine.leave(worker, stage.now)
            stage.engine.cancel("first", stage.now)
    assert stage.started() == ["second"]
    assert second.state is State.RUNNING


def test_several_rates_all_hold(stage: Stage) -> None:
    stage.limit("add", TaskLimits((RateLimit(2, 1.0), RateLimit(5, 60.0))))
    stage.join("w", 100)
    starts = []
    for n in range(20):
        submit(stage, str(n))
    for _ in range(1200):
        starts += [stage.now] * len(stage.started())
        stage.advance(0.1)
    assert most_in_any(1.0, starts) == 2
    assert most_in_any(60.0, starts) == 5
    assert len(starts) == 10


def test_each_key_has_limits_of_its_own(stage: Stage) -> None:
    stage.limit("add", TaskLimits(max_concurrency=1))
    stage.join("w", 10)
    for n in range(6):
        submit(stage, str(n), ("anna", "ben", None)[n % 3])
    assert stage.started() == ["0", "1", "2"]
    stage.report("1")
    assert stage.started() == ["4"]


def test_the_two_queues_of_a_name_share_its_limit(stage: Stage) -> None:
    stage.limit("add", TaskLimits(max_concurrency=1))
    stage.join("w", 10)
    stage.submit("a", queue="mail")
    stage.submit("b", queue="default")
    assert stage.started() == ["a"]
    stage.report("a")
    assert stage.started() == ["b"]


def test_a_limited_task_never_waits_ahead_at_a_worker(stage: Stage) -> None:
    stage.join("w", 1)
    for n in range(6):
        submit(stage, str(n))
    stage.started()
    stage.report("0", ran=0.001)
    stage.limit("add", rate(100))
    stage.started()
    assert len(stage.engine.workers["w"].assigned) == 1


# ---- live ------------------------------------------------------------------------------------------------------------


def test_a_limit_can_be_lifted_and_lowered_while_tasks_wait(stage: Stage) -> None:
    stage.limit("add", rate(2, 60.0))
    stage.join("w", 100)
    for n in range(12):
        submit(stage, str(n))
    assert len(stage.started()) == 2
    stage.advance(10.0)
    stage.limit("add", rate(5, 60.0))
    assert len(stage.started()) == 3  # two have started within this minute already
    stage.limit("add", rate(3, 60.0))
    stage.advance(49.9)
    assert stage.started() == []
    stage.advance(20.1)
    assert len(stage.started()) == 3
    stage.limit("add", None)
    assert len(stage.started()) == 4


def test_a_concurrency_limit_that_is_lowered_stops_nothing_that_runs(stage: Stage) -> None:
    stage.join("w", 100)
    for n in range(5):
        submit(stage, str(n))
    assert len(stage.started()) == 5
    stage.limit("add", TaskLimits(max_concurrency=2))
    submit(stage, "next")
    for n in range(3):
        stage.report(str(n))
        assert stage.started() == []
    stage.report("3")
    assert stage.started() == ["next"]


def test_what_a_client_has_set_goes_before_the_definition_until_it_is_reset(stage: Stage) -> None:
    introduction = hello("w", 10)
    introduction.definitions = [Definition("add", limits=TaskLimits(max_concurrency=1))]
    stage.engine.join(introduction, stage.now)
    for n in range(5):
        submit(stage, str(n))
    assert stage.started() == ["0"]
    stage.limit("add", TaskLimits(max_concurrency=3))
    assert stage.started() == ["1", "2"]
    stage.engine.join(introduction, stage.now)
    assert stage.engine.limits.of("add") == TaskLimits(max_concurrency=3)
    stage.limit("add", None)
    assert stage.engine.limits.of("add") == TaskLimits(max_concurrency=1)


def test_a_worker_with_another_definition_changes_the_limit(stage: Stage) -> None:
    stage.join("w", 10)
    for n in range(4):
        submit(stage, str(n))
    stage.started()
    introduction = hello("v", 10)
    introduction.definitions = [Definition("add", limits=TaskLimits(max_concurrency=4))]
    stage.engine.join(introduction, stage.now)
    submit(stage, "next")
    assert stage.started() == []
    stage.report("0")
    assert stage.started() == ["next"]


# ---- held by a task --------------------------------------------------------------------------------------------------


def test_a_task_can_hold_its_whole_lane(stage: Stage) -> None:
    """What a service says with `Retry-After`."""
    stage.join("w", 10)
    for n in range(3):
        submit(stage, str(n), "anna")
    submit(stage, "bens", "ben")
    stage.engine.dispatch(stage.now)
    started = stage.started()
    assert "0" in started
    stage.report("0", "retry", after=30.0, hold=True)
    submit(stage, "later", "anna")
    submit(stage, "ben too", "ben")
    assert stage.started() == ["ben too"]
    stage.advance(29.9)
    assert stage.started() == []
    stage.advance(0.1)
    assert sorted(stage.started()) == ["0", "later"]


def test_of_two_holds_the_longer_one_counts(stage: Stage) -> None:
    stage.join("w", 10)
    first = submit(stage, "first")
    stage.engine.hold_lane(first, 30.0, stage.now)
    stage.engine.hold_lane(first, 5.0, stage.now)
    stage.advance(10.0)
    assert stage.started() == []
    stage.advance(20.0)
    assert stage.started() == ["first"]


# ---- restart and memory ----------------------------------------------------------------------------------------------


def test_what_was_started_before_a_restart_still_counts(stage: Stage) -> None:
    stage.engine.limits.earlier(
        [("add", None, START - 50.0), ("add", None, START - 10.0), ("add", "anna", START - 1.0)]
    )
    introduction = hello("w", 10)
    introduction.definitions = [Definition("add", limits=rate(2, 60.0))]
    stage.engine.join(introduction, stage.now)
    submit(stage, "t")
    submit(stage, "annas", "anna")
    assert stage.started() == ["annas"]
    stage.advance(10.0)
    assert stage.started() == ["t"]


def test_starts_from_before_a_limit_count_no_more_after_a_restart_than_they_did_before(stage: Stage) -> None:
    """What the earlier limit looked back to counts for the next one, nothing before that."""
    limits = stage.engine.limits
    stage.limit("add", rate(10, 5.0))
    assert limits.counted == {"add": (5.0, START)}
    stage.advance(100.0)
    stage.limit("add", rate(10, 3600.0))
    assert limits.counted == {"add": (3600.0, START + 95.0)}
    stage.advance(100.0)
    stage.limit("add", rate(5, 60.0))
    assert limits.counted == {"add": (60.0, START + 95.0)}
    stage.limit("add", TaskLimits(max_concurrency=1))
    assert limits.counted == {}
    stage.limit("add", rate(1, 60.0))
    assert limits.counted == {"add": (60.0, START + 200.0)}


def test_a_rate_that_is_not_in_the_code_any_more_is_forgotten(stage: Stage) -> None:
    stage.engine.limits.counted["add"] = (60.0, START)
    stage.join("w", 1)
    assert stage.engine.limits.counted == {}


def test_what_runs_over_a_restart_still_counts(stage: Stage) -> None:
    running = Task(1, "r", "add", "[]", Options(), "default", 2, START, state=State.RUNNING, worker="w", attempt=1)
    stage.engine.recover([running], [WorkerPlace("w", "host", 1)], stage.now)
    introduction = hello("w", 10, holding=[Token("r", 1)])
    introduction.definitions = [Definition("add", limits=TaskLimits(max_concurrency=1))]
    stage.engine.join(introduction, stage.now)
    submit(stage, "t")
    assert stage.started() == []
    stage.report("r")
    assert stage.started() == ["t"]


@pytest.mark.parametrize("state", [State.QUEUED, State.RETRYING])
def test_a_start_that_only_its_worker_knows_of_after_a_restart_counts(stage: Stage, state: State) -> None:
    found = Task(1, "r", "add", "[]", Options(), "default", 2, START, state=state, due_at=START + 9)
    stage.engine.recover([found], [WorkerPlace("w", "host", 1)], stage.now)
    introduction = hello("w", 10, holding=[Token("r", 1)])
    introduction.definitions = [Definition("add", limits=rate(1, 5.0))]
    stage.engine.join(introduction, stage.now)
    submit(stage, "t")
    assert stage.started() == []
    stage.advance(5.0)
    assert stage.started() == ["t"]


def test_a_hold_goes_on_after_a_restart(stage: Stage) -> None:
    stage.join("w", 10)
    stage.engine.hold_lane(submit(stage, "anna's", "anna"), 30.0, stage.now)
    stage.engine.hold_lane(submit(stage, "ben's", "ben"), 5.0, stage.now)
    stage.advance(10.0)
    kept = stage.engine.limits.holds(stage.now)
    assert kept == [("add", "anna", START + 30.0)]
    later = Stage()
    later.now = stage.now
    later.engine.limits.restore_holds([*kept, ("add", "ben", START + 5.0)], later.now)
    later.join("w", 10)
    submit(later, "again", "anna")
    submit(later, "ben's", "ben")
    assert later.started() == ["ben's"]
    later.advance(20.0)
    assert later.started() == ["again"]


def test_keys_that_are_no_longer_used_are_forgotten(stage: Stage) -> None:
    stage.limit("add", rate(1))
    stage.join("w", 10)
    for n in range(6000):
        submit(stage, str(n), f"user {n}")
        assert stage.started() == [str(n)]
        stage.report(str(n))
        stage.advance(0.01)
    assert len(stage.engine.limits._limits) < 3000
    assert len(list(stage.engine.lanes)) < 3000


def test_a_key_with_tasks_keeps_its_limit_whatever_is_swept(stage: Stage) -> None:
    stage.limit("add", TaskLimits(max_concurrency=1))
    stage.join("w", 3000)
    submit(stage, "first", "anna")
    stage.started()
    for n in range(2500):
        submit(stage, str(n), f"user {n}")
        stage.started()
    submit(stage, "second", "anna")
    assert stage.started() == []
    stage.report("first")
    assert stage.started() == ["second"]
