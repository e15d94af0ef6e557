"""The engine: decides everything, touches nothing.

No asyncio, sockets, disk or clock in here: every verb takes `now`, and a seeded `Random` is passed in. One event loop
owns the engine, so there are no locks. Each move of a task goes to the outbox, and the store, the waiting clients and
the followers all read the same outbox.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Final, Literal, NamedTuple

from fastworker.lifecycle import Move, Reason, State, move
from fastworker.protocol import Hello, Note, Order, Outcome, Submission, Token
from fastworker.retry import delay_before_retry
from fastworker.tasks import DEFAULTS, Backoff, ErrorInfo, Task
from fastworker_server.catalog import Catalog
from fastworker_server.lanes import Lanes
from fastworker_server.timers import Timers
from fastworker_server.workers import WorkerRecord

logger = logging.getLogger("fastworker.engine")

REMEMBERED: Final = 10_000
"""Ended tasks kept in memory, so that most late questions need no store."""
LONGEST_LOG: Final = 200

CancelOutcome = Literal["was_queued", "stopping", "already_done", "not_found"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The engine's settings; see `fastworker.settings.Settings`."""

    lease: float = 60.0
    silence: float = 10.0
    reconnect: float = 2.0
    recovery: float = 10.0
    max_crashes: int = 3


class Moved(NamedTuple):
    """One move of one task."""

    version: int
    task: Task
    before: State
    after: State
    at: float


