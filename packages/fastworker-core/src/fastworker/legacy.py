"""What programs written for fastworker 0.3.0 call on a client, in that release's words."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import repeat
from typing import Any, Final, Protocol

from pydantic_core import to_json

from fastworker.ending import Ending
from fastworker.errors import FastWorkerError, TaskNotFound
from fastworker.handle import TaskClient, TaskHandle, plain_json
from fastworker.lifecycle import State
from fastworker.options import SubmitOptions
from fastworker.pair import send_to_pair
from fastworker.protocol import Submission
from fastworker.submission import submission_by_name
from fastworker.tasks import Priority

logger = logging.getLogger("fastworker.client")

CALL_BACK_WITHIN: Final = 5.0
"""Seconds that the receiver of a callback has to take it."""


class TaskStatus(StrEnum):
    """The words of 0.3.0 for where a task stands. A task that expired counts as a failure."""

    PENDING = "pending"
    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    RETRYING = "retrying"
    CANCELLED = "cancelled"


_STATUS = {
    State.WAITING: TaskStatus.PENDING,
    State.SUCCEEDED: TaskStatus.SUCCESS,
    State.FAILED: TaskStatus.FAILURE,
    State.EXPIRED: TaskStatus.FAILURE,
}


def status_of(state: State) -> TaskStatus:
    """A state in the words of 0.3.0."""
    return _STATUS.get(state) or TaskStatus(state)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A task as 0.3.0 showed it: `result` is plain JSON data, `error` a text."""

    task_id: str
    status: TaskStatus
    result: Any = None
    error: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None


class _Client(TaskClient, Protocol):
    """What the calls below need of the client that they are mixed into."""

    @property
    def _endings(self) -> Mapping[str, Ending]: ...

    async def get_task_result(self, task_id: str) -> TaskResult | None: ...
    def get_result(self, task_id: str) -> TaskResult | None: ...


class LegacyCalls:
    """The methods that only 0.3.0 had. None of them raises for a task that failed: its status says so."""

    def stop(self: _Client) -> asyncio.Future[None]:
        """`close`, which also goes on when it is not awaited."""
        return asyncio.Task(self.close(), loop=asyncio.get_running_loop(), eager_start=True)

    async def submit_task(
        self: _Client,
        task_name: str,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        priority: Priority | str = Priority.NORMAL,
        eta: datetime | None = None,
        countdown: float | None = None,
    ) -> TaskResult:
        """Queue a task and wait for its end."""
        handle = await self.submit_function(None, _submission(task_name, args, kwargs or {}, priority, eta, countdown))
        await self.wait(handle, None, self._endings[handle])
        return await self.get_task_result(handle) or TaskResult(handle, TaskStatus.PENDING)

    async def submit_batch(
        self: _Client, tasks: Iterable[Mapping[str, Any]], default_priority: Priority | str = Priority.NORMAL
    ) -> list[str]:
        """Queue many tasks, each a dict with `task_name`, and `args, kwargs, priority, eta, countdown` as needed."""
        submissions = [_submission_of(spec, default_priority) for spec in tasks]
        return list(await self.submit_functions(repeat(None), submissions))

    async def cancel_task(self: _Client, task_id: str) -> bool:
        """Cancel a task; whether it will not go on."""
        return await self.cancel(task_id) in ("was_queued", "interrupted", "killed")

    async def delay_with_callback(
        self: _Client,
        task_name: str,
        callback_address: str,
        *args: Any,
        callback_data: dict[str, Any] | None = None,
        priority: Priority | str = Priority.NORMAL,
        eta: datetime | None = None,
        countdown: float | None = None,
        **kwargs: Any,
    ) -> str:
        """Queue a task; once it has ended, this client sends its result as JSON to an NNG Pair0 at the address."""
        handle = await self.submit_function(None, _submission(task_name, args, kwargs, priority, eta, countdown))
        calling = asyncio.create_task(_call_back(self, handle, callback_address, callback_data))
        _calling.add(calling)
        calling.add_done_callback(_calling.discard)
        return handle

    async def get_task_result(self: _Client, task_id: str) -> TaskResult | None:
        """How a task stands, or None if there is none."""
        try:
            info = await self.info(task_id)
        except TaskNotFound:
            return None
        error = f"{info.error.type}: {info.error.message}" if info.error is not None else None
        value = plain_json(info.result) if info.result is not None else None
        return TaskResult(
            info.id, status_of(info.state), value, error, _moment(info.started_at), _moment(info.finished_at)
        )

    def get_result(self: _Client, task_id: str) -> TaskResult | None:
        """What this client knows without asking, while what `delay` returned is kept."""
        ending = self._endings.get(task_id)
        if ending is None:
            return None
        ended = ending.ended
        if ended is None or ended.state is None:
            return TaskResult(task_id, TaskStatus.PENDING)
        error = f"{ended.error.type}: {ended.error.message}" if ended.error is not None else None
        value = plain_json(ended.result) if ended.result is not None else None
        return TaskResult(task_id, status_of(ended.state), value, error)

    def get_status(self: _Client, task_id: str) -> TaskStatus | None:
        """`get_result(…).status`."""
        result = self.get_result(task_id)
        return result.status if result is not None else None


_calling: set[asyncio.Task[None]] = set()


async def _call_back(client: _Client, handle: TaskHandle[Any], address: str, data: dict[str, Any] | None) -> None:
    try:
        await client.wait(handle, None, client._endings[handle])
        result = await client.get_task_result(handle)
        if result is not None:
            message = to_json({**asdict(result), "callback_data": data})
            await asyncio.to_thread(send_to_pair, address, message, CALL_BACK_WITHIN)
    except FastWorkerError as error:
        logger.error("nobody was told at %s that task %s has ended: %s", address, handle, error)


def _submission_of(spec: Mapping[str, Any], default_priority: Priority | str) -> Submission:
    return _submission(
        spec["task_name"],
        spec.get("args", ()),
        spec.get("kwargs", {}),
        spec.get("priority", default_priority),
        spec.get("eta"),
        spec.get("countdown"),
    )


def _submission(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    priority: Priority | str,
    eta: datetime | float | None,
    countdown: float | None,
) -> Submission:
    return submission_by_name(name, args, kwargs, **call_options(priority, eta, countdown))


def call_options(
    priority: Priority | str | None, eta: datetime | float | None, countdown: float | None
) -> SubmitOptions:
    """Options in 0.3.0's words, in today's."""
    said: SubmitOptions = {}
    if priority is not None:
        said["priority"] = priority
    if eta is not None:
        said["eta"] = eta
    if countdown is not None:
        said["delay"] = countdown
    return said


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None


TaskPriority = Priority
sys.modules["fastworker.tasks.models"] = sys.modules[__name__]  # where 0.3.0 had these names
