"""A handle is its id, and knows how to get the result."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from fastworker import errors
from fastworker.client import Client
from fastworker.codec import Signature
from fastworker.ending import Ending
from fastworker.handle import TaskHandle, result_of
from fastworker.lifecycle import State
from fastworker.protocol import Ended
from fastworker.tasks import ErrorInfo, new_task_id

ERROR = ErrorInfo("builtins.ValueError", "no luck", "Traceback (most recent call last):\n  …", "tasks.py:5 in work")


def when() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


class Clerk:
    """Stands for a client: answers what it was told to."""

    def __init__(self, ended: Ended | None = None) -> None:
        self.ended = ended
        self.asked: list[Any] = []

    async def bridge(self, call: Any) -> Any:
        return await call()

    async def wait(self, task_id: str, timeout: float | None, ending: Ending | None) -> Ended:
        self.asked.append((task_id, timeout))
        assert self.ended is not None
        return self.ended

    async def cancel(self, task_id: str) -> str:
        self.asked.append(task_id)
        return "was_queued"


def handle_of(clerk: Clerk, signature: Signature | None = None, task_id: str = "id-1") -> TaskHandle[Any]:
    return TaskHandle.make(task_id, cast(Client, clerk), signature)


# ---- it is its id --------------------------------------------------------------------------------------------


def test_a_handle_is_its_id_wherever_a_string_can_be() -> None:
    task_id = new_task_id()
    handle = handle_of(Clerk(), task_id=task_id)
    assert handle == task_id
    assert isinstance(handle, str)
    assert json.dumps({"task_id": handle}) == json.dumps({"task_id": task_id})
    assert f"{handle}" == str(handle) == task_id
    assert {str(handle): 1}[handle] == 1
    assert repr(handle) == repr(task_id)


def test_the_id_of_a_handle_is_a_plain_string() -> None:
    handle = handle_of(Clerk())
    assert type(handle.id) is str
    assert handle.id == "id-1"


# ---- results -------------------------------------------------------------------------------------------------


async def test_awaiting_a_handle_gives_the_result() -> None:
    clerk = Clerk(Ended("id-1", State.SUCCEEDED, result='{"a":[1,null]}'))
    assert await handle_of(clerk) == {"a": [1, None]}
    assert clerk.asked == [("id-1", None)]


async def test_the_result_has_the_annotated_type_where_the_signature_is_known() -> None:
    clerk = Clerk(Ended("id-1", State.SUCCEEDED, result='"2026-01-01T00:00:00Z"'))
    assert await handle_of(clerk, Signature(when, "when")) == when()
    assert await handle_of(clerk) == "2026-01-01T00:00:00Z"


async def test_the_time_to_wait_is_passed_on() -> None:
    clerk = Clerk(Ended("id-1", State.SUCCEEDED, result="null"))
    assert await handle_of(clerk).result(timeout=2.5) is None
    assert clerk.asked == [("id-1", 2.5)]


async def test_a_cancellation_asks_the_client() -> None:
    clerk = Clerk()
    assert await handle_of(clerk).cancel() == "was_queued"
    assert clerk.asked == ["id-1"]


@pytest.mark.parametrize(
    ("ended", "error", "text"),
    [
        (Ended("id-1", State.FAILED, "error", error=ERROR), errors.TaskFailed, "task id-1 failed: builtins.ValueError"),
        (Ended("id-1", State.FAILED, "crashed", error=ERROR), errors.TaskCrashed, "task id-1 failed"),
        (Ended("id-1", State.FAILED, "upstream", error=ERROR), errors.UpstreamFailed, "task id-1 failed"),
        (Ended("id-1", State.FAILED, "timeout", error=ERROR), errors.TaskTimeout, "ran longer than its time limit"),
        (Ended("id-1", State.FAILED, "error"), errors.TaskFailed, "no error was reported"),
        (Ended("id-1", State.CANCELLED), errors.TaskCancelled, "task id-1 was cancelled"),
        (Ended("id-1", State.EXPIRED), errors.TaskExpired, "task id-1 expired before it was started"),
        (Ended("id-1", State.SUCCEEDED, result_expired=True), errors.ResultExpired, "no longer kept"),
        (Ended("id-1", State.SUCCEEDED), errors.ResultExpired, "no longer kept"),
        (Ended("id-1", None), errors.TaskNotFound, "there is no task id-1"),
    ],
)
async def test_each_end_has_its_own_error(ended: Ended, error: type[errors.TaskError], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        await handle_of(Clerk(ended))
    assert type(caught.value) is error
    assert caught.value.task_id == "id-1"


def test_a_failure_carries_what_the_worker_saw() -> None:
    with pytest.raises(errors.TaskFailed) as caught:
        result_of(Ended("id-1", State.FAILED, "error", error=ERROR))
    failure = caught.value
    assert (failure.error_type, failure.error_message) == ("builtins.ValueError", "no luck")
    assert failure.remote_traceback == ERROR.traceback
    assert str(failure).endswith(ERROR.traceback)


def test_a_result_of_another_type_is_an_error_that_still_holds_the_value() -> None:
    with pytest.raises(errors.ResultTypeError, match="not of the annotated type") as caught:
        result_of(Ended("id-1", State.SUCCEEDED, result='{"not":"a date"}'), Signature(when, "when"))
    assert caught.value.value == {"not": "a date"}
    assert caught.value.task_id == "id-1"