class Engine:
    """The queue.

    Args:
        limits: durations and counts.
        random: for the jitter of retries.
        next_seq: the first free sequence number.
    """

    def __init__(self, limits: Limits, random: Random, next_seq: int = 1) -> None:
        self.limits = limits
        self.random = random
        self.tasks: dict[str, Task] = {}
        self.ended: dict[str, Task] = {}
        self.lanes = Lanes()
        self.timers = Timers()
        self.catalog = Catalog()
        self.workers: dict[str, WorkerRecord] = {}
        self.outbox: list[Moved] = []
        self.stops: list[tuple[WorkerRecord, Token]] = []
        self.counts = dict.fromkeys(State, 0)
        self.version = 0
        self.stale_reports = 0
        self.expected_workers: set[str] = set()
        self.recovering_until: float | None = None
        self._next_seq = next_seq
        self._spent: dict[str, int] = {}  # attempt numbers that workers named for tasks that are not known here

    # ---- submit --------------------------------------------------------------------------------------------------

    def submit(self, submission: Submission, now: float) -> Task | None:
        """Take a task in; None if its id is known already."""
        if submission.id in self.tasks or submission.id in self.ended:
            return None
        options = self.catalog.options(submission.name, submission.options)
        task = Task(
            seq=self._next_seq,
            id=submission.id,
            name=submission.name,
            args=submission.args,
            options=options,
            queue=options.queue or "default",
            rank=(options.priority or DEFAULTS.priority).rank,  # type: ignore[union-attr]
            submitted_at=now,
            headers=submission.headers,
        )
        self._next_seq += 1
        task.attempt = self._spent.pop(task.id, 0)
        self.tasks[task.id] = task
        if options.expires is not None:
            task.expires_at = now + options.expires
            self._set_expiry(task)
        due = options.eta if options.eta is not None else now + options.delay if options.delay else now
        if due > now:
            task.due_at = due
            self._move(task, Move.SCHEDULE, now)
            self._set_release(task)
        else:
            self._move(task, Move.SUBMIT, now)
            self.lanes.enqueue(task)
        return task

    # ---- dispatch ------------------------------------------------------------------------------------------------

    def dispatch(self, now: float) -> Iterable[tuple[WorkerRecord, Order]]:
        """Start what can be started, best first: each with the worker that is to run it."""
        if self.recovering_until is not None:
            return
        routes = list(self.lanes.routes())
        while routes:
            route, place = routes[0], routes[0].best()
            for other in routes[1:]:
                candidate = other.best()
                if candidate is not None and (place is None or candidate[:2] < place[:2]):
                    route, place = other, candidate
            if place is None:
                return
            rank, _, lane = place
            estimate = self.catalog.estimate(lane.key[1])
            ahead = estimate is not None and self.lanes.may_go_ahead(route, rank, estimate)
            worker = route.least_loaded(rank, estimate if ahead else None)
            if worker is None:
                routes.remove(route)
                continue
            yield worker, self._start(route.take(), worker, estimate, now)

    def _start(self, task: Task, worker: WorkerRecord, estimate: float | None, now: float) -> Order:
        task.attempt += 1
        task.worker = worker.name
        task.started_at = now
        task.cancelling = False
        worker.assign(task, estimate)
        self._move(task, Move.START, now)
        return Order(task.id, task.attempt, task.name, task.args, task.rank, task.options.timeout, task.headers)

    # ---- reports -------------------------------------------------------------------------------------------------

    def report(self, worker: WorkerRecord, outcomes: Sequence[Outcome], now: float) -> None:
        """Take in how attempts ended."""
        longest_wait = 0.0
        for outcome in outcomes:
            task = self.current(worker, outcome.id, outcome.attempt)
            if task is None:
                self._late(outcome, now)
                continue
            if task.started_at is not None:
                longest_wait = max(longest_wait, now - task.started_at - outcome.ran)
            self.catalog.observe(task.name, outcome.ran)
            worker.unassign(task)
            task.started_at = outcome.started
            self._conclude(task, worker, outcome, now)
        worker.waited(longest_wait)

    def current(self, worker: WorkerRecord, task_id: str, attempt: int) -> Task | None:
        """The task if this worker holds its current attempt: the fence against late reports."""
        task = worker.assigned.get(task_id)
        return task if task is not None and task.attempt == attempt else None

    def _conclude(self, task: Task, worker: WorkerRecord, outcome: Outcome, now: float) -> None:
        match outcome.status:
            case "succeeded":
                worker.finished += 1
                self.complete(task, outcome.result, now)
            case "cancelled":
                self._end(task, Move.CANCEL, now)
            case "retry":
                self._retry_later(task, outcome.after or 0.0, now)
            case status:
                worker.failed += 1
                reason = Reason.TIMEOUT if status == "timeout" else Reason.ERROR
                self.fail(task, reason, outcome.error, now, retryable=outcome.retryable)

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

    def _late(self, outcome: Outcome, now: float) -> None:
        """A report of an attempt that is no longer current. Its success still counts if the task is queued."""
        task = self.tasks.get(outcome.id)
        if task is not None and task.state is State.QUEUED and outcome.status == "succeeded":
            self.lanes.lane(task.queue, task.name).left(task)
            self.complete(task, outcome.result, now)
            return
        self.stale_reports += 1
        logger.info("ignored a late report: task %s attempt %d %s", outcome.id, outcome.attempt, outcome.status)

    def note(self, worker: WorkerRecord, note: Note) -> None:
        """What a running task says of itself."""
        task = self.current(worker, note.id, note.attempt)
        if task is None:
            return
        if note.progress is not None:
            task.progress = note.progress
        if note.log:
            task.log = [*(task.log or ()), *note.log][-LONGEST_LOG:]

    def hand_back(self, worker: WorkerRecord, token: Token, now: float, *, started: bool = False) -> None:
        """A worker gives an attempt back; one that was not started doesn't count."""
        task = self.current(worker, token.id, token.attempt)
        if task is None:
            return
        worker.unassign(task)
        if not started:
            task.attempt -= 1
            worker.stalled()
        if started and task.options.acks == "early":
            self._lose(task, now)
        else:
            self._queue_again(task, Move.HAND_BACK, now)

    def _lose(self, task: Task, now: float) -> None:
        """The worker of a running task is gone: the road of every crash."""
        task.crashes += 1
        if task.cancelling:
            self._end(task, Move.CANCEL, now)
        elif task.options.acks == "early" or task.crashes >= self.limits.max_crashes:
            task.reason = Reason.CRASHED
            task.error = ErrorInfo(
                "fastworker.WorkerLost", f"worker {task.worker} was lost under it; {task.crashes} in all"
            )
            self._end(task, Move.FAIL, now)
        else:
            self._queue_again(task, Move.LOSE, now)

    def _queue_again(self, task: Task, what: Move, now: float) -> None:
        if task.cancelling:
            self._end(task, Move.CANCEL, now)
            return
        task.worker = None
        task.recovering = False
        self._move(task, what, now)
        if not self._has_expired(task, now):
            self.lanes.enqueue(task, again=task.order > 0)

    # ---- orders of clients ---------------------------------------------------------------------------------------

    def cancel(self, task_id: str, now: float) -> CancelOutcome:
        """Cancel a task. `stopping`: it runs; its worker has been told, and its report will say how it ended."""
        task = self.tasks.get(task_id)
        if task is None:
            return "already_done" if task_id in self.ended else "not_found"
        if task.state is State.RUNNING:
            task.cancelling = True
            worker = self.workers.get(task.worker or "")
            if worker is not None:
                self.stops.append((worker, Token(task.id, task.attempt)))
            return "stopping"
        self._leave_lane(task)
        self._end(task, Move.CANCEL, now)
        return "was_queued"

    def requeue(self, task: Task, now: float) -> None:
        """Run a task again that has ended."""
        self.ended.pop(task.id, None)
        self.tasks[task.id] = task
        task.failures = task.crashes = 0
        task.result = task.reason = task.worker = task.finished_at = task.due_at = task.expires_at = None
        task.progress = task.log = None
        self._move(task, Move.REQUEUE, now)
        self.lanes.enqueue(task)

    # ---- workers -------------------------------------------------------------------------------------------------

    def join(self, hello: Hello, now: float) -> tuple[WorkerRecord, list[Token]]:
        """A worker introduces itself: its record, and the attempts that it holds in vain.

        One that comes back keeps what it still holds; what it had and does not hold any more goes back in the queue.
        """
        before = self.workers.get(hello.name)
        worker = WorkerRecord(
            hello.name, hello.host, hello.pid, hello.release, hello.slots, hello.own, hello.definitions, now
        )
        drop: list[Token] = []
        had = dict(before.assigned) if before is not None else {}
        if before is not None:
            self.timers.cancel(before.lost_timer)
            self.timers.cancel(before.lease_timer)
            worker.since, worker.finished, worker.failed = before.since, before.finished, before.failed
        for token in sorted(hello.holding, key=lambda token: -token.attempt):
            if not self._adopt(worker, token, now):
                drop.append(token)
        self.workers[worker.name] = worker
        self.catalog.learn(hello.definitions)
        self.lanes.reroute(self.workers.values())
        same_process = before is None or (before.host, before.pid) == (hello.host, hello.pid)
        for task in [*had.values(), *self._recovering_of(worker.name)]:
            if task.id not in worker.assigned and same_process and task.options.acks != "early":
                self._queue_again(task, Move.HAND_BACK, now)  # it never got there
            elif task.id not in worker.assigned:
                self._lose(task, now)
        worker.lease_timer = self.timers.at(now + self.limits.silence, self._check_lease, worker)
        self.expected_workers.discard(worker.name)
        if self.recovering_until is not None and not self.expected_workers:
            self._end_recovery(now)
        return worker, drop

    def _recovering_of(self, worker: str) -> list[Task]:
        """Tasks that were running at this worker when an earlier control plane ended, and that it does not hold."""
        if self.recovering_until is None:
            return []
        return [task for task in self.tasks.values() if task.recovering and task.worker == worker]

    def _adopt(self, worker: WorkerRecord, token: Token, now: float) -> bool:
        task = self.tasks.get(token.id)
        if task is None:
            self._spend(token)
            return False
        if task.state is State.RUNNING and task.attempt == token.attempt and task.worker == worker.name:
            worker.assign(task, self.catalog.estimate(task.name))
            task.recovering = False
            return True
        too_late = task.state is State.RUNNING and self.recovering_until is None
        if too_late or token.attempt <= task.attempt:
            return False
        # Started by the control plane that died, which had no time to write it down.
        task.attempt = token.attempt  # in any case: no other attempt may get this number
        if self.recovering_until is None:
            return False
        self._start_as_found(task, worker, now)
        return True

    def _spend(self, token: Token) -> None:
        """A worker has an attempt of an unknown task: if that is submitted again, its numbers go on from there."""
        if token.id not in self.ended and len(self._spent) < REMEMBERED:
            self._spent[token.id] = max(token.attempt, self._spent.get(token.id, 0))

    def _start_as_found(self, task: Task, worker: WorkerRecord, now: float) -> None:
        """A worker has an attempt of this task that we know nothing of, later than all that we know."""
        if task.state is State.RUNNING:  # an earlier attempt
            before = self.workers.get(task.worker or "")
            if before is not None:
                before.unassign(task)
        else:
            self._leave_lane(task)
            if task.state is not State.QUEUED:
                self.timers.cancel(task.release_timer)
                task.due_at = None
                self._move(task, Move.RELEASE, now)
            self._move(task, Move.START, now)
        task.worker = worker.name
        task.started_at = now
        task.recovering = False
        worker.assign(task, self.catalog.estimate(task.name))

    def heard(self, worker: WorkerRecord, now: float) -> None:
        """A worker has said something."""
        worker.last_heard = now
        if worker.silent and self.workers.get(worker.name) is worker:
            worker.silent = False
            self.timers.cancel(worker.lease_timer)  # it waits for the end of the lease: too late for the next silence
            worker.lease_timer = self.timers.at(now + self.limits.silence, self._check_lease, worker)

    def set_slots(self, worker: WorkerRecord, slots: int) -> None:
        """A worker wants more or fewer tasks at once; 0 while it drains."""
        worker.slots = slots
        self.lanes.reroute(self.workers.values())

    def disconnected(self, worker: WorkerRecord, now: float) -> None:
        """A worker's connection broke; it may come back."""
        worker.connected = False
        self.timers.cancel(worker.lost_timer)
        worker.lost_timer = self.timers.at(now + self.limits.reconnect, self.leave, worker)

    def reconnected(self, worker: WorkerRecord, now: float) -> None:
        """It came back, with its session."""
        worker.connected = True
        self.timers.cancel(worker.lost_timer)
        self.heard(worker, now)

    def leave(self, worker: WorkerRecord, now: float) -> None:
        """A worker is gone for good: its tasks are lost to it."""
        if self.workers.get(worker.name) is not worker:
            return
        del self.workers[worker.name]
        worker.connected = False
        self.timers.cancel(worker.lost_timer)
        self.timers.cancel(worker.lease_timer)
        self.lanes.reroute(self.workers.values())
        tasks = list(worker.assigned.values())
        if tasks:
            logger.warning("worker %s is lost: %d tasks go back in the queue", worker.name, len(tasks))
        for task in tasks:
            worker.unassign(task)
            self._lose(task, now)

    def _check_lease(self, worker: WorkerRecord, now: float) -> None:
        silent_for = now - worker.last_heard
        if silent_for >= self.limits.lease:
            logger.warning("worker %s has been silent for %.0f s", worker.name, silent_for)
            self.leave(worker, now)
            return
        worker.silent = silent_for >= self.limits.silence
        wait = (self.limits.lease if worker.silent else self.limits.silence) - silent_for
        worker.lease_timer = self.timers.at(now + max(wait, 0.01), self._check_lease, worker)

    # ---- recovery ------------------------------------------------------------------------------------------------

    def recover(self, tasks: Iterable[Task], workers: Iterable[str], now: float) -> None:
        """Take in the open tasks of an earlier control plane, and wait for the workers that it had.

        Until they are back, or `limits.recovery` seconds have passed, nothing is started: a queued task may be
        running at one of them.
        """
        running = False
        for task in tasks:
            self.tasks[task.id] = task
            self.counts[task.state] += 1
            if task.expires_at is not None:
                self._set_expiry(task)
            if task.state is State.QUEUED:
                self.lanes.enqueue(task)
            elif task.state is State.RUNNING:
                task.recovering = running = True
            elif task.due_at is not None:
                self._set_release(task)
        self.expected_workers = set(workers)
        if self.expected_workers or running:
            self.recovering_until = now + self.limits.recovery
            self.timers.at(self.recovering_until, self._end_recovery)
            if not self.expected_workers:
                self._end_recovery(now)

    def not_expected(self, worker: str, now: float) -> None:
        """A worker of the earlier control plane is known to be dead."""
        self.expected_workers.discard(worker)
        if self.recovering_until is not None and not self.expected_workers:
            self._end_recovery(now)

    def _end_recovery(self, now: float) -> None:
        if self.recovering_until is None:
            return
        self.recovering_until = None
        self.expected_workers.clear()
        for task in [task for task in self.tasks.values() if task.recovering]:
            task.recovering = False
            self._lose(task, now)

    # ---- time ----------------------------------------------------------------------------------------------------

    def _set_release(self, task: Task) -> None:
        if task.due_at is not None:
            task.release_timer = self.timers.at(task.due_at, self._release, task)

    def _release(self, task: Task, now: float) -> None:
        task.due_at = None
        self._move(task, Move.RELEASE, now)
        self.lanes.enqueue(task)

    def _set_expiry(self, task: Task) -> None:
        if task.expires_at is not None:
            task.expiry_timer = self.timers.at(task.expires_at, self._expire, task)

    def _expire(self, task: Task, now: float) -> None:
        if task.state is State.RUNNING:
            return  # it was started in time
        self._leave_lane(task)
        self._end(task, Move.EXPIRE, now)

    def _has_expired(self, task: Task, now: float) -> bool:
        """Whether the time of a task ran out while it ran. Then it has ended: it must not start any more."""
        if task.expires_at is None or now < task.expires_at:
            return False
        self._end(task, Move.EXPIRE, now)
        return True

    # ---- moves ---------------------------------------------------------------------------------------------------

    def _leave_lane(self, task: Task) -> None:
        if task.state is State.QUEUED:
            self.lanes.lane(task.queue, task.name).left(task)

    def _end(self, task: Task, what: Move, now: float) -> None:
        task.finished_at = now
        task.due_at = None
        del self.tasks[task.id]
        self.ended[task.id] = task
        self.timers.cancel(task.release_timer)
        self.timers.cancel(task.expiry_timer)
        task.release_timer = task.expiry_timer = None
        self._move(task, what, now)

    def _move(self, task: Task, what: Move, now: float) -> None:
        before = task.state
        move(task, what)
        after = task.state
        self.counts[before] -= 1
        self.counts[after] += 1
        self.version += 1
        task.version = self.version
        self.outbox.append(Moved(self.version, task, before, after, now))

    def forget_ended(self, stored_version: int) -> None:
        """Drop the oldest ended tasks from memory, as far as the store has them."""
        for task in list(islice(self.ended.values(), max(0, len(self.ended) - REMEMBERED))):
            if task.version <= stored_version:
                del self.ended[task.id]
