"""What really happened, noted where it happened: at the workers, the clients and the network."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from fastworker.lifecycle import State
from fastworker.protocol import Ended, Order, Outcome, Submission
from fastworker.tasks import is_idempotent_id
from tests.simulation.world import Process, World


class Violation(AssertionError):
    """A promise was broken."""


NEVER_ACCEPTED = "never accepted"
"""Why an execution was given up: its task was lost before anybody was told that it is safe."""


@dataclass
class Execution:
    """One run of a task's code."""

    task_id: str
    attempt: int
    process: Process
    started: float
    ended: float | None = None
    status: str | None = None
    result: str | None = None
    holds_for: float | None = None
    """Seconds in which it asked that none like it starts."""
    given_up: str | None = None
    """Why another execution of the task is no fault of ours."""


@dataclass
class Ledger:
    """All notes of one simulation."""

    world: World
    tracing: bool = False
    trace: list[str] = field(default_factory=list)
    submitted: dict[str, Submission] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    in_order: list[str] = field(default_factory=list)
    """The accepted ones, as they came."""
    executions: dict[str, list[Execution]] = field(default_factory=lambda: defaultdict(list))
    requeues: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    cancelled: set[str] = field(default_factory=set)
    """Told to be cancelled before it was started."""
    cancels_asked: set[str] = field(default_factory=set)
    workflow_cancels_asked: set[str] = field(default_factory=set)
    requeues_asked: set[str] = field(default_factory=set)
    requeues_told: set[str] = field(default_factory=set)
    args_asked: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """All arguments that clients wanted a task to run on."""
    ranks_asked: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    rejected: set[str] = field(default_factory=set)
    """Tasks whose clients were told that they are not taken in."""
    graphs: list[list[str]] = field(default_factory=list)
    resumes: Counter[tuple[str, str]] = field(default_factory=Counter)
    resuming: Counter[tuple[str, str]] = field(default_factory=Counter)
    watched: dict[tuple[str, str], Ended | None] = field(default_factory=dict)
    """By client and task: the end that was told, None while it is awaited."""
    ends: dict[str, list[tuple[State, str | None]]] = field(default_factory=lambda: defaultdict(list))
    """Each end that the engine gave to a task."""
    paused: set[tuple[str, str]] = field(default_factory=set)
    """What is held: said by a client and answered, and not yet asked to go on."""
    submissions: Counter[str] = field(default_factory=Counter)
    """By task: how often it was submitted."""
    submitting: Counter[str] = field(default_factory=Counter)
    """By client: requests that are not accepted yet."""
    all_resumed: bool = False
    on_execution: Callable[[Execution, Order], None] = lambda _execution, _order: None

    def say(self, who: str, what: str) -> None:
        """Write a line of the trace."""
        if self.tracing:
            self.trace.append(f"{self.world.now - 1_750_000_000:10.4f} {who:<14} {what}")

    def submits(self, submission: Submission) -> None:
        """A client submits a task; of one with an idempotency key only the arguments differ from client to client."""
        self.rejected.discard(submission.id)  # its client tries once more
        self.submitted.setdefault(submission.id, submission)
        self.args_asked[submission.id].append(submission.args)
        self.submissions[submission.id] += 1

    def is_contested(self, lock: str) -> bool:
        """Whether a task was submitted that takes the place of the one that holds this lock."""
        return any(
            task.ties is not None and (task.ties.unique, task.ties.on_duplicate) == (lock, "replace")
            for task in self.submitted.values()
        )

    def accept(self, task_id: str) -> None:
        """A client was told that this task is safe."""
        if task_id not in self.accepted:
            self.accepted.add(task_id)
            self.in_order.append(task_id)

    def begin(self, execution: Execution, order: Order) -> None:
        """A worker starts to run a task's code."""
        self.say(execution.process.name, f"runs {short(execution.task_id)}/{execution.attempt}")
        self.on_execution(execution, order)
        self.executions[execution.task_id].append(execution)

    def end(self, execution: Execution, status: str, result: str | None) -> None:
        """The code has ended."""
        execution.ended, execution.status, execution.result = self.world.now, status, result
        self.say(execution.process.name, f"ends {short(execution.task_id)}/{execution.attempt}: {status}")

    def find(self, outcome: Outcome, worker: str) -> Execution | None:
        """The execution that had this outcome."""
        for execution in reversed(self.executions.get(outcome.id, ())):
            same = (execution.attempt, execution.started) == (outcome.attempt, outcome.started)
            if same and execution.process.name == worker:
                return execution
        return None

    def current(self, task_id: str, attempt: int) -> list[Execution]:
        """The executions of one attempt. A task that was lost unaccepted may use its attempt numbers again."""
        executions = self.executions.get(task_id, ())
        return [one for one in executions if one.attempt == attempt and one.given_up != NEVER_ACCEPTED]

    def dead_ends(self) -> list[str]:
        """Ends that clients still wait for."""
        return [
            f"{client} waits for {short(task_id)}" for (client, task_id), end in self.watched.items() if end is None
        ]


def short(task_id: str) -> str:
    """Enough of an id to tell it from others in one simulation."""
    if is_idempotent_id(task_id):
        return task_id[:8]
    return f"{int(task_id[-12:-4])}.{int(task_id[-4:])}"
