"""The queue: tasks and their moves, without workers.

No asyncio, sockets, disk or clock in here: every verb takes `now`, and a seeded `Random` is passed in. Each move of a
task goes to the outbox, and the store, the waiting clients and the followers all read the same outbox.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from typing import Final, NamedTuple

from fastworker.lifecycle import Move, Reason, State, move
from fastworker.protocol import Submission
from fastworker.retry import delay_before_retry
from fastworker.tasks import DEFAULTS, NO_TIES, Attempt, Backoff, ErrorInfo, Options, Priority, Task, Ties
from fastworker_server.catalog import Catalog
from fastworker_server.dependencies import Dependencies, input_of, too_large
from fastworker_server.lanes import Lanes
from fastworker_server.limits import Limits
from fastworker_server.locks import Locks
from fastworker_server.timers import Timers

logger = logging.getLogger("fastworker.engine")

REMEMBERED: Final = 10_000
"""Ended tasks kept in memory, so that most late questions need no store."""
LONGEST_HISTORY: Final = 20
HISTORY_TRACEBACK: Final = 8_000
"""Characters of a traceback in the history; the last one is kept whole."""
_OUTCOMES: Final = {Reason.TIMEOUT: "timeout", Reason.CRASHED: "crashed"}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the engine waits for what; see `fastworker.settings.Settings`."""

    lease: float = 60.0
    silence: float = 10.0
    reconnect: float = 2.0
    recovery: float = 10.0
    max_crashes: int = 3


class Moved(NamedTuple):
    """One move of one task; with `was`, the queue and rank that it had until now, it was moved there, too."""

    version: int
    task: Task
    before: State
    after: State
    at: float
    queue: str
    rank: int
    was: tuple[str, int] | None = None


