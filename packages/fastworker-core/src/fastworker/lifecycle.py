"""All states of a task, and every move between them.

This table is the only place that says which move leads where, and `move` the only code that writes a task's
state. The picture in `docs/how-it-works.md` is drawn from it by `picture`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from fastworker.errors import FastWorkerError


class State(StrEnum):
    """Where a task stands."""

    NEW = "new"  # not yet accepted; never seen from outside the engine
    WAITING = "waiting"  # for other tasks
    SCHEDULED = "scheduled"  # for a time
    QUEUED = "queued"  # for a worker
    RUNNING = "running"
    RETRYING = "retrying"  # for its back-off to pass
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Move(StrEnum):
    """What can happen to a task."""

    SUBMIT = "submit"
    SCHEDULE = "schedule"
    AWAIT = "await"
    RELEASE = "release"
    START = "start"
    HAND_BACK = "hand back"
    LOSE = "lose"
    COMPLETE = "complete"
    RETRY = "retry"
    FAIL = "fail"
    CANCEL = "cancel"
    EXPIRE = "expire"
    REQUEUE = "requeue"


class Reason(StrEnum):
    """Why a task failed, or was cancelled."""

    ERROR = "error"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    UPSTREAM = "upstream"  # a task that it needs did not succeed
    REPLACED = "replaced"  # cancelled, because a newer one took its place


TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})
PENDING = frozenset({State.WAITING, State.SCHEDULED, State.QUEUED, State.RETRYING})
OPEN = PENDING | {State.RUNNING}

TRANSITIONS: dict[tuple[State, Move], State] = {
    (State.NEW, Move.SUBMIT): State.QUEUED,
    (State.NEW, Move.SCHEDULE): State.SCHEDULED,
    (State.NEW, Move.AWAIT): State.WAITING,
    (State.WAITING, Move.RELEASE): State.QUEUED,
    (State.WAITING, Move.SCHEDULE): State.SCHEDULED,
    (State.SCHEDULED, Move.RELEASE): State.QUEUED,
    (State.RETRYING, Move.RELEASE): State.QUEUED,
    (State.QUEUED, Move.START): State.RUNNING,
    (State.RUNNING, Move.HAND_BACK): State.QUEUED,
    (State.RUNNING, Move.LOSE): State.QUEUED,
    (State.RUNNING, Move.COMPLETE): State.SUCCEEDED,
    (State.QUEUED, Move.COMPLETE): State.SUCCEEDED,  # the late success of an attempt that was given up
    (State.RUNNING, Move.RETRY): State.RETRYING,
    (State.RUNNING, Move.FAIL): State.FAILED,
    (State.WAITING, Move.FAIL): State.FAILED,
    **{(state, Move.CANCEL): State.CANCELLED for state in OPEN},
    **{(state, Move.EXPIRE): State.EXPIRED for state in PENDING},
    **{(state, Move.REQUEUE): State.QUEUED for state in TERMINAL},
    # Requeued before it had the results of all tasks that it needs.
    **{(state, Move.AWAIT): State.WAITING for state in TERMINAL - {State.SUCCEEDED}},
}


class HasState(Protocol):
    """What can move."""

    id: str
    state: State


class IllegalMove(FastWorkerError):
    """The engine asked for a move that the table does not have: a bug of ours."""


def move(task: HasState, what: Move) -> None:
    """Make one move of the table, or raise `IllegalMove` and leave the task as it is."""
    to = TRANSITIONS.get((task.state, what))
    if to is None:
        raise IllegalMove(f"task {task.id} is {task.state}: it can't {what}")
    task.state = to


def picture() -> str:
    """The table as a Mermaid state diagram."""
    arrows = sorted({(str(start), str(end), str(what)) for (start, what), end in TRANSITIONS.items()})
    lines = [f"    {'[*]' if start == State.NEW else start} --> {end}: {what}" for start, end, what in arrows]
    ends = [f"    {state} --> [*]" for state in sorted(TERMINAL)]
    return "\n".join(["stateDiagram-v2", *lines, *ends])
