"""The model checker: judges every step of the engine by what really happened.

It never asks the engine whether the engine was right: why a worker was given up is judged by the network's notes, what
ran by the workers' notes, what is safe by the disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic_core import from_json

from fastworker.lifecycle import OPEN, TERMINAL, Move, Reason, State
from fastworker.protocol import Ended, Order, Outcome, Submission
from fastworker.tasks import PRIORITIES, Options, Priority, Task
from fastworker_server.engine import Engine
from fastworker_server.explain import explain
from fastworker_server.workers import WorkerRecord
from tests.simulation.graph_judge import GraphJudge
from tests.simulation.ledger import NEVER_ACCEPTED, Execution, Violation, short
from tests.simulation.limit_judge import LimitJudge
from tests.simulation.lock_judge import LockJudge
from tests.simulation.pool import DEFINITIONS
from tests.simulation.turn_judge import TurnJudge

if TYPE_CHECKING:
    from tests.simulation.processes import WorkerProcess
    from tests.simulation.simulation import Simulation
    from tests.simulation.world import Process

SLACK = 1e-6
Snapshot = tuple[State, int, int, int]


class Checker:
    """Collects violations; the simulation stops at the first."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.ledger = simulation.ledger
        self.violations: list[str] = []
        self.moves = 0
        self.lost = 0
        self._states: dict[str, State] = {}
        self._counts: Counter[State] = Counter()
        self._history: dict[str, set[Snapshot]] = {}
        self._checked_moves = 0
        self._early: set[str] = set()
        self._ranks: dict[str, int] = {}
        self._reprioritised: set[str] = set()
        self._requeued_now: set[str] = set()  # in this life of the control plane
        self._known_names: set[str] = set()
        self._args: dict[str, str] = {}
        self._given_up: dict[tuple[str, int, str], str] = {}
        self._workers_on_disk: set[str] = set()
        self.adopting = False  # the engine takes an attempt over of which it did not know
        self.limits = LimitJudge(self)
        self.turns = TurnJudge(self)
        self.locks = LockJudge(self)
        self.graphs = GraphJudge(self)

    def fail(self, text: str) -> None:
        """A promise was broken."""
        self.ledger.say("checker", text)
        self.violations.append(text)

    def require(self, holds: bool, text: str) -> None:
        """A promise."""
        if not holds:
            self.fail(text)

    def state_of(self, task_id: str) -> State | None:
        """Where the engine has a task now."""
        return self._states.get(task_id)

    def rank(self, task_id: str) -> int:
        """How urgent a task is: what was asked for, or said by its definition."""
        return self._ranks[task_id]

    def raise_first(self) -> None:
        """Stop the simulation if something is wrong."""
        if self.violations:
            raise Violation(self.violations[0])

    # ---- dispatch ------------------------------------------------------------------------------------------------

    def starts(self, engine: Engine, task: Task, worker: WorkerRecord, now: float) -> None:
        """The engine is about to start this task there."""
        name = f"{short(task.id)} ({task.name}, {task.rank})"
        self.require(task.state is State.QUEUED, f"started {name} while it was {task.state}")
        self.require(engine.recovering_until is None, f"started {name} before the workers were back")
        self.require(not self._is_paused(task), f"started {name} of a paused lane")
        self.require(worker.usable and task.name in worker.names, f"{worker.name} can't run {name} now")
        self.require(worker.name in serving(engine, task.name), f"{worker.name} is not to run {name}")
        self.require(("worker", worker.name) not in self.ledger.paused, f"started {name} at a paused worker")
        self._not_expired(task, name, now)
        self._nothing_better(engine, task, name, now)
        self.limits.starts(task, now)
        self.turns.starts(task)

    def _not_expired(self, task: Task, name: str, now: float) -> None:
        said = self.ledger.submitted[task.id].options
        if said is not None and said.expires is not None and not self.ledger.requeues.get(task.id):
            self.require(now <= task.submitted_at + said.expires + SLACK, f"started {name} after it had expired")

    def _is_paused(self, task: Task) -> bool:
        return ("queue", task.queue) in self.ledger.paused or ("name", task.name) in self.ledger.paused

    def _nothing_better(self, engine: Engine, task: Task, name: str, now: float) -> None:
        """Strict priority; and within a lane, a priority and a fair key, first come, first served."""
        rank, line, fresh = self._ranks[task.id], self._line(task), self._is_fresh(task)
        could_start: dict[tuple[object, ...], bool] = {}
        for other in engine.tasks.values():
            if other.state is not State.QUEUED or other is task:
                continue
            others_rank = self._ranks[other.id]
            if others_rank < rank:
                lane = (other.queue, other.name, other.ties.key)
                if lane not in could_start:
                    could_start[lane] = self._could_start(engine, other, now)
                self.require(not could_start[lane], f"started {name} before {short(other.id)} of rank {others_rank}")
            elif others_rank == rank and fresh and other.seq < task.seq and self._line(other) == line:
                first = self._is_fresh(other)
                self.require(not first, f"started {name} before {short(other.id)}, which was first in the lane")

    def _line(self, task: Task) -> tuple[object, ...]:
        return task.queue, task.name, task.ties.key, task.ties.fair_key

    def _could_start(self, engine: Engine, task: Task, now: float) -> bool:
        """Whether nothing at all keeps a queued task from being started."""
        lanes = engine.lanes
        held = task.queue in lanes.paused_queues or task.name in lanes.paused_names
        return not held and free_slot_for(engine, task.name) and self.limits.surely_open(task, now)

    def _is_fresh(self, task: Task) -> bool:
        """Whether its place in the queue is that of its submission."""
        ledger = self.ledger
        said, ties = ledger.submitted[task.id].options, ledger.submitted[task.id].ties
        delayed = said is not None and (said.delay is not None or said.eta is not None)
        moved = ledger.requeues.get(task.id) or ledger.ranks_asked.get(task.id) or (ties is not None and ties.needs)
        return task.attempt == 0 and not delayed and not moved and DEFINITIONS[task.name].options.priority is None

    def dispatched(self, engine: Engine, now: float) -> None:
        """The engine says that nothing more can be started."""
        if engine.recovering_until is not None:
            return
        heads: dict[tuple[object, ...], Task] = {}
        for task in engine.tasks.values():
            if task.state is State.QUEUED:
                heads.setdefault((task.queue, task.name, task.ties.key), task)
        for task in heads.values():
            if self._could_start(engine, task, now):
                self.fail(f"{short(task.id)} ({task.name}) waits although a worker has a free slot")

    # ---- moves ---------------------------------------------------------------------------------------------------

    def moved(self, task: Task, what: Move, before: State, now: float) -> None:
        """The engine has moved a task."""
        self.moves += 1
        worker = f" at {task.worker}" if task.worker else ""
        self.ledger.say("engine", f"{short(task.id)}/{task.attempt} {what}: {before} → {task.state}{worker}")
        known = self._states.get(task.id, State.NEW)
        self.require(known is before, f"{short(task.id)} was {known}, the engine says {before}")
        self._counts[before] -= 1
        self._counts[task.state] += 1
        self._states[task.id] = task.state
        self._history.setdefault(task.id, set()).add(_snapshot(task))
        if task.state in TERMINAL:
            self.ledger.ends[task.id].append((task.state, task.result))
        self._judge(task, what, before, now)
        self.limits.moved(task, what, before, now)
        self.turns.moved(task, what, before)
        self.locks.moved(task, what, before, now)
        self.graphs.moved(task, what, before)

    def _judge(self, task: Task, what: Move, before: State, now: float) -> None:
        said = self.ledger.submitted[task.id].options
        match what:
            case Move.SUBMIT | Move.SCHEDULE | Move.AWAIT if before is State.NEW:
                self._note(task, said)
            case Move.COMPLETE:
                self._really_produced(task, before)
            case Move.FAIL if task.reason in (Reason.ERROR, Reason.TIMEOUT):
                self._really_failed(task)
                allowed = task.options.retries or 0
                self.require(task.failures > allowed, f"{short(task.id)} failed with retries left")
            case Move.RETRY:
                self._really_failed(task)
                allowed = task.options.retries or 0
                failed = sum(map(_has_failed, self.ledger.executions.get(task.id, ())))
                restarts = self.simulation.servers - 1  # each may forget one that was not recorded
                right = task.failures <= allowed and failed <= allowed + restarts
                self.require(right, f"{short(task.id)} is tried more often than allowed")
            case Move.EXPIRE:
                due = said is not None and said.expires is not None and now >= task.submitted_at + said.expires - SLACK
                right = due and task.id not in self._requeued_now | self.ledger.requeues_told
                self.require(right, f"{short(task.id)} expired too early, or was ordered to run again")
            case Move.CANCEL:
                self.require(self._was_cancelled(task), f"nobody cancelled {short(task.id)}")
            case Move.HAND_BACK:
                executions = self.ledger.executions.get(task.id, ())
                self._excuse((e for e in executions if e.process.leaving), "handed back")
            case Move.REQUEUE | Move.AWAIT:
                self._requeued(task)

    def _was_cancelled(self, task: Task) -> bool:
        asked = self.ledger.cancels_asked, self.ledger.workflow_cancels_asked
        workflow = self.graphs.workflow(task.id) or task.id
        return task.id in asked[0] or bool({workflow, task.id} & asked[1]) or self.locks.is_replaced(task.id)

    def _requeued(self, task: Task) -> None:
        asked = task.id in self.ledger.requeues_asked or self.graphs.may_revive(task.id)
        self.require(asked, f"nobody requeued {short(task.id)}")
        self.ledger.requeues[task.id] += 1
        self._requeued_now.add(task.id)
        self.ledger.cancelled.discard(task.id)
        self._excuse(self.ledger.executions.get(task.id, ()), "requeued")

    def _note(self, task: Task, said: Options | None) -> None:
        """What was asked for, to judge by it whatever the engine makes of it."""
        self._ranks[task.id] = self._rank_said(task.name, said, known=task.name in self._known_names)
        self._is_to_run_on(task.id, task.args)
        if task.options.acks == "early":
            self._early.add(task.id)

    @staticmethod
    def _rank_said(name: str, said: Options | None, *, known: bool) -> int:
        defined = DEFINITIONS[name].options.priority if known else None
        return PRIORITIES.index((said.priority if said else None) or defined or Priority.NORMAL)

    def _is_to_run_on(self, task_id: str, args: str) -> None:
        asked = args in self.ledger.args_asked[task_id]
        self.require(asked, f"{short(task_id)} is to run on {args}, which nobody asked for")
        self._args[task_id] = args

    # ---- orders of clients ---------------------------------------------------------------------------------------

    def learned(self, names: Iterable[str]) -> None:
        """A worker has told the definitions of these names: from now on they say what a submission doesn't."""
        new = set(names) - self._known_names
        self._known_names |= new
        for task_id, state in self._states.items():
            submission = self.ledger.submitted[task_id]
            if submission.name in new and state in OPEN and task_id not in self._reprioritised:
                self._ranks[task_id] = self._rank_said(submission.name, submission.options, known=True)

    def reprioritised(self, task: Task, rank: int) -> None:
        """The engine is about to give a task another priority."""
        asked = rank in self.ledger.ranks_asked[task.id]
        self.require(asked, f"nobody wanted the rank {rank} for {short(task.id)}")
        self.turns.reprioritised(task, rank)
        self._ranks[task.id] = rank
        self._reprioritised.add(task.id)

    def keeps_rank(self, task_id: str, rank: int) -> None:
        """A client was told that a task has this rank."""
        stored = self.simulation.disk.task(task_id)
        self.require(stored is not None and stored.rank == rank, f"the rank {rank} of {short(task_id)} is not kept")

    def changed_args(self, task_id: str, args: str | None) -> None:
        """The engine is about to requeue a task, on other arguments or the same."""
        if args is not None:
            self._is_to_run_on(task_id, args)

    def keeps_args(self, task_id: str, args: str) -> None:
        """A client was told that a task runs again on these arguments."""
        stored = self.simulation.disk.task(task_id)
        self.require(stored is not None and stored.args == args, f"the arguments of {short(task_id)} are not kept")

    def members(self, workflow: str) -> dict[str, State]:
        """The open tasks of a workflow."""
        ids = [task_id for task_id, state in self._states.items() if state in OPEN]
        return {task_id: self._states[task_id] for task_id in ids if self.graphs.workflow(task_id) == workflow}

    def workflow_cancelled(self, engine: Engine, members: dict[str, State], count: int) -> None:
        """The engine has cancelled these, except for those that run."""
        self.require(count <= len(members) + 1, f"{count} tasks were cancelled of a workflow with {len(members)}")
        for task_id, state in members.items():
            stopping = state is State.RUNNING and (task_id in engine.ended or engine.tasks[task_id].cancelling)
            gone = self._states[task_id] in TERMINAL or stopping
            self.require(gone, f"{short(task_id)} is still {self._states[task_id]}; its workflow was cancelled")

    def rejected(self, submissions: Iterable[Submission]) -> None:
        """A client was told that none of these were taken in."""
        for submission in submissions:
            if self.ledger.submissions[submission.id] == 1:
                self.ledger.rejected.add(submission.id)
                known = self._states.get(submission.id)
                self.require(known is None, f"{short(submission.id)} was rejected, and is {known}")

    def _really_produced(self, task: Task, before: State) -> None:
        made = [execution for execution in self.ledger.executions.get(task.id, ()) if execution.status == "succeeded"]
        if before is State.RUNNING:
            made = [e for e in made if e.attempt == task.attempt and e.process.name == task.worker]
        self.require(
            any(e.result == task.result for e in made), f"{short(task.id)} got a result that nobody produced for it"
        )

    def _really_failed(self, task: Task) -> None:
        executions = self.ledger.executions.get(task.id, ())
        ended = {e.status for e in executions if e.attempt == task.attempt}
        self.require(bool(ended & {"failed", "timeout", "retry"}), f"{short(task.id)} failed, but no attempt of it did")

    # ---- losses --------------------------------------------------------------------------------------------------

    def gives_up(self, engine: Engine, task: Task, now: float) -> None:
        """The engine is about to count this task's worker as lost to it."""
        self.lost += 1
        executions = [e for e in self.ledger.executions.get(task.id, ()) if e.process.name == task.worker]
        reason = self._reason_to_give_up(engine, task, now)
        if reason is None:
            self.fail(f"took {short(task.id)} from {task.worker}, which lives, holds it and was in touch")
        self._excuse(executions, reason or "?")
        self._given_up[task.id, task.attempt, task.worker or ""] = reason or "?"

    def _reason_to_give_up(self, engine: Engine, task: Task, now: float) -> str | None:
        worker = self.simulation.workers.get(task.worker or "")
        if worker is None or worker.dead or worker.leaving:
            return "gone"
        if not worker.holds(task.id, task.attempt):
            return "not held"
        contact, limits = self.simulation.network.contact(worker.name), engine.patience
        if contact.down_since is not None and now - contact.down_since >= limits.reconnect - SLACK:
            return "away"
        if now - contact.heard_at >= limits.lease - SLACK:
            return "silent"
        if worker.name not in engine.workers and now - self.simulation.server.began >= limits.recovery - SLACK:
            return "not back"
        return None

    def lost_one(self, task: Task, before: tuple[int, int], max_crashes: int) -> None:
        """The engine has counted the loss."""
        self.require(
            (task.failures, task.crashes) == (before[0], before[1] + 1), f"{short(task.id)}: a crash was miscounted"
        )
        self.require(task.crashes <= max_crashes, f"{short(task.id)} crashed more often than allowed")
        over = task.crashes >= max_crashes or task.options.acks == "early"
        self.require(not over or task.state in TERMINAL, f"{short(task.id)} goes on after its last crash")

    @staticmethod
    def _excuse(executions: Iterable[Execution], reason: str) -> None:
        for execution in executions:
            execution.given_up = execution.given_up or reason

    # ---- recovery ------------------------------------------------------------------------------------------------

    def recovered(self, tasks: Sequence[Task]) -> None:
        """A new control plane has read its store."""
        self._states = self.simulation.disk.states()
        self._counts = Counter(self._states.values())
        self._workers_on_disk = {worker["name"] for worker in from_json(self.simulation.disk.fact("workers") or "[]")}
        for task_id in self.ledger.accepted:
            self.require(task_id in self._states, f"{short(task_id)} was accepted and is gone")
        for task_id, executions in self.ledger.executions.items():
            if task_id not in self._states:
                self._excuse(executions, NEVER_ACCEPTED)
        for task in tasks:
            known = _snapshot(task) in self._history[task.id]
            self.require(known, f"{short(task.id)} came back as it never was: {task}")
        open_on_disk = {task_id for task_id, state in self._states.items() if state in OPEN}
        self.require(open_on_disk == {task.id for task in tasks}, "not all open tasks came back")
        stored = self.simulation.disk.tasks()
        self._recover_orders(stored)
        self.limits.recovered(self._states, {task.id: task.attempt for task in stored.values()})
        self.locks.recovered(self._states)
        self.turns.recovered()
        self.graphs.recovered(stored)
        for graph in self.ledger.graphs:
            once = [task_id for task_id in graph if self.ledger.submissions[task_id] == 1]
            there = sum(task_id in stored for task_id in once)
            self.require(there in (0, len(once)), f"{there} of {len(once)} tasks came back of one request")

    def _recover_orders(self, stored: Mapping[str, Task]) -> None:
        """What clients ordered, and was not committed, never was."""
        self._known_names.clear()
        self._requeued_now.clear()
        for task in stored.values():
            said = self.ledger.submitted[task.id].options
            ranks = {self._rank_said(task.name, said, known=known) for known in (True, False)}
            possible = ranks | set(self.ledger.ranks_asked[task.id])
            self.require(task.rank in possible, f"{short(task.id)} came back with the rank {task.rank}")
            self._ranks[task.id] = task.rank
            self._is_to_run_on(task.id, task.args)

    def recovery_ended(self, engine: Engine, now: float) -> None:
        """The engine waits no longer for workers."""
        in_time = now < self.simulation.server.began + engine.patience.recovery - SLACK
        for name in self._workers_on_disk:
            worker = self.simulation.workers[name]
            awaited = in_time and name not in engine.workers and not worker.dead and not worker.leaving
            self.require(not awaited, f"did not wait for {name}")
        if not in_time:
            for executions in self.ledger.executions.values():
                self._excuse((e for e in executions if e.process.name not in engine.workers), "not back in time")

    # ---- workers and clients -------------------------------------------------------------------------------------

    def executes(self, new: Execution, order: Order) -> None:
        """A worker starts to run a task's code."""
        task_id = new.task_id
        new.given_up = self._given_up.get((task_id, new.attempt, new.process.name))
        if new.given_up is not None:
            return  # it was out of touch, and does not know
        self.require(order.args == self._args[task_id], f"{short(task_id)} runs on other arguments: {order.args}")
        self.graphs.executes(order)
        told = task_id in self.ledger.cancelled
        self.require(not told, f"{short(task_id)} runs after a client was told that it won't")
        before = self.ledger.executions.get(task_id, ())
        for old in before:
            ended_badly = old.status in ("failed", "timeout", "retry", "cancelled")
            if not old.process.dead and not ended_badly and old.given_up is None:
                self.fail(f"{short(task_id)} runs at {new.process.name} and at {old.process.name}, which lives")
        earlier = [execution for execution in before if execution.given_up != NEVER_ACCEPTED]
        if task_id in self._early and len(earlier) > self.ledger.requeues.get(task_id, 0):
            self.fail(f"{short(task_id)} (acks=early) was started twice")

    def recorded(self, worker: WorkerProcess, outcomes: Sequence[Outcome]) -> None:
        """A worker was told that these outcomes are safe."""
        for outcome in outcomes:
            execution = self.ledger.find(outcome, worker.name)
            row = self.simulation.disk.task(outcome.id)
            if execution is None or execution.given_up is not None:
                continue
            running = row is not None and (row.state, row.attempt, row.worker) == (
                State.RUNNING,
                outcome.attempt,
                worker.name,
            )
            behind = row is not None and row.attempt < outcome.attempt and row.state not in TERMINAL
            self.require(
                row is not None and not running and not behind, f"{short(outcome.id)} was recorded before its commit"
            )

    def accepted(self, wanted: Iterable[str], taken: Iterable[str]) -> None:
        """A client was told that these tasks are safe: those that it wanted, or others that stand for them."""
        for task_id, instead in zip(wanted, taken, strict=True):
            self.ledger.accept(instead)
            stored = self.simulation.disk.task(instead)
            self.require(stored is not None, f"{short(instead)} was accepted before its commit")
            if instead != task_id:
                self.locks.stands_for(task_id, instead)

    def told_end(self, client: str, ended: Ended) -> None:
        """A client was told how a task ended."""
        self.ledger.watched[client, ended.id] = ended
        ends = self.ledger.ends.get(ended.id, [])
        self.require(
            (ended.state, ended.result) in ends, f"{client} was told that {short(ended.id)} ended as {ended.state}"
        )

    def needs_unknown(self, submissions: Sequence[Submission], text: str) -> None:
        """A client was told that a task needs one that is not known."""
        here = {submission.id for submission in submissions}
        needs = {need for submission in submissions for need in self.graphs.needs(submission.id)}
        self.require(not needs <= here | self.ledger.accepted, f"refused, though all it needs was accepted: {text}")

    # ---- every step, and the end ---------------------------------------------------------------------------------

    def check_step(self, engine: Engine) -> None:
        """After each step of the control plane that moved something."""
        if self._checked_moves == self.moves:
            return
        self._checked_moves = self.moves
        counts = {state: count for state, count in engine.counts.items() if count and state is not State.NEW}
        right = {state: count for state, count in self._counts.items() if count and state is not State.NEW}
        self.require(counts == right, f"counts are {counts}, should be {right}")
        self._check_workers(engine)
        self._check_lanes(engine)
        self.graphs.check_step()

    def _check_workers(self, engine: Engine) -> None:
        assigned = 0
        for worker in engine.workers.values():
            for task in worker.assigned.values():
                assigned += 1
                right = task.state is State.RUNNING and task.worker == worker.name and engine.tasks.get(task.id) is task
                self.require(right, f"{worker.name} has {short(task.id)}, which is {task.state} at {task.worker}")
        running = sum(1 for task in engine.tasks.values() if task.state is State.RUNNING and not task.recovering)
        self.require(assigned == running, f"{running} tasks run, {assigned} are assigned")

    def _check_lanes(self, engine: Engine) -> None:
        right: Counter[tuple[str, str, str, int]] = Counter()
        for task in engine.tasks.values():
            if task.state is State.QUEUED:
                right[task.queue, task.name, task.ties.key or "", task.rank] += 1
        for lane in engine.lanes:
            for rank, count in enumerate(lane.counts):
                if count != right[*lane.key, rank]:
                    self.fail(f"lane {lane.key} counts {count} of rank {rank}, should be {right[*lane.key, rank]}")

    def noticed_by_now(self, worker: WorkerProcess, server: Process) -> None:
        """A worker was killed so long ago that the control plane, if it knows that, must have given it up."""
        down_since = self.simulation.network.contact(worker.name).down_since
        calm = server is self.simulation.server and self.simulation.server.up and not server.dead and not server.stopped
        if not calm or down_since is None:
            return
        engine = self.simulation.server.control_plane.engine
        long_ago = max(down_since, server.calm_since) + engine.patience.reconnect + 0.5 < self.simulation.world.now
        gone = worker.name not in engine.workers
        self.require(gone or not long_ago, f"{worker.name} was killed, and its tasks are not back in the queue")

    def check_peers(self, engine: Engine) -> None:
        """All who waited for an end must have been told, and all workers that live must be known."""
        for name in self.missing_workers(engine):
            self.fail(f"{name} lives and gets no tasks for ever")
        for text in self.ledger.dead_ends():
            self.fail(f"{text} for ever")
        self.raise_first()

    def check_end(self, engine: Engine) -> None:
        """All faults are over and time has run on: everything must have come to its end."""
        for task in engine.tasks.values():
            why = explain(engine, task, self.simulation.world.now).reason
            self.fail(f"{short(task.id)} ({task.name}) stayed {task.state} for ever: {why}")
        on_disk = self.simulation.disk.tasks()
        for task_id in self.ledger.accepted:
            stored = on_disk.get(task_id)
            self.require(
                stored is not None and stored.state in TERMINAL, f"{short(task_id)} was accepted and has no end"
            )
        for task in engine.ended.values():
            same = task.id in on_disk and _stored(on_disk[task.id]) == _stored(task)
            self.require(same, f"the store has another {short(task.id)} than the engine: {on_disk.get(task.id)} {task}")

    def missing_workers(self, engine: Engine) -> list[str]:
        """Workers that live and get no tasks."""
        living = [w for w in self.simulation.workers.values() if not w.dead and not w.leaving]
        records = {worker.name: engine.workers.get(worker.name) for worker in living}
        return [name for name, record in records.items() if record is None or not record.usable]


def _has_failed(execution: Execution) -> bool:
    """Whether this uses up a retry for certain."""
    certain = execution.given_up is None and not execution.process.dead
    return certain and execution.status in ("failed", "timeout")


def _snapshot(task: Task) -> Snapshot:
    return task.state, task.attempt, task.failures, task.crashes


def _stored(task: Task) -> tuple[object, ...]:
    return (*_snapshot(task), task.result, task.reason, task.rank, task.queue, task.args, task.worker, task.finished_at)


def serving(engine: Engine, name: str) -> dict[str, WorkerRecord]:
    """The workers that are to serve a name: the control plane's own only while no other can. Paused ones can't."""
    workers = engine.workers.values()
    capable = [worker for worker in workers if worker.slots and not worker.paused and name in worker.names]
    others = [worker for worker in capable if not worker.own]
    return {worker.name: worker for worker in others or capable}


def free_slot_for(engine: Engine, name: str) -> bool:
    """Whether a worker that may get a task of this name has a free slot."""
    workers = serving(engine, name).values()
    return any(w.connected and not w.silent and not w.paused and len(w.assigned) < w.slots for w in workers)
