"""The data of a task: its options, its record, and what the outside may see of it."""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import FiniteFloat

from fastworker.lifecycle import State
from fastworker.limits import UNLIMITED, TaskLimits
from fastworker.schedule import Timing

Acks = Literal["late", "early"]
UniqueWhile = Literal["queued", "running"]
OnDuplicate = Literal["return_existing", "reject", "replace"]
OnUpstreamFailure = Literal["fail", "run", "ignore"]
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
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""Two bits of the variant that RFC 9562 describes, then two of a random digit."""
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-")


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
    base: FiniteFloat = 1.0
    cap: FiniteFloat = 600.0
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
        timeout: seconds that one attempt may run before it is interrupted, which it can catch to clean up.
        hard_timeout: seconds after which it is ended without being asked.
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
    timeout: FiniteFloat | None = None
    delay: FiniteFloat | None = None
    eta: FiniteFloat | None = None
    expires: FiniteFloat | None = None
    result_ttl: FiniteFloat | None = None
    acks: Acks | None = None
    tags: tuple[str, ...] | None = None
    hard_timeout: FiniteFloat | None = None

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
class Ties:
    """What ties one task to others.

    Attributes:
        key: the tasks of one name that share it share the limits of that name.
        fair_key: whose turn it takes; every fair key gets as many turns as the others.
        unique: the name of the lock that it holds, or wants.
        unique_while: how long it holds the lock: while it is `queued`, until it has ended (`running`), or so many
            seconds from its submission.
        on_duplicate: what becomes of it if another task holds the lock.
        needs: ids of the tasks that it waits for; their results are arguments of it.
        on_upstream_failure: what becomes of it if one of these does not succeed.
        workflow: an id that all tasks of one workflow share.
        parent: the task that submitted it while it ran.
        schedule: the name of the schedule that fired it.
    """

    key: str | None = None
    fair_key: str | None = None
    unique: str | None = None
    unique_while: UniqueWhile | FiniteFloat = "running"
    on_duplicate: OnDuplicate = "return_existing"
    needs: tuple[str, ...] = ()
    on_upstream_failure: OnUpstreamFailure = "fail"
    workflow: str | None = None
    parent: str | None = None
    schedule: str | None = None


NO_TIES = Ties()


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
class Attempt:
    """One attempt that did not succeed. Times are seconds since 1970 (UTC).

    Attributes:
        outcome: `failed`, `timeout` or `crashed`.
        pid: of the worker's process; None if the control plane was restarted meanwhile.
    """

    number: int
    worker: str
    started_at: FiniteFloat
    ended_at: FiniteFloat
    outcome: str
    error: ErrorInfo | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Definition:
    """What a worker tells of a task function that it can run.

    Attributes:
        name: the task name.
        options: as said at `@task`.
        parameters: JSON schema of the arguments.
        doc: first paragraph of the docstring.
        limits: how many of its tasks may start, and run, over all workers.
        schedule: when it runs by itself.
        key, fair_key: of these runs.
    """

    name: str
    options: Options = UNSAID
    parameters: dict[str, Any] = field(default_factory=dict)
    doc: str = ""
    limits: TaskLimits = UNLIMITED
    schedule: Timing | None = None
    key: str | None = None
    fair_key: str | None = None


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
    ties: Ties = NO_TIES

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
    inputs: dict[str, str] | None = None  # by task id: what it gets of the tasks that it waited for, as JSON
    history: tuple[Attempt, ...] = ()  # the last attempts that did not succeed

    # In memory only.
    order: int = 0  # place in the queue: FIFO within a rank
    estimate: float = 0.0  # seconds that this attempt is expected to run
    pid: int | None = None  # of the worker that has it
    recovering: bool = False  # running at a restart; its worker has not come back yet
    cancelling: bool = False  # somebody wants it stopped while it runs
    missing: int = 0  # how many tasks it still waits for
    stopped_by: str = "interrupted"  # how a cancellation ended it: the answer to whoever asked for it
    version: int = 0  # of its last move
    stored: bool = False  # the store has been given it
    rewrite: bool = False  # something that is fixed otherwise was changed: the store is to write it all
    release_timer: Any = None
    expiry_timer: Any = None
    progress: tuple[float, str] | None = None
    sealed_progress: str | None = None
    log: list[str] | None = None


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What the outside may know of one task. Times are seconds since 1970 (UTC).

    Attributes:
        seq: its number in the order of submissions, by which lists are paged.
        sealed_progress: in place of its progress, what only those with the payload keys can read.
        trace_id: of the trace that it belongs to.
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
    ties: Ties = NO_TIES
    history: tuple[Attempt, ...] = ()
    progress: tuple[float, str] | None = None
    sealed_progress: str | None = None
    log: Sequence[str] = ()
    trace_id: str | None = None

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
            ties=task.ties,
            history=task.history,
            progress=task.progress,
            sealed_progress=task.sealed_progress,
            log=tuple(task.log or ()),
            trace_id=_trace_id(task.headers),
        )


def _trace_id(headers: Mapping[str, str] | None) -> str | None:
    """As a `traceparent` has it (W3C Trace Context, section 3.2)."""
    found = _TRACEPARENT.match(headers.get("traceparent", "")) if headers else None
    return found[1] if found else None


def new_task_id() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of milliseconds, then 74 random bits. Sorts by time."""
    time_ms = f"{time.time_ns() // 1_000_000:012x}"
    random = os.urandom(10).hex()
    return f"{time_ms[:8]}-{time_ms[8:]}-7{random[:3]}-{_VARIANT[random[3]]}{random[4:7]}-{random[7:19]}"


def idempotent_id(name: str, key: str) -> str:
    """A UUIDv8 (RFC 9562, section 5.8) made of a task name and an idempotency key: the same for the same."""
    digest = bytearray(hashlib.sha256(f"{name}\0{key}".encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))


def is_idempotent_id(task_id: str) -> bool:
    """Whether the id was made by `idempotent_id`."""
    return task_id[14:15] == "8"


def is_task_id(text: str) -> bool:
    """Whether the text has the form of a task id."""
    return len(text) == 36 and text.replace("-", "").isalnum()
