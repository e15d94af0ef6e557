"""The engine: decides everything, touches nothing.

One event loop owns the engine, so there are no locks. `fastworker_server.queue` has the tasks and their moves; here are
the workers: who gets which task, and what becomes of the tasks of a worker that is lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from random import Random
from typing import Final, Literal

from fastworker.lifecycle import Move, Reason, State
from fastworker.protocol import Hello, Note, Order, Outcome, Submission, Token
from fastworker.tasks import Priority, Task
from fastworker_server.queue import REMEMBERED, Patience, Queue
from fastworker_server.workers import WorkerPlace, WorkerRecord

logger = logging.getLogger("fastworker.engine")

LONGEST_LOG: Final = 200
MOST_MEMORY: Final = 2**50

CancelOutcome = Literal["was_queued", "stopping", "already_done", "not_found"]


_REASONS: Final = {"timeout": Reason.TIMEOUT, "crashed": Reason.CRASHED}


class Engine(Queue):
    """The queue and its workers."""

    def __init__(self, patience: Patience, random: Random, next_seq: int = 1) -> None:
        super().__init__(patience, random, next_seq)
        self.workers: dict[str, WorkerRecord] = {}
        self.stops: list[tuple[WorkerRecord, Token]] = []
        self.stale_reports = 0
        self.expected_workers: dict[str, WorkerPlace] = {}
        self.place_changes = 0
        self.recovering_until: float | None = None
        self.paused_workers: set[str] = set()
        self.worker_pauses = 0

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
            ahead = lane.limit is None and estimate is not None and self.lanes.may_go_ahead(route, rank, estimate)
            worker = route.least_loaded(rank, estimate if ahead else None)
            if worker is None:
                routes.remove(route)
                continue
            yield worker, self._start(self.lanes.take(route), worker, estimate, now)

    def _start(self, task: Task, worker: WorkerRecord, estimate: float | None, now: float) -> Order:
        task.attempt += 1
        task.worker, task.pid = worker.name, worker.place.pid
        task.started_at = now
        task.cancelling = False
        task.stopped_by = "interrupted"
        worker.assign(task, estimate)
        self._move(task, Move.START, now)
        options = task.options
        return Order(
            task.id, task.attempt, task.name, task.args, task.rank, options.timeout, task.headers, task.inputs,
            options.hard_timeout,
        )  # fmt: skip

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
                limit = self.limits.get(task.name, task.ties.key)
                if limit is not None:
                    limit.correct(task.started_at, now - outcome.ran)
            self.catalog.observe(task.name, outcome.ran)
            worker.unassign(task)
            task.started_at = outcome.started or None
            self._conclude(task, worker, outcome, now)
        worker.waited(longest_wait)
        worker.rate.count(len(outcomes), now)

    def current(self, worker: WorkerRecord, task_id: str, attempt: int) -> Task | None:
        """The task if this worker holds its current attempt: the fence against late reports."""
        task = worker.assigned.get(task_id)
        return task if task is not None and task.attempt == attempt else None

    def _conclude(self, task: Task, worker: WorkerRecord, outcome: Outcome, now: float) -> None:
        match outcome.status:
            case "succeeded":
                worker.finished += 1
                self.complete(task, outcome.result, now)
            case "cancelled" | "killed":
                task.stopped_by = _stopped_by(outcome)
                self._end(task, Move.CANCEL, now)
            case "retry":
                self._retry_later(task, outcome.after or 0.0, now)
                if outcome.hold:
                    self.hold_lane(task, outcome.after or 0.0, now)
            case status:
                worker.failed += 1
                reason = _REASONS.get(status, Reason.ERROR)
                self.fail(task, reason, outcome.error, now, retryable=outcome.retryable)

    def _late(self, outcome: Outcome, now: float) -> None:
        """A report of an attempt that is no longer current. Its success still counts if the task is queued."""
        task = self.tasks.get(outcome.id)
        if task is not None and task.state is State.QUEUED and outcome.status == "succeeded":
            self._leave_lane(task, now)
            self.complete(task, outcome.result, now)
            return
        self.stale_reports += 1
        logger.info("ignored a late report: task %s attempt %d %s", outcome.id, outcome.attempt, outcome.status)

    def note(self, worker: WorkerRecord, note: Note) -> bool:
        """What a running task says of itself; False if it is not the current attempt that speaks."""
        task = self.current(worker, note.id, note.attempt)
        if task is None:
            return False
        if note.progress is not None or note.sealed_progress is not None:
            task.progress, task.sealed_progress = note.progress, note.sealed_progress
        if note.log:
            task.log = [*(task.log or ()), *note.log][-LONGEST_LOG:]
        return True

    def hand_back(self, worker: WorkerRecord, token: Token, now: float, *, started: bool = False) -> None:
        """A worker gives an attempt back; one that was not started doesn't count."""
        task = self.current(worker, token.id, token.attempt)
        if task is None:
            return
        worker.unassign(task)
        if not started:
            task.attempt -= 1
            task.stopped_by = "was_queued"  # if it was to be cancelled
            worker.stalled()
        if started and task.options.acks == "early":
            self._lose(task, now)
        else:
            self._queue_again(task, Move.HAND_BACK, now)

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
        self.withdraw(task, now)
        return "was_queued"

    def reprioritise(self, task_id: str, priority: Priority, now: float) -> bool | None:
        """See `Queue.reprioritise`. A worker that runs the task has it under its new priority."""
        task = self.tasks.get(task_id)
        worker = self.workers.get(task.worker or "") if task is not None else None
        if task is None or worker is None or self.current(worker, task_id, task.attempt) is None:
            return super().reprioritise(task_id, priority, now)
        worker.unassign(task)
        done = super().reprioritise(task_id, priority, now)
        worker.assign(task, task.estimate)
        return done

    def cancel_workflow(self, workflow: str, now: float) -> int:
        """Cancel all open tasks of a workflow; those that run are told to stop. How many they were."""
        members = self.dependencies.members(workflow)
        if workflow in self.tasks:
            members.append(self.tasks[workflow])  # the first one, where the workflow has grown from handles
        members.sort(key=lambda task: -task.seq)  # the last first: else they fail, or run, because of the others
        return sum(self.cancel(task.id, now) in ("was_queued", "stopping") for task in members)

    def duplicates(self, submissions: Iterable[Submission], now: float) -> dict[str, str]:
        """Of the submissions that want a lock which another task holds: id, and the id of the holder."""
        locked: dict[str, str] = {}
        found: dict[str, str] = {}
        for submission in submissions:
            name = submission.ties.unique if submission.ties is not None else None
            if name is None or self.knows(submission.id):
                continue
            holder = locked.get(name) or self.locks.holder(name, now)
            if holder is not None:
                found[submission.id] = holder
            if holder is None or submission.ties is None or submission.ties.on_duplicate == "replace":
                locked[name] = submission.id
        return found

    def replace(self, task_id: str, now: float) -> None:
        """A newer task takes the place of this one."""
        task = self.tasks.get(task_id)
        if task is not None:
            task.reason = Reason.REPLACED
            self.cancel(task_id, now)

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
        self.catalog.learn(hello.definitions)
        self.limits_changed(self.limits.define(hello.definitions), now)  # first: what it holds counts
        for token in sorted(hello.holding, key=lambda token: -token.attempt):
            if not self._adopt(worker, token, now):
                drop.append(token)
        worker.place_change = self._place_change(worker)
        self.workers[worker.name] = worker
        worker.paused = worker.name in self.paused_workers
        self.complete_options(worker.names, now)
        self.lanes.reroute(self.workers.values())
        same_process = before is None or before.place == worker.place
        for task in [*had.values(), *self._recovering_of(worker.name)]:
            if task.id not in worker.assigned:
                self._take_back(task, now, never_came=same_process)
        worker.lease_timer = self.timers.at(now + self.patience.silence, self._check_lease, worker)
        self.expected_workers.pop(worker.name, None)
        if self.recovering_until is not None and not self.expected_workers:
            self._end_recovery(now)
        return worker, drop

    def _take_back(self, task: Task, now: float, *, never_came: bool) -> None:
        """A worker does not hold this task any more. `never_came`: it would know of it."""
        if never_came and task.options.acks != "early":
            self._queue_again(task, Move.HAND_BACK, now)
        else:
            self._lose(task, now)

    def _place_change(self, worker: WorkerRecord) -> int:
        """Which change of the places brought this one; 0: an earlier control plane."""
        before = self.workers.get(worker.name)
        if before is not None and before.place == worker.place:
            return before.place_change
        if self.expected_workers.get(worker.name) == worker.place:
            return 0
        self.place_changes += 1
        return self.place_changes

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
            task.pid = worker.place.pid
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
        limit = self.limits.make(task.name, task.ties.key, now)  # its start counts, though no lane has asked for it
        if task.state is State.RUNNING:  # an earlier attempt
            before = self.workers.get(task.worker or "")
            if before is not None:
                before.unassign(task)
            if limit is not None:
                limit.started(now)
                self.limits.review(limit, now)
            self._tell(task, State.RUNNING, now)
        else:
            self._leave_lane(task, now)
            if task.state is not State.QUEUED:
                self.timers.cancel(task.release_timer)
                task.due_at = None
                self._move(task, Move.RELEASE, now)
            self._move(task, Move.START, now)
        task.worker, task.pid = worker.name, worker.place.pid
        task.started_at = now
        task.recovering = False
        worker.assign(task, self.catalog.estimate(task.name))

    def heard(self, worker: WorkerRecord, now: float) -> None:
        """A worker has said something."""
        worker.last_heard = now
        if worker.silent and self.workers.get(worker.name) is worker:
            worker.silent = False
            self.timers.cancel(worker.lease_timer)  # it waits for the end of the lease: too late for the next silence
            worker.lease_timer = self.timers.at(now + self.patience.silence, self._check_lease, worker)

    def holds(self, worker: WorkerRecord, memory: int | None) -> None:
        """A worker says how many bytes it holds; None: not this time. What can't be true is overlooked."""
        if memory is not None and 0 < memory <= MOST_MEMORY:
            worker.memory = memory

    def set_slots(self, worker: WorkerRecord, slots: int) -> None:
        """A worker wants more or fewer tasks at once; 0 while it drains."""
        worker.slots = slots
        self.lanes.reroute(self.workers.values())

    def has_worker_for(self, name: str) -> bool:
        """Whether a worker that is here knows tasks of this name."""
        return any(name in worker.names for worker in self.workers.values())

    def places(self) -> dict[str, WorkerPlace]:
        """Where the workers run that are here, or are awaited still; `place_changes` grows whenever that changes."""
        return self.expected_workers | {worker.name: worker.place for worker in self.workers.values()}

    def pause_worker(self, name: str, *, paused: bool) -> None:
        """Give a worker no new tasks, or give it tasks again; also after it has come back."""
        self.worker_pauses += 1
        (self.paused_workers.add if paused else self.paused_workers.discard)(name)
        worker = self.workers.get(name)
        if worker is not None:
            worker.paused = paused
            self.lanes.reroute(self.workers.values())

    def disconnected(self, worker: WorkerRecord, now: float) -> None:
        """A worker's connection broke; it may come back."""
        worker.connected = False
        self.timers.cancel(worker.lost_timer)
        worker.lost_timer = self.timers.at(now + self.patience.reconnect, self.leave, worker)

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
        self.place_changes += 1
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
        if silent_for >= self.patience.lease:
            logger.warning("worker %s has been silent for %.0f s", worker.name, silent_for)
            self.leave(worker, now)
            return
        worker.silent = silent_for >= self.patience.silence
        wait = (self.patience.lease if worker.silent else self.patience.silence) - silent_for
        worker.lease_timer = self.timers.at(now + max(wait, 0.01), self._check_lease, worker)

    # ---- recovery ------------------------------------------------------------------------------------------------

    def recover(self, tasks: Iterable[Task], workers: Iterable[WorkerPlace], now: float) -> None:
        """Take in the open tasks of an earlier control plane, and wait for the workers that it had.

        Until they are back, or `patience.recovery` seconds have passed, nothing is started: a queued task may be
        running at one of them.
        """
        running = False
        for task in tasks:
            self.tasks[task.id] = task
            self.counts[task.state] += 1
            self._note_if_incomplete(task)
            self.locks.recover(task, now)
            self.dependencies.joined(task)
            if task.expires_at is not None:
                self._set_expiry(task)
            if task.state is State.QUEUED:
                self.lanes.enqueue(task, now)
            elif task.state is State.RUNNING:
                task.recovering = running = True
            elif task.state is not State.WAITING:
                self._set_release(task)
        self.limits_changed(self.limits.all(), now)
        for task in [task for task in self.tasks.values() if task.state is State.WAITING]:
            self._collect(task, now)
        self.expected_workers = {worker.name: worker for worker in workers}
        self.place_changes += len(self.expected_workers)
        if self.expected_workers or running:
            self.recovering_until = now + self.patience.recovery
            self.timers.at(self.recovering_until, self._end_recovery)
            if not self.expected_workers:
                self._end_recovery(now)

    def _end_recovery(self, now: float) -> None:
        if self.recovering_until is None:
            return
        self.recovering_until = None
        self.place_changes += len(self.expected_workers)
        self.expected_workers.clear()
        for task in [task for task in self.tasks.values() if task.recovering]:
            self._lose(task, now)


def _stopped_by(outcome: Outcome) -> str:
    """What a cancellation came to, as its sender is told."""
    if outcome.status == "killed":
        return "killed"
    return "interrupted" if outcome.started else "was_queued"
