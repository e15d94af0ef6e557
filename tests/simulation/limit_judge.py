"""Judges limits: in no period more starts than allowed, never more at once, never held without a reason.

What holds is what clients have said, and when: between an order and its answer either may hold.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastworker.lifecycle import Move, State
from fastworker.limits import RateLimit, TaskLimits
from fastworker.tasks import Task
from tests.simulation.ledger import short
from tests.simulation.pool import DEFINITIONS

if TYPE_CHECKING:
    from tests.simulation.checker import Checker

SLACK = 1e-6
LimitedBy = tuple[str, str]
"""Task name and key."""


@dataclass
class Start:
    """One start that the engine has made."""

    task_id: str
    attempt: int
    at: float
    fleeting: bool = False
    """It neither failed nor ended the task, so nothing is kept of it once there is a later attempt."""


@dataclass
class Hold:
    """A task has asked that none like it starts before a moment."""

    by: LimitedBy
    until: float
    task_id: str
    attempt: int


@dataclass
class Ordered:
    """What clients have ordered for one name."""

    now: TaskLimits
    either: list[TaskLimits] = field(default_factory=list)
    """May hold as well: orders that overlapped, or were never answered."""
    unanswered: int = 0
    from_when: float = 0.0
    """Starts before this moment need not count: the limits were others, that did not look back so far."""

    def possible(self) -> list[TaskLimits]:
        """All that may hold now."""
        return [self.now, *self.either]

    def changed(self, now: float) -> float:
        """Starts before this moment need not count, if other limits hold from now on."""
        return max(self.from_when, now - min(_longest(limits) for limits in self.possible()))


class LimitJudge:
    """Rate and concurrency limits."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._ordered = {name: Ordered(definition.limits) for name, definition in DEFINITIONS.items()}
        self._starts: dict[LimitedBy, list[Start]] = defaultdict(list)
        self._running: Counter[LimitedBy] = Counter()
        self._holds: list[Hold] = []

    # ---- what clients order --------------------------------------------------------------------------------------

    def asked(self, name: str, limits: TaskLimits | None) -> TaskLimits:
        """A client orders limits; None: those of the definition."""
        ordered = self._ordered[name]
        wanted = DEFINITIONS[name].limits if limits is None else limits
        ordered.unanswered += 1
        ordered.either.append(wanted)
        return wanted

    def answered(self, name: str, wanted: TaskLimits, now: float) -> None:
        """They hold now, unless another order was under way."""
        ordered = self._ordered[name]
        ordered.from_when = ordered.changed(now)
        ordered.unanswered -= 1
        if not ordered.unanswered and ordered.either == [wanted]:
            ordered.now, ordered.either = wanted, []

    # ---- what happens --------------------------------------------------------------------------------------------

    def starts(self, task: Task, now: float) -> None:
        """The engine is about to start this task."""
        by = self._by(task.id)
        self._checker.require(now >= self._held_until(by) - SLACK, f"started {short(task.id)} of a held lane")
        ordered = self._ordered[by[0]]
        since = ordered.changed(now) if ordered.unanswered else ordered.from_when  # it may have come this moment
        broken = [self._broken(limits, by, since, now) for limits in ordered.possible()]
        self._checker.require(not all(broken), f"started {short(task.id)} of {by} over its limit: {broken[0]}")

    def _broken(self, limits: TaskLimits, by: LimitedBy, since: float, now: float) -> str | None:
        most = limits.max_concurrency
        if most is not None and self._running[by] >= most:
            return f"{self._running[by]} run, {most} may"
        for rate in limits.rates:
            started = sum(start.at >= since and start.at > now - rate.period + SLACK for start in self._starts[by])
            if started >= rate.count:
                return f"{started} were started in the {rate.period:g} s before, {rate.count} may"
        return None

    def surely_open(self, task: Task, now: float) -> bool:
        """Whether no limit can hold this task: even if starts were told late, and counted from then."""
        by = self._by(task.id)
        if now < self._held_until(by) + SLACK:
            return False
        return all(self._leaves_room(limits, by, now) for limits in self._ordered[by[0]].possible())

    def _leaves_room(self, limits: TaskLimits, by: LimitedBy, now: float) -> bool:
        quiet = all(self._is_quiet(rate, by, now) for rate in limits.rates)
        return quiet and (limits.max_concurrency is None or self._running[by] < limits.max_concurrency)

    def _is_quiet(self, rate: RateLimit, by: LimitedBy, now: float) -> bool:
        return sum(start.at >= now - 2.1 * rate.period for start in self._starts[by]) < rate.count

    def moved(self, task: Task, what: Move, before: State, now: float) -> None:
        """The engine has moved a task."""
        by = self._by(task.id)
        self._running[by] += (task.state is State.RUNNING) - (before is State.RUNNING)
        if what is Move.START:
            self._starts[by].append(Start(task.id, task.attempt, now))
        elif what is Move.RETRY:
            self._note_hold(task, by, now)
        if what is Move.HAND_BACK or (what is Move.RETRY and self._snoozes(task)):
            for start in self._starts[by]:
                start.fleeting = start.fleeting or (start.task_id, start.attempt) == (task.id, task.attempt)

    def _snoozes(self, task: Task) -> bool:
        return any(one.status == "retry" for one in self._checker.ledger.current(task.id, task.attempt))

    def _note_hold(self, task: Task, by: LimitedBy, now: float) -> None:
        for execution in self._checker.ledger.current(task.id, task.attempt):
            if execution.holds_for is not None:
                self._holds.append(Hold(by, now + execution.holds_for, task.id, task.attempt))

    def _held_until(self, by: LimitedBy) -> float:
        return max((hold.until for hold in self._holds if hold.by == by), default=0.0)

    def recovered(self, states: Mapping[str, State], attempts: Mapping[str, int]) -> None:
        """A new control plane knows the starts that were committed, and the holds with the ends that asked for them."""
        for by, starts in self._starts.items():
            self._starts[by] = [start for start in starts if _is_kept(start, attempts.get(start.task_id, 0))]
        self._running = Counter(self._by(task_id) for task_id, state in states.items() if state is State.RUNNING)
        self._holds = [hold for hold in self._holds if _is_told(hold, states.get(hold.task_id), attempts)]

    def _by(self, task_id: str) -> LimitedBy:
        submission = self._checker.ledger.submitted[task_id]
        return submission.name, (submission.ties.key if submission.ties is not None else None) or ""


def _is_kept(start: Start, attempt: int) -> bool:
    """Whether a start counts after a restart. `attempt`: the last of its task that was committed."""
    return attempt == start.attempt or (attempt > start.attempt and not start.fleeting)


def _is_told(hold: Hold, state: State | None, attempts: Mapping[str, int]) -> bool:
    """Whether the end of the attempt that asked for it was committed."""
    attempt = attempts.get(hold.task_id, 0)
    return attempt > hold.attempt or (attempt == hold.attempt and state is not State.RUNNING)


def _longest(limits: TaskLimits) -> float:
    return max((rate.period for rate in limits.rates), default=0.0)
