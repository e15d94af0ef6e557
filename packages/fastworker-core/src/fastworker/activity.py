"""What a control plane tells of its recent activity. Times are seconds since 1970 (UTC), durations are seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fastworker.search import TaskFilter

BulkAction = Literal["retry", "cancel", "delete", "reprioritise"]
SPANS = ("2m", "30m", "24h")
SHORTEST = 0.0001
BUCKETS = 56
"""Of a histogram of durations: each is the square root of two times as long as the one before it."""


def bucket_end(number: int) -> float:
    """The longest duration of a bucket."""
    return float(SHORTEST * 2 ** (number / 2))


@dataclass(frozen=True, slots=True)
class Series:
    """Counts over a span of time, oldest first.

    Attributes:
        start, step: when the first bucket begins, and how long each is. The last one is under way.
        submitted, succeeded, failed, retried: moves in each bucket.
        queued, running: how many at its end.
    """

    start: float
    step: float
    submitted: list[int]
    succeeded: list[int]
    failed: list[int]
    retried: list[int]
    queued: list[int]
    running: list[int]


@dataclass(frozen=True, slots=True)
class TypeActivity:
    """One task name since the control plane started.

    Attributes:
        states: tasks per state, of all that is kept.
        succeeded, failed: moves into these states, since the start.
        run_p50, run_p95, wait_p50, wait_p95: to the nearest bucket; None before the first has run.
        durations: a histogram of how long attempts ran; see `bucket_end`.
        per_second: how many ended lately, on average over about ten seconds.
    """

    name: str
    states: dict[str, int]
    succeeded: int = 0
    failed: int = 0
    run_p50: float | None = None
    run_p95: float | None = None
    wait_p50: float | None = None
    wait_p95: float | None = None
    durations: list[int] = field(default_factory=list)
    per_second: float = 0.0


PausedKind = Literal["queue", "name"]


@dataclass(frozen=True, slots=True)
class Pause:
    """Somebody has paused a queue, or the tasks of a name.

    Attributes:
        by: a user of the dashboard, or a client.
    """

    what: PausedKind
    target: str
    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Activity:
    """What has been going on.

    Attributes:
        version: of the last move that is counted here.
        states: tasks per state, at that version.
        queued: queued tasks by priority.
        oldest: since when the longest-waiting queued task waits.
        series: by span: `2m`, `30m`, `24h`.
        types: one per task name.
        paused_queues, paused_names: what was paused.
        flows: by queue, what comes in and what leaves it per second, over the last ten.
        pauses: who paused what, and when.
    """

    now: float
    version: int
    states: dict[str, int]
    queued: dict[str, int]
    oldest: float | None
    series: dict[str, Series]
    types: list[TypeActivity]
    paused_queues: list[str]
    paused_names: list[str]
    flows: dict[str, tuple[float, float]] = field(default_factory=dict)
    pauses: list[Pause] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BulkView:
    """An action on all tasks that fit a filter, under way or ended.

    Attributes:
        total: how many fitted at the beginning; None if that is not known exactly.
        done: how many it was done to.
        state: `running`, `done`, `stopped` or `failed`.
        by: who asked for it.
    """

    id: str
    action: BulkAction
    filter: TaskFilter
    total: int | None
    done: int
    state: str
    by: str
    started: float
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Somebody did something.

    Attributes:
        number: counts the rows; lists are paged by it.
        who: a user of the dashboard, or a client.
        target: a task id, a queue, a worker, or the text of a search.
    """

    number: int
    at: float
    who: str
    action: str
    target: str
