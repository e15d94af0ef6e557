"""Bugs, planted on purpose. The simulation must catch each; the code without them must pass the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import PropertyMock, patch

from fastworker.lifecycle import TERMINAL, Move, State
from fastworker.protocol import Frame, Message, Outcome, Token
from fastworker.session import Session
from fastworker.tasks import Priority, Task
from fastworker.upstream import LEFT_OUT
from fastworker_server import queue, waiting
from fastworker_server.dependencies import Dependencies, input_of
from fastworker_server.engine import Engine
from fastworker_server.engine_facts import EngineFacts
from fastworker_server.lanes import Lane, Lanes, Route
from fastworker_server.limits import Limit, Limits, Window
from fastworker_server.locks import Locks
from fastworker_server.peers import Peers
from fastworker_server.sessions import Peer
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.turns import Turns
from fastworker_server.workers import WorkerPlace, WorkerRecord
from fastworker_worker.worker import Worker
from tests.simulation.seams import SimClock


@dataclass(frozen=True)
class Mutant:
    """One planted bug. `seed` is known to show it."""

    name: str
    target: Any
    attribute: str
    replacement: Any
    seed: int = 0

    @contextmanager
    def planted(self) -> Iterator[None]:
        """While this is open the bug is there."""
        with patch.object(self.target, self.attribute, self.replacement):
            yield


MUTANTS: list[Mutant] = []


def mutant(target: Any, attribute: str, seed: int = 0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The function below is the bug: it takes the place of this attribute."""

    def register(replacement: Callable[..., Any]) -> Callable[..., Any]:
        MUTANTS.append(Mutant(replacement.__name__, target, attribute, replacement, seed))
        return replacement

    return register


# ---- store and recovery ----------------------------------------------------------------------------------------------


@mutant(SqliteStore, "when_saved")
def acknowledges_before_the_commit(self: SqliteStore, callback: Callable[[], None]) -> None:
    callback()


@mutant(SqliteStore, "_try_again", seed=7)
def forgets_what_the_disk_refused(self: SqliteStore, batch: Any, error: Exception) -> None:
    for callback in batch.callbacks:
        callback()


_note_workers = EngineFacts._note_workers


@mutant(EngineFacts, "_note_workers", seed=196)
def awaits_no_worker_twice(self: EngineFacts) -> None:
    with patch.object(self._engine, "expected_workers", {}):
        _note_workers(self)
    self._stored_places = self._engine.place_changes


@mutant(EngineFacts, "_note_workers")
def the_next_control_plane_awaits_nobody(self: EngineFacts) -> None:
    self._stored_places = self._engine.place_changes


_recover = Engine.recover
Places = Iterable[WorkerPlace]


@mutant(Engine, "recover")
def recovery_forgets_running_tasks(self: Engine, tasks: Iterable[Task], workers: Places, now: float) -> None:
    _recover(self, [task for task in tasks if task.state is not State.RUNNING], workers, now)


@mutant(Engine, "recover", seed=3)
def recovery_does_not_wait_for_workers(self: Engine, tasks: Iterable[Task], workers: Places, now: float) -> None:
    _recover(self, tasks, [], now)


@mutant(Engine, "_adopt", seed=4)
def a_worker_that_comes_back_loses_what_it_holds(self: Engine, worker: WorkerRecord, token: Token, now: float) -> bool:
    return False


# ---- attempts --------------------------------------------------------------------------------------------------------


@mutant(Engine, "current", seed=68)
def no_fencing(self: Engine, worker: WorkerRecord, task_id: str, attempt: int) -> Task | None:
    task = self.tasks.get(task_id)
    return task if task is not None and task.state is State.RUNNING else None


_release = Engine._release


@mutant(Engine, "_release")
def the_retry_counter_is_lost(self: Engine, task: Task, now: float) -> None:
    task.failures = 0
    _release(self, task, now)


_lose = Engine._lose


@mutant(Engine, "_lose")
def a_crash_counts_as_a_retry(self: Engine, task: Task, now: float) -> None:
    task.failures += 1
    task.crashes -= 1
    _lose(self, task, now)


@mutant(Engine, "_lose")
def lost_tasks_are_not_queued_again(self: Engine, task: Task, now: float) -> None:
    """Nothing."""


