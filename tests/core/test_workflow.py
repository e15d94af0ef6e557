"""Chains and groups become tasks that need each other, in one request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from fastworker import ConfigurationError, GroupHandle, InvalidArguments, TaskHandle, chain, group
from fastworker.function import AnyTaskFunction, TaskFunction
from fastworker.protocol import Submission
from fastworker.upstream import RESULT
from fastworker.workflow import NOTHING, Plan, Step


def _fetch(page: int) -> int:
    return page


def _add(a: Any, b: int = 0) -> Any:
    return a


def _total(parts: Any) -> Any:
    return parts


def _tidy() -> None: ...


fetch: AnyTaskFunction = TaskFunction(_fetch, "fetch")
add: AnyTaskFunction = TaskFunction(_add, "add")
total: AnyTaskFunction = TaskFunction(_total, "total")
tidy: AnyTaskFunction = TaskFunction(_tidy, "tidy")


def planned(step: Step[Any]) -> tuple[list[Submission], Any]:
    plan = Plan()
    output = step.build(plan, NOTHING)
    assert {s.ties.workflow for s in plan.submissions if s.ties} <= {plan.workflow}
    earlier: set[str] = set()
    for submission in plan.submissions:
        assert submission.ties is not None
        assert earlier.issuperset(submission.ties.needs), "a task comes before one that it needs"
        earlier.add(submission.id)
    return plan.submissions, output


def shape(step: Step[Any]) -> list[tuple[str, list[int]]]:
    """The task names, each with the numbers of the tasks that it needs."""
    submissions, _ = planned(step)
    numbers = {submission.id: number for number, submission in enumerate(submissions)}
    return [(s.name, [numbers[need] for need in (s.ties.needs if s.ties else ())]) for s in submissions]


def first_argument(submission: Submission, submissions: Sequence[Submission]) -> Any:
    """With numbers in the places of ids."""
    numbers = {s.id: number for number, s in enumerate(submissions)}

    def shown(value: Any) -> Any:
        if isinstance(value, list):
            return [shown(item) for item in value]
        return f"#{numbers[value[RESULT]]}" if isinstance(value, dict) and RESULT in value else value

    return shown(next(iter(json.loads(submission.args).values())))


def test_a_chain_hands_each_result_on_as_first_argument() -> None:
    submissions, output = planned(chain(fetch.s(1), add.s(2), add.s(b=3)))
    assert [json.loads(s.args) for s in submissions] == [
        {"page": 1},
        {"a": {RESULT: submissions[0].id}, "b": 2},
        {"a": {RESULT: submissions[1].id}, "b": 3},
    ]
    assert output == submissions[2].id


def test_a_bar_is_a_chain() -> None:
    assert shape(fetch.s(1) | add.s(2) | total.s()) == shape(chain(fetch.s(1), add.s(2), total.s()))
    assert shape(fetch.s(1) | (add.s(2) | total.s())) == [("fetch", []), ("add", [0]), ("total", [1])]


def test_a_group_runs_side_by_side_and_what_follows_gets_the_list() -> None:
    submissions, _ = planned(group([fetch.s(1), fetch.s(2)]).then(total.s()))
    assert [s.name for s in submissions] == ["fetch", "fetch", "total"]
    assert first_argument(submissions[2], submissions) == ["#0", "#1"]


def test_a_group_behind_a_step_gets_its_result_in_each_part() -> None:
    step = fetch.s(1) | group([add.s(1), add.s(2)]) | total.s()
    assert shape(step) == [("fetch", []), ("add", [0]), ("add", [0]), ("total", [1, 2])]


def test_groups_and_chains_nest() -> None:
    inner = group([fetch.s(2), fetch.s(3)])
    step = group([fetch.s(1) | add.s(1), inner, inner | total.s()]).then(total.s())
    submissions, _ = planned(step)
    assert first_argument(submissions[-1], submissions) == ["#1", ["#2", "#3"], "#6"]


def test_a_step_can_be_used_twice() -> None:
    step = fetch.s(1) | add.s(2)
    first, second = planned(step)[0], planned(step)[0]
    assert {s.id for s in first}.isdisjoint(s.id for s in second)


def test_si_waits_but_does_not_get_the_result() -> None:
    submissions, _ = planned(group([fetch.s(1), fetch.s(2)]) | tidy.si() | fetch.si(9))
    assert shape(group([fetch.s(1), fetch.s(2)]) | tidy.si() | fetch.si(9)) == [
        ("fetch", []), ("fetch", []), ("tidy", [0, 1]), ("fetch", [2]),
    ]  # fmt: skip
    assert [json.loads(s.args) for s in submissions[2:]] == [{}, {"page": 9}]


def test_an_empty_group_gives_an_empty_list() -> None:
    submissions, _ = planned(group([]).then(total.s()))
    assert [json.loads(s.args) for s in submissions] == [{"parts": []}]
    assert planned(group([])) == ([], [])


async def test_an_empty_group_needs_no_control_plane() -> None:
    handle: GroupHandle[Any] = await group([]).submit()
    assert isinstance(handle, GroupHandle)
    assert await handle == []
    assert await handle.cancel_workflow() == 0


def test_options_go_with_each_call() -> None:
    submissions, _ = planned(chain(fetch.options(priority="high").s(1), add.options(on_upstream_failure="run").s()))
    assert submissions[0].options is not None
    assert submissions[0].options.priority == "high"
    assert submissions[1].ties is not None
    assert submissions[1].ties.on_upstream_failure == "run"


def test_a_handle_of_a_submitted_task_can_be_an_argument_of_a_call() -> None:
    plan = Plan()
    handle = add.s(TaskHandle[Any]("earlier"), 1).build(plan, NOTHING)
    assert [submission.id for submission in plan.submissions] == [handle]
    [submission] = plan.submissions
    assert submission.ties is not None
    assert submission.ties.needs == ("earlier",)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [fetch, 5, None, "fetch", lambda: None])
def test_what_is_not_a_step_is_refused_with_what_to_write(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a step of a workflow: write function\.s"):
        chain(fetch.s(1), wrong)
    with pytest.raises(ConfigurationError, match=r"write function\.s"):
        group([wrong])
    with pytest.raises(ConfigurationError, match=r"write function\.s"):
        group([]).then(wrong)
    with pytest.raises(ConfigurationError, match=r"write function\.s"):
        fetch.s(1) | wrong


def test_a_handle_in_place_of_a_step_is_refused() -> None:
    handle: Any = TaskHandle[Any]("x")
    with pytest.raises(ConfigurationError, match="is not a step"):
        chain(handle)


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one step"):
        chain(*[])


async def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidArguments, match="page"):
        await chain(fetch.s("one"), add.s()).submit()
    with pytest.raises(InvalidArguments, match="too many positional arguments"):
        await chain(fetch.s(1), add.s(1, 2)).submit()
    with pytest.raises(InvalidArguments, match="too many positional arguments"):
        await chain(fetch.s(1), tidy.s()).submit()
