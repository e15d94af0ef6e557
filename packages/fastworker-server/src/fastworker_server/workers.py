"""The workers as the engine knows them: what they hold, how much more they may get, when they were last heard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from fastworker.tasks import Definition, Task
from fastworker.views import WorkerView
from fastworker_server.rate import Rate
from fastworker_server.timers import Timer

AHEAD_SECONDS: Final = 0.02
"""Work per slot that may wait at a worker: enough to hide the way to it, too little to be missed elsewhere."""
FIRST_WINDOW: Final = 8.0
LARGEST_WINDOW: Final = 4000.0
PRIORITY_COUNT: Final = 4


class WorkerPlace(NamedTuple):
    """Where a worker runs."""

    name: str
    host: str
    pid: int


class WorkerRecord:
    """One worker. It gets as many tasks as it has free slots, and a little work ahead.

    What goes ahead is limited three ways: only tasks that are known to be short; no more than `AHEAD_SECONDS` of them
    per slot; and no more than `window`, which follows what the worker really gets done, as TCP's does: it grows while
    tasks wait there for less than half of `AHEAD_SECONDS`, and shrinks once they wait for longer than all of it.
    """

    def __init__(
        self,
        name: str,
        host: str,
        pid: int,
        release: str,
        slots: int,
        own: bool,
        definitions: Iterable[Definition],
        now: float,
    ) -> None:
        self.name = name
        self.place = WorkerPlace(name, host, pid)
        self.place_change = 0  # which one of the engine's brought it
        self.release = release
        self.slots = slots
        self.own = own
        self.names = frozenset(definition.name for definition in definitions)
        self.since = now
        self.last_heard = now
        self.connected = True
        self.silent = False
        self.paused = False
        self.assigned: dict[str, Task] = {}
        self.finished = 0
        self.failed = 0
        self.memory: int | None = None
        self.rate = Rate()
        self.window = FIRST_WINDOW
        self.lease_timer: Timer | None = None
        self.lost_timer: Timer | None = None
        self._ahead = [0.0] * PRIORITY_COUNT
        self._limited = False

    @property
    def usable(self) -> bool:
        """Whether it may get new tasks at all."""
        return self.connected and not self.silent and not self.paused and self.slots > 0

    @property
    def load(self) -> float:
        """Tasks per slot."""
        return len(self.assigned) / self.slots if self.slots else float("inf")

    def has_room(self, rank: int, estimate: float | None) -> bool:
        """Whether it may get a task of this priority now. Work ahead that is less urgent does not count."""
        count = len(self.assigned)
        if count < self.slots:
            return True
        if estimate is None:
            return False
        if count >= self.slots + self.window:
            self._limited = True
            return False
        return sum(self._ahead[: rank + 1]) + estimate <= AHEAD_SECONDS * self.slots

    def assign(self, task: Task, estimate: float | None) -> None:
        """It has the task now."""
        task.estimate = estimate if estimate is not None else AHEAD_SECONDS
        self.assigned[task.id] = task
        self._ahead[task.rank] += task.estimate

    def unassign(self, task: Task) -> None:
        """It has the task no more."""
        if self.assigned.pop(task.id, None) is not None:
            self._ahead[task.rank] = max(0.0, self._ahead[task.rank] - task.estimate)
            if not self.assigned:
                self._ahead = [0.0] * PRIORITY_COUNT

    def waited(self, seconds: float) -> None:
        """A task waited there for so long before it ran: adapt the window."""
        if seconds > AHEAD_SECONDS:
            self.window *= 0.7
        elif self._limited and seconds < AHEAD_SECONDS / 2:
            self.window = min(LARGEST_WINDOW, self.window * 1.25 + 4)
        self._limited = False

    def stalled(self) -> None:
        """It handed tasks back: nothing goes ahead until it has finished something."""
        self.window = 0.0

    def view(self, now: float) -> WorkerView:
        """What the outside may know."""
        return WorkerView(
            name=self.name,
            host=self.place.host,
            pid=self.place.pid,
            release=self.release,
            own=self.own,
            slots=self.slots,
            assigned=len(self.assigned),
            finished=self.finished,
            failed=self.failed,
            since=self.since,
            silent_for=round(now - self.last_heard, 3),
            connected=self.connected,
            paused=self.paused,
            tasks=list(self.assigned)[:100],
            memory=self.memory,
            per_second=round(self.rate.at(now), 3),
        )
