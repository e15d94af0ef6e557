"""Judges dependencies: who waits for whom, when it is over, and what a task gets of those that it needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic_core import from_json

from fastworker.lifecycle import TERMINAL, Move, Reason, State
from fastworker.protocol import Order
from fastworker.tasks import Task, Ties
from fastworker.upstream import fill_in
from tests.simulation.inputs import End, arguments, matches
from tests.simulation.ledger import short

if TYPE_CHECKING:
    from tests.simulation.checker import Checker


@dataclass
class Wait:
    """A task that waits: what it has got, and what it still waits for."""

    missing: set[str]
    got: dict[str, End] = field(default_factory=dict)
    spoilt_by: str | None = None
    """The task that did not succeed, though this one needs its success."""


class GraphJudge:
    """Tasks that need others."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._ends: dict[str, End] = {}
        self._waits: dict[str, Wait] = {}
        self._waiting_for: dict[str, set[str]] = defaultdict(set)
        self._inputs: dict[str, list[dict[str, End]]] = defaultdict(list)  # all that a task was released with
        self._because: dict[str, str] = {}  # failed only because of that one, in this life of the control plane
        self._reviving: dict[
            str, dict[str, int]
        ] = {}  # what runs again; who is to go with it, and how often it did before
        self._due: set[str] = set()

    def ties(self, task_id: str) -> Ties | None:
        """What was submitted."""
        return self._checker.ledger.submitted[task_id].ties

    def needs(self, task_id: str) -> tuple[str, ...]:
        """What a task needs."""
        ties = self.ties(task_id)
        return ties.needs if ties is not None else ()

    def workflow(self, task_id: str) -> str | None:
        """To which workflow a task belongs."""
        ties = self.ties(task_id)
        if ties is None or ties.workflow is not None or not ties.needs:
            return ties.workflow if ties is not None else None
        return self.workflow(ties.needs[0]) or ties.needs[0]

    # ---- moves ---------------------------------------------------------------------------------------------------

    def moved(self, task: Task, what: Move, before: State) -> None:
        """The engine has moved a task."""
        if before is State.NEW:
            rightly = (what is Move.AWAIT) == bool(self.needs(task.id))
            self._checker.require(rightly, f"{short(task.id)} needs {len(self.needs(task.id))} and was sent to {what}")
        if before is State.WAITING:
            self._waits_no_more(task, what)
        elif what is Move.REQUEUE and self.needs(task.id):
            self._checker.require(bool(self._inputs[task.id]), f"{short(task.id)} was requeued without its inputs")
        if what is Move.AWAIT:
            self._begins_to_wait(task.id, self._ends)
        if task.state in TERMINAL:
            self._ended(End(task.id, task.name, task.state, task.result))
        elif before in TERMINAL:
            del self._ends[task.id]
            self._because.pop(task.id, None)

    def _begins_to_wait(self, task_id: str, ends: Mapping[str, End]) -> None:
        wait = self._waits[task_id] = Wait({need for need in self.needs(task_id) if need not in ends})
        for need in wait.missing:
            self._waiting_for[need].add(task_id)
        for need in self.needs(task_id):
            if need in ends:
                self._takes(task_id, wait, ends[need])
        self._settle(task_id, wait)

    def _takes(self, task_id: str, wait: Wait, end: End) -> None:
        ties = self.ties(task_id)
        wait.got[end.task_id] = end
        if end.state is not State.SUCCEEDED and ties is not None and ties.on_upstream_failure == "fail":
            wait.spoilt_by = wait.spoilt_by or end.task_id

    def _settle(self, task_id: str, wait: Wait) -> None:
        if not wait.missing or wait.spoilt_by is not None:
            self._due.add(task_id)

    def _ended(self, end: End) -> None:
        self._ends[end.task_id] = end
        for waiting in self._waiting_for.pop(end.task_id, ()):
            wait = self._waits.get(waiting)
            if wait is not None and end.task_id in wait.missing:
                wait.missing.discard(end.task_id)
                self._takes(waiting, wait, end)
                self._settle(waiting, wait)

    def _waits_no_more(self, task: Task, what: Move) -> None:
        wait = self._waits.pop(task.id)
        self._due.discard(task.id)
        name = short(task.id)
        if what is Move.FAIL:
            right = task.reason is Reason.UPSTREAM and wait.spoilt_by is not None
            self._checker.require(right, f"{name} failed before its start, but what it needs has not")
            self._because[task.id] = wait.spoilt_by or ""
        elif what in (Move.RELEASE, Move.SCHEDULE) and not self._checker.adopting:
            missing = ", ".join(map(short, sorted(wait.missing)))
            self._checker.require(not wait.missing, f"{name} waits no more, but {missing} has not ended")
            failed = f"{name} waits no more though it needs {short(wait.spoilt_by)}" if wait.spoilt_by else ""
            self._checker.require(not failed, failed)
            self._inputs[task.id].append(wait.got)

    def revives(self, task_id: str, remembered: Container[str]) -> None:
        """A task is to run again: those that failed only because of it are to go with it."""
        requeues = self._checker.ledger.requeues
        with_it = [other for other, because in self._because.items() if because == task_id and other in remembered]
        self._reviving[task_id] = {other: requeues[other] for other in with_it}

    def revived(self) -> None:
        """Now they should."""
        for task_id, others in self._reviving.items():
            for other, before in others.items():
                went = self._checker.ledger.requeues[other] > before
                self._checker.require(went, f"{short(other)} failed only because of {short(task_id)}, which runs again")
        self._reviving.clear()

    def may_revive(self, task_id: str) -> bool:
        """Whether a task runs again only because one does that it needs."""
        return self._because.get(task_id, "nobody") in self._reviving

    def check_step(self) -> None:
        """After each step of the control plane: nobody waits for what has ended."""
        for task_id in sorted(self._due):
            self._checker.fail(f"{short(task_id)} waits although all that it needs has ended")

    # ---- recovery ------------------------------------------------------------------------------------------------

    def recovered(self, stored: Mapping[str, Task]) -> None:
        """A new control plane goes on from what was committed."""
        ended = [task for task in stored.values() if task.state in TERMINAL]
        self._ends = {task.id: End(task.id, task.name, task.state, task.result) for task in ended}
        self._waits.clear()
        self._waiting_for.clear()
        self._because.clear()
        self._due.clear()
        for task in stored.values():
            if task.state is State.WAITING:
                self._begins_to_wait(task.id, self._ends)

    # ---- what it gets --------------------------------------------------------------------------------------------

    def executes(self, order: Order) -> None:
        """A worker starts to run a task's code: with what it needs in its arguments."""
        ties = self.ties(order.id)
        if ties is None or not ties.needs:
            return
        filled = from_json(fill_in(order.args, order.inputs, order.name) if order.inputs else order.args)
        template = from_json(order.args)
        released_with = self._inputs[order.id]
        right = any(matches(filled, arguments(template, got, ties.on_upstream_failure)) for got in released_with)
        self._checker.require(right, f"{short(order.id)}/{order.attempt} got wrong inputs: {filled}")
