"""What looks like a secret does not leave the control plane for a dashboard."""

from __future__ import annotations

import json

import pytest

from fastworker.lifecycle import State
from fastworker.tasks import Definition, Priority, TaskInfo
from fastworker_server.redaction import INSTEAD, redacted

DEFINITION = Definition("login", parameters={"properties": {"user": {}, "password": {}, "more": {}}, "type": "object"})


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
    found = redacted(an_info(args, '{"token": "hunter2"}'), DEFINITION)
    assert "hunter2" not in (found.args or "")
    assert found.result == json.dumps({"token": INSTEAD}, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("args", ['{"user": "ann"}', "[1, 2]", "[]", '{"passenger": 5}', "null"])
def test_what_holds_no_secret_stays_as_it_was_written(args: str) -> None:
    assert redacted(an_info(args), None).args == args