@mutant(Engine, "_lose", seed=1)
def early_acks_run_again(self: Engine, task: Task, now: float) -> None:
    task.crashes += 1
    self._queue_again(task, Move.LOSE, now)


_reconnected = Engine.reconnected


@mutant(Engine, "reconnected", seed=25)
def tasks_are_dispatched_again_after_a_reconnect(self: Engine, worker: WorkerRecord, now: float) -> None:
    _reconnected(self, worker, now)
    for task in list(worker.assigned.values()):
        worker.unassign(task)
        self._queue_again(task, Move.LOSE, now)


@mutant(Engine, "_set_expiry")
def expiry_is_ignored(self: Engine, task: Task) -> None:
    """Nothing."""


@mutant(Engine, "_has_expired", seed=1)
def expiry_is_ignored_once_a_task_has_run(self: Engine, task: Task, now: float) -> bool:
    return False


# ---- order -----------------------------------------------------------------------------------------------------------


MUTANTS.append(Mutant("priorities_are_ignored", Priority, "rank", PropertyMock(return_value=2)))

_number = Turns.number


@mutant(Turns, "number")
def last_in_first_out(self: Turns, rank: int, fair_key: str | None, served: int) -> int:
    return -_number(self, rank, fair_key, served)


@mutant(Lane, "review")
def paused_lanes_stay_open(self: Lane) -> None:
    self.offer()


@mutant(Lanes, "reroute", seed=1)
def lanes_do_not_follow_the_workers(self: Lanes, workers: Iterable[WorkerRecord]) -> None:
    if not self._workers:
        _reroute(self, workers)


_reroute = Lanes.reroute


@mutant(Engine, "_leave_lane")
def a_cancelled_task_stays_in_the_count_of_its_lane(self: Engine, task: Task) -> None:
    """Nothing."""


# ---- limits ----------------------------------------------------------------------------------------------------------


@mutant(Limit, "blocked")
def limits_never_close(self: Limit, now: float) -> tuple[str, float] | None:
    return None


_free_at = Window.free_at


@mutant(Window, "free_at")
def the_window_forgets_the_older_half(self: Window, now: float) -> float:
    half = self.rate.period / 2
    return _free_at(self, now + half) - half


@mutant(Limit, "follow", seed=108)
def a_limit_that_changes_begins_anew(self: Limit, before: Limit) -> None:
    self.lanes = before.lanes


@mutant(Limits, "earlier", seed=193)
def starts_before_a_restart_do_not_count(self: Limits, starts: Iterable[Any]) -> None:
    """Nothing."""


@mutant(Limits, "hold", seed=5)
def a_lane_is_not_held_for_a_task(self: Limits, limit: Limit, until: float, now: float) -> None:
    """Nothing."""


@mutant(Limits, "restore_holds", seed=108)
def a_hold_ends_with_the_control_plane(self: Limits, holds: Iterable[Any], now: float) -> None:
    """Nothing."""


@mutant(Engine, "_lose", seed=1)
def the_running_count_leaks_when_a_worker_is_lost(self: Engine, task: Task, now: float) -> None:
    _lose(self, task, now)
    limit = self.limits.get(task.name, task.ties.key)
    if limit is not None:
        limit.running += 1
        self.limits.review(limit, now)


# ---- turns and locks -------------------------------------------------------------------------------------------------


@mutant(Turns, "number", seed=5)
def who_came_first_has_all_turns(self: Turns, rank: int, fair_key: str | None, served: int) -> int:
    return _number(self, rank, None, served)


_take = Lanes.take


@mutant(Lanes, "take", seed=6)
def turns_are_not_noted_as_served(self: Lanes, route: Route) -> Task:
    with patch.object(Turns, "serve"):
        task = _take(self, route)
    for lane in self:
        lane.served = [0] * len(lane.served)
    return task


@mutant(Locks, "take", seed=1)
def locks_are_not_taken(self: Locks, task: Task, now: float) -> None:
    """Nothing."""


@mutant(Locks, "recover", seed=5)
def locks_are_not_taken_again_after_a_restart(self: Locks, task: Task, now: float) -> None:
    """Nothing."""


