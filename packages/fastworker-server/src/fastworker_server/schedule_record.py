"""What the control plane remembers of one schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from fastworker.protocol import Schedule
from fastworker.views import Firing, ScheduleSource

LONGEST_HISTORY: Final = 20


@dataclass(slots=True)
class ScheduleRecord:
    """One schedule and how far it has come. Times are seconds since 1970 (UTC)."""

    # Stored.
    schedule: Schedule
    source: ScheduleSource
    created: float  # what `every` is counted from
    through: float  # all due times up to here have met their fate
    paused: bool = False
    gone: bool = False  # it was in the code, and the newest worker's code does not have it any more
    fired: int = 0  # what `count` limits
    next_due: float | None = None
    last: str | None = None  # the task of the last run
    owed: float | None = None  # a due time that waits for the end of that task
    backlog: list[tuple[float, float]] = field(default_factory=list)  # missed runs to make up for: later than, up to
    history: list[Firing] = field(default_factory=list)  # the oldest first

    # In memory only.
    timer: Any = None

    @property
    def done(self) -> bool:
        """Whether it has run as often as it is to."""
        count = self.schedule.timing.count
        return count is not None and self.fired >= count

    @property
    def active(self) -> bool:
        """Whether it may run."""
        return not (self.paused or self.gone or self.done)

    def note(self, firing: Firing) -> None:
        """Remember what became of a due time. Neighbours that were skipped for the same reason are one entry."""
        before = self.history[-1] if self.history else None
        if before is not None and firing.task is None and (before.task, before.why) == (None, firing.why):
            first, last = before.due, firing.until or firing.due
            self.history[-1] = Firing(first, firing.at, None, last, firing.why)
        else:
            self.history = [*self.history, firing][-LONGEST_HISTORY:]
