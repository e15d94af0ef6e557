"""Judges fair shares: while two tenants both have tasks queued, neither gets more than three turns in a row."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastworker.lifecycle import Move, State
from fastworker.tasks import Task
from fastworker_server.turns import AHEAD
from tests.simulation.ledger import short

if TYPE_CHECKING:
    from tests.simulation.checker import Checker

FAIR = "fair"
"""The one task name with fair keys: nowhere else can its tenants have had a turn."""
IN_A_ROW = 3
"""Turns between two of another tenant: start-time fair queueing promises two, and who comes anew is one turn ahead."""


@dataclass
class Line:
    """The queued tasks of one queue and rank."""

    queued: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    withdrawn: Counter[str] = field(default_factory=Counter)
    """By tenant: turns that nobody took, since their tasks have left the queue otherwise."""
    passed: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By waiting tenant: the turns of each other one since its own last."""
    moved_on: int = 0
    """By how much tenants that are forgotten have made the numbers of those move on who come anew."""


class TurnJudge:
    """Turns of tenants."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._lines: dict[tuple[str, int], Line] = defaultdict(Line)
        self._place: dict[str, tuple[str, int]] = {}
        self._has_turn: set[str] = set()
        self._gave_back: set[str] = set()
        self._dispatched: str | None = None

    def starts(self, task: Task) -> None:
        """The engine is about to dispatch this task."""
        self._dispatched = task.id

    def moved(self, task: Task, what: Move, before: State) -> None:
        """The engine has moved a task."""
        if task.name != FAIR:
            return
        if before is State.QUEUED:
            self._leaves(task, taken=what is Move.START and task.id == self._dispatched)
        if task.state is State.QUEUED:
            self._queued(task, again=what in (Move.HAND_BACK, Move.LOSE) and task.id in self._has_turn)

    def reprioritised(self, task: Task, rank: int) -> None:
        """A queued task has gone over to another line."""
        if task.id in self._place:
            self._leaves(task, taken=False)
            self._queued(task, again=False, rank=rank)

    def swept(self, rank: int) -> None:
        """The engine has forgotten tenants of this rank."""
        for (_, other), line in self._lines.items():
            if other == rank and any(line.queued.values()):
                line.moved_on += 1 + AHEAD

    def recovered(self) -> None:
        """A new control plane gives out turns anew."""
        self._lines.clear()
        self._place.clear()
        self._has_turn.clear()
        self._gave_back.clear()

    def queue_again(self, task: Task) -> None:
        """A new control plane has queued a task that it found so."""
        if task.name == FAIR and task.state is State.QUEUED:
            self._queued(task, again=False)

    def _tenant(self, task: Task) -> str:
        ties = self._checker.ledger.submitted[task.id].ties
        return (ties.fair_key if ties is not None else None) or ""

    def _queued(self, task: Task, *, again: bool, rank: int | None = None) -> None:
        place = (task.queue, self._checker.rank(task.id) if rank is None else rank)
        line, tenant = self._lines[place], self._tenant(task)
        if not any(line.queued.values()):
            line.moved_on = 0
        if not line.queued[tenant]:
            line.passed[tenant].clear()
        line.queued[tenant].add(task.id)
        self._place[task.id] = place
        self._has_turn.add(task.id)
        (self._gave_back.add if again else self._gave_back.discard)(task.id)

    def _leaves(self, task: Task, *, taken: bool) -> None:
        line, tenant = self._lines[self._place.pop(task.id)], self._tenant(task)
        line.queued[tenant].discard(task.id)
        if not taken:
            line.withdrawn[tenant] += 1
        elif task.id not in self._gave_back:  # else it had its turn before
            self._turn(line, tenant, task)

    def _turn(self, line: Line, tenant: str, task: Task) -> None:
        line.passed[tenant].clear()
        for other, queued in line.queued.items():
            if queued and other != tenant:
                line.passed[other][tenant] += 1
                turns = line.passed[other][tenant]
                allowed = IN_A_ROW + line.withdrawn[other] + line.moved_on
                text = f"{short(task.id)}: {tenant} had {turns} turns while {other} waited for one"
                self._checker.require(turns <= allowed, text)