@mutant(Locks, "ended", seed=5)
def locks_outlive_their_tasks(self: Locks, task: Task) -> None:
    """Nothing."""


@mutant(Locks, "started", seed=6)
def who_runs_keeps_a_lock_for_the_queue(self: Locks, task: Task) -> None:
    """Nothing."""


@mutant(Engine, "replace", seed=5)
def who_is_replaced_goes_on(self: Engine, task_id: str, now: float) -> None:
    """Nothing."""


# ---- tasks that need others ------------------------------------------------------------------------------------------


_waiting_for = Dependencies.waiting_for


@mutant(Dependencies, "waiting_for")
def the_first_need_releases(self: Dependencies, ended: Task) -> Iterator[Task]:
    for task in _waiting_for(self, ended):
        task.missing = 0
        yield task


@mutant(queue, "input_of", seed=5)
def needs_that_failed_are_ignored(task: Task, needed: Task | None) -> Any:
    got = input_of(task, needed)
    return got if isinstance(got, str) else LEFT_OUT


@mutant(Engine, "recover")
def inputs_are_lost_in_a_restart(self: Engine, tasks: Iterable[Task], workers: Places, now: float) -> None:
    found = list(tasks)
    for task in found:
        task.inputs = None
    _recover(self, found, workers, now)


@mutant(Dependencies, "failed_because_of", seed=62)
def who_failed_because_of_another_is_not_revived(self: Dependencies, needed: str) -> list[Task]:
    return []


_members = Dependencies.members


@mutant(Dependencies, "members", seed=16)
def who_waits_is_not_cancelled_with_its_workflow(self: Dependencies, workflow: str) -> list[Task]:
    return [task for task in _members(self, workflow) if task.state is not State.WAITING]


# ---- orders ----------------------------------------------------------------------------------------------------------


@mutant(Engine, "pause_worker", seed=7)
def paused_workers_get_tasks(self: Engine, name: str, *, paused: bool) -> None:
    """Nothing."""


_reprioritise = Engine.reprioritise


@mutant(Engine, "reprioritise", seed=1)
def another_priority_is_not_stored(self: Engine, task_id: str, priority: Priority, now: float) -> bool | None:
    changed = _reprioritise(self, task_id, priority, now)
    if task_id in self.tasks:
        self.tasks[task_id].rewrite = False
    return changed


_requeue = Engine.requeue


@mutant(Engine, "requeue", seed=6)
def a_requeue_keeps_the_old_arguments(self: Engine, task: Task, now: float, args: str | None = None) -> None:
    _requeue(self, task, now)


async def _nothing_found(self: SqliteStore, task_ids: Sequence[str]) -> dict[str, Any]:
    return {}


MUTANTS.append(Mutant("a_known_id_is_taken_in_anew", SqliteStore, "get_many", _nothing_found))


# ---- peers and sessions ----------------------------------------------------------------------------------------------


MUTANTS.append(Mutant("the_lease_follows_the_wall_clock", SimClock, "now", SimClock.wall, seed=5))
MUTANTS.append(Mutant("an_end_is_told_before_it", waiting, "TERMINAL", TERMINAL | {State.RUNNING}))


@mutant(Peers, "is_given_up", seed=68)
def a_worker_that_was_given_up_stays_a_ghost(self: Peers, peer: Peer) -> bool:
    return False


_receive = Session.receive


@mutant(Session, "receive", seed=20)
def the_session_delivers_duplicates(self: Session, frame: Frame, now: float) -> list[Message]:
    twice = frame.seq == self._received and frame.seq > 1
    return _receive(self, frame, now) or (frame.items if twice else [])


@mutant(Session, "tick", seed=7)
def the_session_does_not_send_again(self: Session, now: float) -> None:
    self._resend_due = float("inf")


_report = Worker._report


@mutant(Worker, "_report", seed=4)
def outcomes_are_not_kept(self: Worker, outcomes: list[Outcome]) -> None:
    _report(self, outcomes)
    self._unrecorded.clear()


@mutant(Engine, "_check_lease", seed=28)
def leases_never_end(self: Engine, worker: WorkerRecord, now: float) -> None:
    """Nothing."""
