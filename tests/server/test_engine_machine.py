"""Hypothesis drives the engine against the obvious: a dictionary of what each task may be by now."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from fastworker.lifecycle import OPEN, TERMINAL, State
from fastworker.protocol import Hello, Order, Outcome, Outcome_, Submission, Token
from fastworker.tasks import Backoff, Definition, Options, Priority, new_task_id
from fastworker_server.engine import Engine
from fastworker_server.queue import Patience
from fastworker_server.workers import WorkerRecord

NAMES = ("add", "mul")
PATIENCE = Patience(lease=60.0, silence=10.0, reconnect=2.0, recovery=10.0, max_crashes=3)


class EngineMachine(RuleBasedStateMachine):
    """`held` is what the workers really run: the engine is told nothing but what they would say."""

    tasks = Bundle("tasks")
    workers = Bundle("workers")

    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine(PATIENCE, Random(7))
        self.now = 1_000.0
        self.held: dict[str, list[Order]] = {}
        self.records: dict[str, WorkerRecord] = {}
        self.submitted: dict[str, Submission] = {}
        self.results: dict[str, set[str]] = {}
        self.terminal: dict[str, State] = {}
        self.reports: list[tuple[str, Order]] = []

    # ---- clients -------------------------------------------------------------------------------------------------

    @rule(
        target=tasks,
        name=st.sampled_from(NAMES),
        priority=st.sampled_from(list(Priority)),
        retries=st.integers(0, 2),
        delay=st.sampled_from([None, 3.0]),
        expires=st.sampled_from([None, 5.0]),
        early=st.booleans(),
    )
    def submit(
        self, name: str, priority: Priority, retries: int, delay: float | None, expires: float | None, early: bool
    ) -> str:
        options = Options(
            priority=priority, retries=retries, delay=delay, expires=expires, acks="early" if early else None,
            backoff=Backoff("constant", 1.0, 1.0, jitter=False),
        )  # fmt: skip
        submission = Submission(new_task_id(), name, "{}", options)
        assert self.engine.submit(submission, self.now) is not None
        self.submitted[submission.id] = submission
        return submission.id

    @rule(task_id=tasks)
    def submit_again(self, task_id: str) -> None:
        assert self.engine.submit(self.submitted[task_id], self.now) is None

    @rule(task_id=tasks)
    def cancel(self, task_id: str) -> None:
        before = self.state(task_id)
        answer = self.engine.cancel(task_id, self.now)
        expected = "already_done" if before in TERMINAL else "stopping" if before is State.RUNNING else "was_queued"
        assert answer == expected

    @rule(task_id=tasks)
    def requeue(self, task_id: str) -> None:
        task = self.engine.ended.get(task_id)
        if task is not None:
            self.terminal.pop(task_id, None)
            self.engine.requeue(task, self.now)

    @rule(name=st.sampled_from(NAMES), pause=st.booleans())
    def pause_or_resume(self, name: str, pause: bool) -> None:
        (self.engine.lanes.pause if pause else self.engine.lanes.resume)(None, name)

    # ---- workers -------------------------------------------------------------------------------------------------

    @rule(target=workers, slots=st.integers(1, 3), names=st.sets(st.sampled_from(NAMES), min_size=1), own=st.booleans())
    def join(self, slots: int, names: set[str], own: bool) -> str:
        name = f"w{len(self.records)}"
        self.greet(name, slots, names, own, [])
        return name

    def greet(self, name: str, slots: int, names: set[str], own: bool, holding: list[Token]) -> None:
        definitions = [Definition(known) for known in sorted(names)]
        hello = Hello("worker", 1, name, "host", len(self.records), "", slots, own, definitions, holding)
        self.records[name], drop = self.engine.join(hello, self.now)
        dropped = {(token.id, token.attempt) for token in drop}
        self.held[name] = [o for o in self.held.get(name, []) if (o.id, o.attempt) not in dropped]

    @rule(name=workers)
    def disconnect(self, name: str) -> None:
        if name in self.engine.workers:
            self.engine.disconnected(self.records[name], self.now)

    @rule(name=workers)
    def reconnect(self, name: str) -> None:
        if name in self.engine.workers:
            self.engine.reconnected(self.records[name], self.now)

    @rule(name=workers, really=st.booleans())
    def is_lost(self, name: str, really: bool) -> None:
        """Dead, or only thought to be: then what it runs will be reported late."""
        if really:
            self.held[name] = []
        if name in self.engine.workers:
            self.engine.leave(self.records[name], self.now)

    @rule(name=workers)
    def speak(self, name: str) -> None:
        if name in self.engine.workers:
            self.engine.heard(self.records[name], self.now)

    @precondition(lambda self: any(self.held.values()))
    @rule(
        data=st.data(),
        status=st.sampled_from(["succeeded", "failed", "timeout", "cancelled", "retry"]),
        late=st.booleans(),
    )
    def report(self, data: st.DataObject, status: Outcome_, late: bool) -> None:
        name = data.draw(st.sampled_from(sorted(name for name, orders in self.held.items() if orders)))
        order = self.held[name].pop(data.draw(st.integers(0, len(self.held[name]) - 1)))
        result = f'"{name}:{order.attempt}"' if status == "succeeded" else None
        if result is not None:
            self.results.setdefault(order.id, set()).add(result)
        outcome = Outcome(order.id, order.attempt, status, self.now, 0.001, result, after=1.0)
        self.engine.report(self.records[name], [outcome], self.now)
        if late:
            self.engine.report(self.records[name], [outcome], self.now)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), started=st.booleans())
    def hand_back(self, data: st.DataObject, started: bool) -> None:
        name = data.draw(st.sampled_from(sorted(name for name, orders in self.held.items() if orders)))
        order = self.held[name].pop()
        self.engine.hand_back(self.records[name], Token(order.id, order.attempt), self.now, started=started)

    # ---- time ----------------------------------------------------------------------------------------------------

    @invariant()
    def what_can_start_is_started(self) -> None:
        """First of the invariants: after each step, as the control plane does it."""
        for worker, order in self.engine.dispatch(self.now):
            assert order.name in worker.names
            assert worker.usable
            task = self.engine.tasks[order.id]
            assert task.expires_at is None or task.expires_at >= self.now
            assert order.name not in self.engine.lanes.paused_names
            self.held[worker.name].append(order)

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 11.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.engine.timers.fire_due(self.now)

    # ---- what must always hold -----------------------------------------------------------------------------------

    def state(self, task_id: str) -> State:
        return (self.engine.tasks.get(task_id) or self.engine.ended[task_id]).state

    @invariant()
    def no_task_is_lost_or_in_two_places(self) -> None:
        assert self.engine.tasks.keys() | self.engine.ended.keys() == self.submitted.keys()
        assert not self.engine.tasks.keys() & self.engine.ended.keys()
        assert all(task.state in OPEN for task in self.engine.tasks.values())
        assert all(task.state in TERMINAL for task in self.engine.ended.values())

    @invariant()
    def counts_are_a_recount(self) -> None:
        states = [self.state(task_id) for task_id in self.submitted]
        for state in OPEN | TERMINAL:
            assert self.engine.counts[state] == states.count(state)
        queued = [task for task in self.engine.tasks.values() if task.state is State.QUEUED]
        assert sum(len(lane) for lane in self.engine.lanes) == len(queued)

    @invariant()
    def a_running_task_has_one_worker_and_that_one_knows(self) -> None:
        assigned = [task for worker in self.engine.workers.values() for task in worker.assigned.values()]
        running = [task for task in self.engine.tasks.values() if task.state is State.RUNNING]
        assert sorted(task.id for task in assigned) == sorted(task.id for task in running)
        for task in running:
            assert task.id in self.engine.workers[task.worker or ""].assigned

    @invariant()
    def an_end_stays_until_somebody_requeues(self) -> None:
        for task_id, state in self.terminal.items():
            assert self.state(task_id) is state
        self.terminal = {task_id: task.state for task_id, task in self.engine.ended.items()}

    @invariant()
    def a_result_is_one_that_was_reported(self) -> None:
        for task in self.engine.ended.values():
            if task.state is State.SUCCEEDED:
                assert task.result in self.results[task.id]

    @invariant()
    def limits_are_kept(self) -> None:
        for task in [*self.engine.tasks.values(), *self.engine.ended.values()]:
            assert task.failures <= (task.options.retries or 0) + 1
            assert task.crashes <= PATIENCE.max_crashes


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
