"""What looks like a secret does not leave the control plane for a dashboard."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from pydantic import Field
from pydantic_core import to_json

from fastworker.function import TaskFunction
from fastworker.lifecycle import State
from fastworker.tasks import Priority, TaskInfo
from fastworker_server.catalog import Catalog
from fastworker_server.redaction import INSTEAD, NO_PARAMETERS, Parameters, parameters_of, redacted

PARAMETERS = Parameters(["user", "password", "more"], ["password"])


def an_info(args: str, result: str | None = None) -> TaskInfo:
    return TaskInfo(
        1, "id", "login", State.SUCCEEDED, "default", Priority.NORMAL, 1, 0, 0, 0.0, args=args, result=result
    )


@pytest.mark.parametrize(
    "args",
    [
        '{"user": "ann", "password": "hunter2"}',
        '["ann", "hunter2"]',
        '{"*": ["ann", "hunter2"], "more": 1}',
        '{"*": ["ann"], "password": "hunter2"}',
        '{"user": {"deep": [{"api_key": "hunter2"}]}}',
        '["ann", {"any": "hunter2"}]',
        '[{"Authorization": "hunter2"}]',
        '{"clientSecret": "hunter2"}',
        "not json: hunter2",
    ],
)
def test_secrets_are_taken_out_wherever_they_stand(args: str) -> None:
    found = redacted(an_info(args, '{"token": "hunter2"}'), PARAMETERS)
    assert "hunter2" not in (found.args or "")
    assert found.result == json.dumps({"token": INSTEAD}, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("args", ['{"user": "ann"}', "[1, 2]", "[]", '{"passenger": 5}', "null"])
def test_what_holds_no_secret_stays_as_it_was_written(args: str) -> None:
    assert redacted(an_info(args), NO_PARAMETERS).args == args


def pay(
    user: str,
    card: Annotated[str, Field(json_schema_extra={"writeOnly": True})],
    pin: Annotated[str, Field(json_schema_extra={"format": "password"})] = "",
) -> None:
    """A task function that says which of its parameters are nobody's business."""


@pytest.mark.parametrize(
    "args", ['{"user": "ann", "card": "4711"}', '["ann", "4711"]', '{"*": ["ann"], "card": "4711"}', '{"pin": "4711"}']
)
def test_a_task_function_says_which_of_its_parameters_are_secret(args: str) -> None:
    definition = TaskFunction(pay, "pay").definition()
    assert "4711" not in (redacted(an_info(args), parameters_of(definition)).args or "")


def test_secrets_stay_secret_over_a_restart_before_any_worker_has_come() -> None:
    before, after = Catalog(), Catalog()
    before.learn([TaskFunction(pay, "pay").definition(), TaskFunction(an_info, "open").definition()])
    after.restore_secrets(json.loads(to_json(before.with_secrets())))
    assert after.parameters("pay") == Parameters(["user", "card", "pin"], ["card", "pin"])
    assert after.parameters("open") == NO_PARAMETERS
