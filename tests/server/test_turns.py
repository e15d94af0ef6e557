"""Fair share: every fair key gets as many turns as the others, within a priority."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastworker.tasks import Options, Priority, Ties
from tests.server.stage import Stage, submission


@pytest.fixture
def stage() -> Stage:
    return Stage()


def submit(stage: Stage, task_id: str, fair_key: str | None, name: str = "add", **said: Priority) -> None:
    options = Options(priority=said["priority"]) if said else None
    made = replace(submission(task_id, name, options), ties=Ties(fair_key=fair_key) if fair_key else None)
    assert stage.engine.submit(made, stage.now) is not None


def in_turn(stage: Stage, count: int) -> list[str]:
    """Let a worker of one slot do so many tasks: the ids, in order."""
    done = []
    for _ in range(count):
        [task_id] = stage.started()
        stage.report(task_id)
        done.append(task_id)
    return done


def test_one_tenant_with_many_tasks_does_not_delay_the_ten_of_another(stage: Stage) -> None:
    stage.join("w", 1)
    for n in range(1000):
        submit(stage, f"big {n}", "big")
    in_turn(stage, 100)
    for n in range(10):
        submit(stage, f"small {n}", "small")
    done = in_turn(stage, 20)
    assert [task_id for task_id in done if task_id.startswith("small")] == [f"small {n}" for n in range(10)]


def test_tenants_take_turns_over_all_task_names(stage: Stage) -> None:
    stage.join("w", 1, "add", "sub")
    for n in range(4):
        submit(stage, f"a{n}", "a", "add")
    for n in range(4):
        submit(stage, f"b{n}", "b", "sub")
    done = in_turn(stage, 8)
    assert [Counter(task_id[0] for task_id in done[:n]) for n in (2, 4, 6)] == [{"a": n, "b": n} for n in (1, 2, 3)]


def test_tasks_without_a_fair_key_are_one_tenant(stage: Stage) -> None:
    stage.join("w", 1)
    for n in range(6):
        submit(stage, f"-{n}", None)
    for n in range(3):
        submit(stage, f"b{n}", "b")
    done = in_turn(stage, 6)
    assert Counter(task_id[0] for task_id in done) == {"-": 3, "b": 3}


def test_who_was_away_has_saved_no_turns_up(stage: Stage) -> None:
    stage.join("w", 1)
    submit(stage, "b-first", "b")
    for n in range(100):
        submit(stage, f"a{n}", "a")
    in_turn(stage, 60)
    for n in range(20):
        submit(stage, f"b{n}", "b")
    turns = Counter(task_id[0] for task_id in in_turn(stage, 20))
    assert abs(turns["a"] - turns["b"]) <= 2


def test_a_better_priority_goes_before_every_turn(stage: Stage) -> None:
    stage.join("w", 1)
    for n in range(5):
        submit(stage, f"a{n}", "a")
    for n in range(3):
        submit(stage, f"urgent{n}", "a", priority=Priority.CRITICAL)
    submit(stage, "b0", "b")
    assert in_turn(stage, 4) == ["urgent0", "urgent1", "urgent2", "b0"]


def test_a_task_that_was_given_back_keeps_its_turn(stage: Stage) -> None:
    worker = stage.join("w", 1)
    for n in range(3):
        submit(stage, f"a{n}", "a")
        submit(stage, f"b{n}", "b")
    [first] = stage.started()
    stage.engine.leave(worker, stage.now)
    stage.join("v", 1)
    assert in_turn(stage, 1) == [first]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 5)), min_size=1, max_size=60))
def test_no_tenant_that_waits_is_ever_more_than_three_turns_behind(steps: list[tuple[str, int]]) -> None:
    """Submit some for a tenant, serve some; over each stretch in which two tenants have tasks all the time, the turns
    that they get differ by no more than two.
    """
    stage = Stage()
    stage.join("w", 1)
    queued: Counter[str] = Counter()
    served: Counter[str] = Counter()
    since: dict[tuple[str, str], tuple[int, int]] = {}
    number = 0
    for tenant, count in steps:
        for _ in range(count):
            submit(stage, f"{tenant}{number}", tenant)
            number += 1
        queued[tenant] += count
        for _ in range(2):
            if not queued.total():
                break
            for one in "abcd":
                for other in "abcd":
                    if queued[one] and queued[other]:
                        since.setdefault((one, other), (served[one], served[other]))
                    else:
                        since.pop((one, other), None)
            [done] = in_turn(stage, 1)
            served[done[0]] += 1
            queued[done[0]] -= 1
            for (one, other), (before, other_before) in since.items():
                assert abs((served[one] - before) - (served[other] - other_before)) <= 3


def test_fair_keys_that_came_once_are_forgotten(stage: Stage) -> None:
    stage.join("w", 1)
    for n in range(25_000):
        submit(stage, f"t{n}", f"user {n}")
        assert in_turn(stage, 1) == [f"t{n}"]
    assert len(stage.engine.lanes._turns._last[Priority.NORMAL.rank]) <= 10_001
