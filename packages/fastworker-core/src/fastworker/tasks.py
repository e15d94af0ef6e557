"""The data of a task: its options, its record, and what the outside may see of it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Literal

from fastworker.lifecycle import State

Acks = Literal["late", "early"]
BackoffKind = Literal["exponential", "linear", "constant"]


class Priority(StrEnum):
    """How urgent a task is. A better priority always runs first."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 for critical to 3 for low: the order in which tasks run."""
        return _RANKS[self]


PRIORITIES = tuple(Priority)
_RANKS = {priority: rank for rank, priority in enumerate(PRIORITIES)}


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before retry number n (counted from 0).

    The wait is drawn evenly from 0 to `min(cap, base × growth)` seconds, "full jitter"
    (AWS Architecture Blog, "Exponential Backoff And Jitter"), so that tasks that failed together don't
    come back together.

    Attributes:
        kind: growth is 2ⁿ (`exponential`), n + 1 (`linear`) or 1 (`constant`).
        base: seconds.
        cap: the longest wait in seconds.
        jitter: without it, the wait is exactly the upper end.
    """

    kind: BackoffKind = "exponential"
    base: float = 1.0
    cap: float = 600.0
    jitter: bool = True


@dataclass(frozen=True, slots=True)
class Options:
    """How a task is to be treated. `None` means: not said here, so the next in line decides.

    The order is: said at the submission, said at `@task`, `DEFAULTS`.

    Attributes:
        priority: see `Priority`.
        queue: the name of the queue.
        retries: how often a failed task is tried again.
        backoff: how long to wait before each retry.
        timeout: seconds that one attempt may run.
        delay: seconds after the submission before it may start.
        eta: the moment before which it must not start (seconds since 1970, UTC).
        expires: seconds after the submission after which it must not start any more.
        result_ttl: seconds to keep the result.
        acks: `late`, a lost attempt is run again; `early`, a task is started at most once.
        tags: words to find the task by.
    """

    priority: Priority | None = None
    queue: str | None = None
    retries: int | None = None
    backoff: Backoff | None = None
    timeout: float | None = None
    delay: float | None = None
    eta: float | None = None
    expires: float | None = None
    result_ttl: float | None = None
    acks: Acks | None = None
    tags: tuple[str, ...] | None = None

    def over(self, other: Options) -> Options:
        """These options where they say something, the other's where they don't."""
        said = {name: value for name in OPTION_NAMES if (value := getattr(self, name)) is not None}
        return replace(other, **said) if said else other


OPTION_NAMES = tuple(f.name for f in fields(Options))
UNSAID = Options()
DEFAULTS = Options(
    priority=Priority.NORMAL, queue="default", retries=0, backoff=Backoff(), result_ttl=86_400.0, acks="late"
)


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """A remote exception, as text.

    Attributes:
        type: qualified name, e.g. `"builtins.ValueError"`.
        message: its `str()`.
        traceback: as Python prints it, from the task function inwards.
        place: `file:line in function` of the innermost frame.
    """

    type: str
    message: str
    traceback: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a worker tells of a task function that it can run.

    Attributes:
        name: the task name.
        options: as said at `@task`.
        parameters: JSON schema of the arguments.
        doc: first paragraph of the docstring.
    """

    name: str
    options: Options = UNSAID
    parameters: dict[str, Any] = field(default_factory=dict)
    doc: str = ""


@dataclass(slots=True)
class Task:
    """The engine's record of one task. Times are seconds since 1970 (UTC)."""

    # Stored. Fixed at the submission.
    seq: int
    id: str
    name: str
    args: str  # JSON: an object of keywords, or an array of positions; never parsed by the control plane
    options: Options
    queue: str
    rank: int
    submitted_at: float
    headers: dict[str, str] | None = None
    expires_at: float | None = None

    # Stored. Written by the engine's verbs only; `state` by `lifecycle.move` only.
    state: State = State.NEW
    reason: str | None = None
    attempt: int = 0  # the number of starts; with the id it is the fencing token
    failures: int = 0  # attempts that raised or timed out: what `retries` limits
    crashes: int = 0  # attempts whose worker was lost
    due_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    worker: str | None = None
    result: str | None = None  # JSON
    error: ErrorInfo | None = None

    # In memory only.
    order: int = 0  # place in the queue: FIFO within a rank
    estimate: float = 0.0  # seconds that this attempt is expected to run
    recovering: bool = False  # running at a restart; its worker has not come back yet
    cancelling: bool = False  # somebody wants it stopped while it runs
    version: int = 0  # of its last move
    stored: bool = False  # the store has been given it
    release_timer: Any = None
    expiry_timer: Any = None
    progress: tuple[float, str] | None = None
    log: list[str] | None = None


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What the outside may know of one task. Times are seconds since 1970 (UTC).

    Attributes:
        seq: its number in the order of submissions, by which lists are paged.
    """

    seq: int
    id: str
    name: str
    state: State
    queue: str
    priority: Priority
    attempt: int
    failures: int
    crashes: int
    submitted_at: float
    due_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    reason: str | None = None
    worker: str | None = None
    args: str | None = None
    result: str | None = None
    result_expired: bool = False
    error: ErrorInfo | None = None
    tags: tuple[str, ...] = ()
    progress: tuple[float, str] | None = None
    log: Sequence[str] = ()

    @classmethod
    def of(cls, task: Task) -> TaskInfo:
        """What may be known of the engine's record."""
        return cls(
            seq=task.seq,
            id=task.id,
            name=task.name,
            state=task.state,
            queue=task.queue,
            priority=PRIORITIES[task.rank],
            attempt=task.attempt,
            failures=task.failures,
            crashes=task.crashes,
            submitted_at=task.submitted_at,
            due_at=task.due_at,
            started_at=task.started_at,
            finished_at=task.finished_at,
            reason=task.reason,
            worker=task.worker,
            args=task.args,
            result=task.result,
            error=task.error,
            tags=task.options.tags or (),
            progress=task.progress,
            log=tuple(task.log or ()),
        )


def new_task_id() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of milliseconds, then 74 random bits. Sorts by time."""
    random = int.from_bytes(os.urandom(10)) & ((1 << 74) - 1)
    value = (time.time_ns() // 1_000_000 & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | (random & ((1 << 62) - 1))
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_task_id(text: str) -> bool:
    """Whether the text has the form of a task id."""
    return len(text) == 36 and text.replace("-", "").isalnum()
