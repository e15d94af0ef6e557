"""What the task router answers, as it stands in the OpenAPI document."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from fastworker.handle import plain_json
from fastworker.lifecycle import TERMINAL, State
from fastworker.tasks import ErrorInfo, Priority, TaskInfo

StateName = Literal[
    "waiting", "scheduled", "queued", "running", "retrying", "succeeded", "failed", "cancelled", "expired"
]


class Failure(BaseModel):
    """Why a task failed. The traceback stays on the server."""

    type: str = Field(examples=["builtins.ValueError"])
    message: str

    @classmethod
    def of(cls, error: ErrorInfo | None) -> Failure | None:
        """Of what the worker reported."""
        return cls(type=error.type, message=error.message) if error is not None else None


class TaskStatus(BaseModel):
    """Where a task stands."""

    id: str
    name: str
    state: StateName
    done: bool = Field(description="Whether the task has ended.")
    progress: float | None = Field(description="From 0 to 1, as the task said.", examples=[0.4])
    progress_text: str | None = Field(examples=["resizing"])
    attempt: int = Field(description="How often it was started.")
    priority: Priority
    queue: str
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: Failure | None

    @classmethod
    def of(cls, info: TaskInfo) -> TaskStatus:
        """Of what the control plane knows; without arguments, result and log."""
        fraction, text = info.progress or (None, None)
        return cls(
            id=info.id,
            name=info.name,
            state=_name(info.state),
            done=info.state in TERMINAL,
            progress=fraction,
            progress_text=text,
            attempt=info.attempt,
            priority=info.priority,
            queue=info.queue,
            submitted_at=moment(info.submitted_at) or datetime.now(UTC),
            started_at=moment(info.started_at),
            finished_at=moment(info.finished_at),
            error=Failure.of(info.error),
        )


class TaskOutcome(BaseModel):
    """How a task ended, or that it has not."""

    id: str
    state: StateName
    done: bool
    result: Any = Field(None, description="Of a task that succeeded.")
    error: Failure | None = None

    @classmethod
    def of(cls, info: TaskInfo) -> TaskOutcome:
        """Of what the control plane knows."""
        result = plain_json(info.result) if info.result is not None else None
        done = info.state in TERMINAL
        return cls(id=info.id, state=_name(info.state), done=done, result=result, error=Failure.of(info.error))


class Cancellation(BaseModel):
    """What became of the wish to cancel a task."""

    id: str
    answer: Literal["was_queued", "interrupted", "asked", "killed", "already_done"]


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


def _name(state: State) -> StateName:
    name: StateName = state.value  # type: ignore[assignment]  # tasks are never seen as `new`
    return name


def moment(seconds: float | None) -> datetime | None:
    """A time as date and time in UTC."""
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
