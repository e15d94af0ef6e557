"""Judges uniqueness: a lock has one holder. And that who was turned away is not there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastworker.lifecycle import OPEN, Move, State
from fastworker.tasks import Task
from tests.simulation.ledger import short

if TYPE_CHECKING:
    from tests.simulation.checker import Checker


class LockJudge:
    """Locks of unique tasks."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._wanting: dict[str, list[str]] = defaultdict(list)  # by lock: all that were taken in
        self._since: dict[str, float] = {}
        self._started: set[str] = set()
        self._excused: set[str] = set()  # replaced, or ordered to run again whoever holds the lock

    def moved(self, task: Task, what: Move, before: State, now: float) -> None:
        """The engine has moved a task."""
        ties = self._checker.ledger.submitted[task.id].ties
        if before is State.NEW:
            refused = task.id in self._checker.ledger.rejected
            self._checker.require(not refused, f"{short(task.id)} was taken in though its client was told otherwise")
        if ties is None or ties.unique is None:
            return
        if before is State.NEW:
            self._taken_in(task, ties.unique, now)
        elif what is Move.START:
            self._started.add(task.id)
        elif what in (Move.REQUEUE, Move.AWAIT):
            self._excused.add(task.id)

    def _taken_in(self, task: Task, lock: str, now: float) -> None:
        ties = self._checker.ledger.submitted[task.id].ties
        holders = [other for other in self._wanting[lock] if other != task.id and self.holds(other, now)]
        if ties is not None and ties.on_duplicate == "replace":
            for holder in holders:
                self._replaced(holder)
        else:
            text = f"{short(task.id)} got the lock {lock!r} that {' and '.join(map(short, holders))} had"
            self._checker.require(not holders, text)
        self._wanting[lock].append(task.id)
        self._since[task.id] = now

    def _replaced(self, holder: str) -> None:
        """Another has its place. It has ended; or it runs, and was told to stop."""
        state = self._checker.state_of(holder)
        gone = state not in OPEN or state is State.RUNNING
        self._checker.require(gone, f"{short(holder)} was replaced and is still {state}")
        self._excused.add(holder)

    def is_replaced(self, task_id: str) -> bool:
        """Whether another task wants, or wanted, to take the place of this one."""
        ties = self._checker.ledger.submitted[task_id].ties
        return ties is not None and ties.unique is not None and self._checker.ledger.is_contested(ties.unique)

    def holds(self, task_id: str, now: float) -> bool:
        """Whether this task has its lock."""
        ties, state = self._checker.ledger.submitted[task_id].ties, self._checker.state_of(task_id)
        if ties is None or state is None or task_id in self._excused:
            return False
        match ties.unique_while:
            case "queued":
                return state in OPEN and task_id not in self._started
            case "running":
                return state in OPEN
            case seconds:
                lets_go = state in (State.CANCELLED, State.EXPIRED)
                return not lets_go and now < self._since[task_id] + seconds

    def turned_away(self, duplicates: Mapping[str, str], now: float) -> None:
        """The engine says that these want a lock which another task holds: id, and the id of the holder."""
        for task_id, holder in duplicates.items():
            known = self._checker.state_of(holder) is not None  # else it comes with the same request
            text = f"{short(task_id)} is turned away for {short(holder)}, which has no lock any more"
            self._checker.require(not known or self._may_hold(holder, now), text)

    def _may_hold(self, task_id: str, now: float) -> bool:
        ties, state = self._checker.ledger.submitted[task_id].ties, self._checker.state_of(task_id)
        kept = ties.unique_while if ties is not None else "running"
        restarted = self._checker.simulation.servers > 1  # a start that was not committed has not let go of a lock
        if isinstance(kept, str):
            again = kept == "running" or restarted or task_id in self._excused
            return state in OPEN and (again or self.holds(task_id, now))
        return now < self._since[task_id] + kept

    def stands_for(self, task_id: str, other: str) -> None:
        """A client was told that another task stands for this one."""
        submitted = self._checker.ledger.submitted
        lock, same = (ties.unique if (ties := submitted[which].ties) else None for which in (task_id, other))
        right = lock is not None and lock == same and other in self._since
        self._checker.require(right, f"{short(other)} stands for {short(task_id)}, with another lock or none")

    def recovered(self, states: Mapping[str, State]) -> None:
        """What was not committed never was."""
        for lock, wanting in self._wanting.items():
            self._wanting[lock] = [task_id for task_id in wanting if task_id in states]