class Queue:
    """Tasks and their moves.

    Args:
        patience: durations and counts.
        random: for the jitter of retries.
        next_seq: the first free sequence number.
    """

    def __init__(self, patience: Patience, random: Random, next_seq: int = 1) -> None:
        self.patience = patience
        self.random = random
        self.tasks: dict[str, Task] = {}
        self.ended: dict[str, Task] = {}
        self.timers = Timers()
        self.limits = Limits(self.timers)
        self.lanes = Lanes(self.limits)
        self.locks = Locks()
        self.dependencies = Dependencies()
        self.catalog = Catalog()
        self.outbox: list[Moved] = []
        self.counts = dict.fromkeys(State, 0)
        self.version = 0
        self._next_seq = next_seq
        self._spent: dict[str, int] = {}  # attempt numbers that workers named for tasks that are not known here
        self._incomplete: dict[str, dict[str, Task]] = {}  # by name: tasks whose definition is not known yet
        self._settling: deque[Task] = deque()

    # ---- submit --------------------------------------------------------------------------------------------------

    def submit(self, submission: Submission, now: float) -> Task | None:
        """Take a task in; None if its id is known already. The tasks that it needs must be known."""
        if self.knows(submission.id):
            return None
        task = self._new_task(submission, now)
        self.tasks[task.id] = task
        self._note_if_incomplete(task)
        self.locks.take(task, now)
        self.dependencies.joined(task)
        if task.expires_at is not None:
            self._set_expiry(task)
        if task.ties.needs:
            self._move(task, Move.AWAIT, now)
            self._collect(task, now)
        else:
            self._place(task, Move.SUBMIT, now)
        return task

    def knows(self, task_id: str) -> bool:
        """Whether a task is open, or has ended lately."""
        return task_id in self.tasks or task_id in self.ended

    def remember(self, ended: Iterable[Task]) -> None:
        """Tasks that the store still has are needed here."""
        for task in ended:
            if not self.knows(task.id):
                self.ended[task.id] = task

    def _new_task(self, submission: Submission, now: float) -> Task:
        options = self.catalog.options(submission.name, submission.options)
        task = Task(
            seq=self._next_seq,
            id=submission.id,
            name=submission.name,
            args=submission.args,
            options=options,
            queue=options.queue or "default",
            rank=_rank(options),
            submitted_at=now,
            headers=submission.headers,
            expires_at=now + options.expires if options.expires is not None else None,
            ties=self._complete_ties(submission.ties) if submission.ties is not None else NO_TIES,
            attempt=self._spent.pop(submission.id, 0),
            due_at=_due(options, now),
        )
        self._next_seq += 1
        return task

    def _note_if_incomplete(self, task: Task) -> None:
        if not self.catalog.is_complete(task.options):
            self._incomplete.setdefault(task.name, {})[task.id] = task

    def complete_options(self, names: Iterable[str], now: float) -> None:
        """The definitions of these names are known now: what they say holds for the tasks that waited for them, too."""
        for name in names:
            for task in self._incomplete.pop(name, {}).values():
                before, task.options = task.options, self.catalog.options(name, task.options)
                if task.options != before.over(DEFAULTS):
                    self._options_changed(task, before, now)

    def _options_changed(self, task: Task, before: Options, now: float) -> None:
        queue, rank, was = task.options.queue or "default", _rank(task.options), (task.queue, task.rank)
        if before.expires is None and task.options.expires is not None:  # else it was set, or a requeue has ended it
            task.expires_at = task.submitted_at + task.options.expires
            self._set_expiry(task)
        if (queue, rank) != was:
            self._leave_lane(task, now)
            again = rank == task.rank
            task.queue, task.rank = queue, rank
            if task.state is State.QUEUED:
                self.lanes.enqueue(task, now, again=again)
        task.rewrite = True
        self._tell(task, task.state, now, was)

    def _complete_ties(self, ties: Ties) -> Ties:
        """A task that needs another one belongs to its workflow."""
        if not ties.needs or ties.workflow is not None:
            return ties
        first = ties.needs[0]
        needed = self.tasks.get(first) or self.ended.get(first)
        return replace(ties, workflow=(needed.ties.workflow if needed is not None else None) or first)

    def _place(self, task: Task, what: Move, now: float) -> None:
        """Queue it; or set it aside until it is due."""
        if task.due_at is not None and task.due_at > now:
            self._move(task, Move.SCHEDULE, now)
            self._set_release(task)
        else:
            task.due_at = None
            self._move(task, what, now)
            self.lanes.enqueue(task, now)

    # ---- what it needs -------------------------------------------------------------------------------------------

    def _collect(self, task: Task, now: float) -> None:
        """Take the results of the tasks that it needs, and wait for the others."""
        task.inputs = {}
        task.missing = 1  # so that it can't be complete before all have been looked at
        for needed in task.ties.needs:
            if needed in self.tasks:
                self.dependencies.add(task, needed)
            elif not self._take_input(task, needed, now):
                return
        task.missing -= 1
        self._release_if_complete(task, now)

    def _take_input(self, task: Task, needed: str, now: float) -> bool:
        got = input_of(task, self.ended.get(needed))
        if isinstance(got, ErrorInfo):
            self._fail_upstream(task, got, needed, now)
            return False
        if task.inputs is not None:
            task.inputs[needed] = got
        return True

    def _release_if_complete(self, task: Task, now: float) -> None:
        if task.missing or task.state is not State.WAITING:
            return
        error = too_large(task)
        if error is not None:
            self._fail_upstream(task, error, None, now)
        else:
            self._place(task, Move.RELEASE, now)

    def _fail_upstream(self, task: Task, error: ErrorInfo, because: str | None, now: float) -> None:
        task.error = error
        task.reason = Reason.UPSTREAM
        task.inputs = None
        if because is not None:
            self.dependencies.failed(task, because)
        self._end(task, Move.FAIL, now)

    def _settle(self, ended: Task, now: float) -> None:
        """Tell those that waited for it. In a loop, not in itself: chains may be long."""
        self._settling.append(ended)
        if len(self._settling) > 1:
            return
        while self._settling:
            settled = self._settling[0]
            for task in self.dependencies.waiting_for(settled):
                if self._take_input(task, settled.id, now):
                    self._release_if_complete(task, now)
            self._settling.popleft()

    # ---- how attempts end ----------------------------------------------------------------------------------------

    def complete(self, task: Task, result: str | None, now: float) -> None:
        """The task succeeded."""
        task.result = result
        task.error = None
        task.reason = None
        self._end(task, Move.COMPLETE, now)

    def fail(self, task: Task, reason: Reason, error: ErrorInfo | None, now: float, *, retryable: bool = True) -> None:
        """An attempt raised or ran out of time: try again later if retries are left, else the task has failed."""
        task.failures += 1
        task.error = error
        self._note_attempt(task, _OUTCOMES.get(reason, "failed"), now)
        if task.cancelling:
            self._end(task, Move.CANCEL, now)
        elif retryable and task.failures <= (task.options.retries or 0):
            backoff = task.options.backoff or Backoff()
            self._retry_later(task, delay_before_retry(backoff, task.failures, self.random), now)
        else:
            task.reason = reason
            self._end(task, Move.FAIL, now)

    def _retry_later(self, task: Task, delay: float, now: float) -> None:
        task.worker = None
        task.due_at = now + delay
        self._move(task, Move.RETRY, now)
        if not self._has_expired(task, now):
            self._set_release(task)

    def _lose(self, task: Task, now: float) -> None:
        """The worker of a running task is gone: the road of every crash."""
        task.crashes += 1
        lost = f"worker {task.worker} was lost under it; {task.crashes} in all"
        error = ErrorInfo("fastworker.WorkerLost", lost)
        self._note_attempt(task, "crashed", now, error)
        if task.cancelling:
            self._end(task, Move.CANCEL, now)
        elif task.options.acks == "early" or task.crashes >= self.patience.max_crashes:
            task.reason = Reason.CRASHED
            task.error = error
            self._end(task, Move.FAIL, now)
        else:
            self._queue_again(task, Move.LOSE, now)

    def _note_attempt(self, task: Task, outcome: str, now: float, error: ErrorInfo | None = None) -> None:
        error = error or task.error
        if error is not None and len(error.traceback) > HISTORY_TRACEBACK:
            error = replace(error, traceback=error.traceback[-HISTORY_TRACEBACK:])
        attempt = Attempt(task.attempt, task.worker or "", task.started_at or now, now, outcome, error, task.pid)
        task.history = (*task.history, attempt)[-LONGEST_HISTORY:]

    def _queue_again(self, task: Task, what: Move, now: float) -> None:
        if task.cancelling:
            self._end(task, Move.CANCEL, now)
            return
        task.worker = None
        self._move(task, what, now)
        if not self._has_expired(task, now):
            self.lanes.enqueue(task, now, again=task.order > 0)

    # ---- orders of clients ---------------------------------------------------------------------------------------

    def withdraw(self, task: Task, now: float) -> None:
        """Cancel a task that does not run."""
        self._leave_lane(task, now)
        self._end(task, Move.CANCEL, now)

    def requeue(self, task: Task, now: float, args: str | None = None) -> None:
        """Run a task again that has ended, and those that failed only because of it.

        Args:
            args: other arguments than before, as JSON.
        """
        if args is not None:
            task.args = args
            task.rewrite = True
        for other in self._with_those_that_failed_so(task):
            self.dependencies.no_longer_failed(other.id)
            self._begin_again(other, now)

    def missing_to_requeue(self, task: Task) -> list[str]:
        """Of what this task needs, and those that are to run again with it: what has ended and is not known here."""
        together = [other for other in self._with_those_that_failed_so(task) if _is_incomplete(other)]
        return [need for other in together for need in other.ties.needs if not self.knows(need)]

    def _with_those_that_failed_so(self, task: Task) -> list[Task]:
        """It, and the ended ones that failed only because of it; a loop, because chains may be long."""
        found = {task.id: task}
        waiting = deque([task])
        while waiting:
            for other in self.dependencies.failed_because_of(waiting.popleft().id):
                if other.id in self.ended and other.id not in found:
                    found[other.id] = other
                    waiting.append(other)
        return list(found.values())

    def _begin_again(self, task: Task, now: float) -> None:
        if task.id in self.tasks:
            return
        self.ended.pop(task.id, None)
        self.tasks[task.id] = task
        task.rewrite |= task.expires_at is not None
        incomplete = _is_incomplete(task)
        task.failures = task.crashes = 0
        task.result = task.reason = task.worker = task.finished_at = task.due_at = task.expires_at = None
        task.progress = task.sealed_progress = task.log = None
        task.cancelling = False
        if self.locks.holder(task.ties.unique, now) is None:  # nobody loses a lock by that
            self.locks.take(task, now)
        self.dependencies.joined(task)
        if incomplete and task.state is not State.SUCCEEDED:
            self._move(task, Move.AWAIT, now)
            self._collect(task, now)
        else:
            self._move(task, Move.REQUEUE, now)
            self.lanes.enqueue(task, now)

    def reprioritise(self, task_id: str, priority: Priority, now: float) -> bool | None:
        """Give an open task another priority; one that runs has it if it is queued again.

        Returns:
            False if the task has ended, None if it is not known here.
        """
        task = self.tasks.get(task_id)
        if task is None:
            return False if task_id in self.ended else None
        was = (task.queue, task.rank)
        self._leave_lane(task, now)
        task.rank = priority.rank
        task.options = replace(task.options, priority=priority)  # said now: no definition may unsay it
        task.rewrite = True
        if task.state is State.QUEUED:
            self.lanes.enqueue(task, now)
        self._tell(task, task.state, now, was)
        return True

    # ---- limits --------------------------------------------------------------------------------------------------

    def limits_changed(self, names: Iterable[str], now: float) -> None:
        """The limits of these names are others now."""
        changed: dict[str, Counter[str]] = {name: Counter() for name in names}
        if not changed:
            return
        for task in self._running():
            if task.name in changed:
                changed[task.name][task.ties.key or ""] += 1
        self.limits.change(changed, now)
        self.lanes.bind(changed, now)

    def hold_lane(self, task: Task, seconds: float, now: float) -> None:
        """No task of this task's name and key is to start for so long."""
        limit = self.limits.get(task.name, task.ties.key)
        if limit is None:
            limit = self.limits.add(task.name, task.ties.key, now)
            self.lanes.bind([task.name], now)
        self.limits.hold(limit, now + seconds, now)

    def _running(self) -> Sequence[Task]:
        return [task for task in self.tasks.values() if task.state is State.RUNNING]

    # ---- time ----------------------------------------------------------------------------------------------------

    def _set_release(self, task: Task) -> None:
        if task.due_at is not None:
            task.release_timer = self.timers.at(task.due_at, self._release, task)

    def _release(self, task: Task, now: float) -> None:
        task.due_at = None
        self._move(task, Move.RELEASE, now)
        self.lanes.enqueue(task, now)

    def _set_expiry(self, task: Task) -> None:
        if task.expires_at is not None:
            task.expiry_timer = self.timers.at(task.expires_at, self._expire, task)

    def _expire(self, task: Task, now: float) -> None:
        if task.state is State.RUNNING:
            return  # it was started in time
        self._leave_lane(task, now)
        self._end(task, Move.EXPIRE, now)

    def _has_expired(self, task: Task, now: float) -> bool:
        """Whether the time of a task ran out while it ran. Then it has ended: it must not start any more."""
        if task.expires_at is None or now < task.expires_at:
            return False
        self._end(task, Move.EXPIRE, now)
        return True

    # ---- moves ---------------------------------------------------------------------------------------------------

    def _leave_lane(self, task: Task, now: float) -> None:
        if task.state is State.QUEUED:
            self.lanes.lane(task, now).left(task)

    def _end(self, task: Task, what: Move, now: float) -> None:
        task.finished_at = now
        task.due_at = None
        del self.tasks[task.id]
        self.ended[task.id] = task
        self.timers.cancel(task.release_timer)
        self.timers.cancel(task.expiry_timer)
        task.release_timer = task.expiry_timer = None
        self._move(task, what, now)
        if not self.catalog.is_complete(task.options):
            self._incomplete.get(task.name, {}).pop(task.id, None)
        if task.ties is not NO_TIES:
            self.locks.ended(task)
            self.dependencies.left(task)
        if self.dependencies.is_needed(task.id):
            self._settle(task, now)

    def _move(self, task: Task, what: Move, now: float) -> None:
        before = task.state
        move(task, what)
        after = task.state
        self.counts[before] -= 1
        self.counts[after] += 1
        if after is State.RUNNING:
            self.locks.started(task)
            self.limits.started(task.name, task.ties.key, now)
        elif before is State.RUNNING:
            task.recovering = False
            self.limits.stopped(task.name, task.ties.key, now)
        self._tell(task, before, now)

    def _tell(self, task: Task, before: State, now: float, was: tuple[str, int] | None = None) -> None:
        self.version += 1
        task.version = self.version
        self.outbox.append(Moved(self.version, task, before, task.state, now, task.queue, task.rank, was))

    def forget_ended(self, stored_version: int) -> None:
        """Drop the oldest ended tasks from memory, as far as the store has them."""
        for task in list(islice(self.ended.values(), max(0, len(self.ended) - REMEMBERED))):
            if task.version <= stored_version:
                del self.ended[task.id]
                if task.ties.needs:
                    self.dependencies.forget(task)


def _is_incomplete(task: Task) -> bool:
    """Whether it has ended before it had all that it needs."""
    return not set(task.ties.needs) <= set(task.inputs or ())


def _rank(options: Options) -> int:
    return (options.priority or Priority.NORMAL).rank


def _due(options: Options, now: float) -> float | None:
    """The moment before which a task must not start, if that lies ahead."""
    due = options.eta if options.eta is not None else now + options.delay if options.delay else now
    return due if due > now else None
