"""Uniqueness: which task holds which lock. A lock lives in its task and dies with it, so none is ever stale."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from fastworker.lifecycle import State
from fastworker.tasks import Task
from fastworker_server.timers import NEVER

_SWEEP_FROM: Final = 10_000


class Lock(NamedTuple):
    """Who holds a lock, and until when (`NEVER`: until it lets go)."""

    task_id: str
    until: float


class Locks:
    """All locks, by name."""

    def __init__(self) -> None:
        self._locks: dict[str, Lock] = {}
        self._sweep_at = _SWEEP_FROM

    def holder(self, name: str | None, now: float) -> str | None:
        """The id of the task that holds this lock."""
        lock = self._locks.get(name) if name is not None else None
        return lock.task_id if lock is not None and lock.until > now else None

    def take(self, task: Task, now: float) -> None:
        """A task has been taken in, and wants its lock."""
        if task.ties.unique is not None and unique_until(task) > now:
            self._sweep(now)
            self._locks[task.ties.unique] = Lock(task.id, unique_until(task))

    def recover(self, task: Task, now: float) -> None:
        """An open task of an earlier control plane still has its lock, unless it has been started."""
        if task.ties.unique_while != "queued" or not task.attempt:
            self.take(task, now)

    def restore(self, locks: Iterable[tuple[str, str, float]]) -> None:
        """Locks of ended tasks, as an earlier control plane has left them: name, task id, until when."""
        for name, task_id, until in locks:
            self._locks.setdefault(name, Lock(task_id, until))

    def started(self, task: Task) -> None:
        """A task is not queued any more."""
        if task.ties.unique_while == "queued":
            self._let_go(task)

    def ended(self, task: Task) -> None:
        """A task has ended. One that never ran holds no lock for a time either."""
        if isinstance(task.ties.unique_while, str) or task.state in (State.CANCELLED, State.EXPIRED):
            self._let_go(task)

    def _let_go(self, task: Task) -> None:
        name = task.ties.unique
        if name is not None and self._locks.get(name, Lock("", NEVER)).task_id == task.id:
            del self._locks[name]

    def _sweep(self, now: float) -> None:
        if len(self._locks) >= self._sweep_at:
            self._locks = {name: lock for name, lock in self._locks.items() if lock.until > now}
            self._sweep_at = max(_SWEEP_FROM, 2 * len(self._locks))


def unique_until(task: Task) -> float:
    """When the lock of a task ends by itself (`NEVER`: only with the task)."""
    kept = task.ties.unique_while
    return NEVER if isinstance(kept, str) else task.submitted_at + kept
