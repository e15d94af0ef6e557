"""What a search gives. Times are seconds since 1970 (UTC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastworker.tasks import TaskInfo


@dataclass(frozen=True, slots=True)
class TaskPage:
    """One page of tasks, newest first.

    Attributes:
        tasks: those found.
        next: where the next page begins; None if there is none.
        complete: False if the search took its time before the page was full: `next` goes on looking from there.
    """

    tasks: Sequence[TaskInfo]
    next: int | None = None
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Facets:
    """How many tasks fit a filter.

    Attributes:
        total: all of them.
        exact: False if only the newest of them were counted.
        states, names, queues, priorities: how many by each value.
        by_name: of each name, how many by state.
    """

    total: int = 0
    exact: bool = True
    states: dict[str, int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    queues: dict[str, int] = field(default_factory=dict)
    priorities: dict[str, int] = field(default_factory=dict)
    by_name: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed tasks that have the same name, exception and place.

    Attributes:
        type, place: of the error, as in `ErrorInfo`; empty if it is not known.
        message: of the latest one.
        latest_id, latest_at: of the one that failed last.
    """

    name: str
    type: str
    place: str
    count: int
    message: str
    latest_id: str
    latest_at: float
