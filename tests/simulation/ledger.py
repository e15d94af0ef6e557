"""What really happened, noted where it happened: at the workers, the clients and the network."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from fastworker.lifecycle import State
from fastworker.protocol import Ended, Outcome, Submission
from tests.simulation.world import Process, World


class Violation(AssertionError):
    """A promise was broken."""


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
    executions: dict[str, list[Execution]] = field(default_factory=lambda: defaultdict(list))
    requeues: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    cancelled: set[str] = field(default_factory=set)
    """Told to be cancelled before it was started."""
    cancels_asked: set[str] = field(default_factory=set)
    requeues_asked: set[str] = field(default_factory=set)
    resumes: Counter[tuple[str, str]] = field(default_factory=Counter)
    resuming: Counter[tuple[str, str]] = field(default_factory=Counter)
    watched: dict[tuple[str, str], Ended | None] = field(default_factory=dict)
    """By client and task: the end that was told, None while it is awaited."""
    ends: dict[str, list[tuple[State, str | None]]] = field(default_factory=lambda: defaultdict(list))
    """Each end that the engine gave to a task."""
    paused: set[tuple[str, str]] = field(default_factory=set)
    """What is held: said by a client and answered, and not yet asked to go on."""
    submitting: Counter[str] = field(default_factory=Counter)
    """By client: requests that are not accepted yet."""
    all_resumed: bool = False
    on_execution: Callable[[Execution], None] = lambda _execution: None

    def say(self, who: str, what: str) -> None:
        """Write a line of the trace."""
        if self.tracing:
            self.trace.append(f"{self.world.now - 1_750_000_000:10.4f} {who:<14} {what}")

    def begin(self, execution: Execution) -> None:
        """A worker starts to run a task's code."""
        self.say(execution.process.name, f"runs {short(execution.task_id)}/{execution.attempt}")
        self.on_execution(execution)
        self.executions[execution.task_id].append(execution)

    def end(self, execution: Execution, status: str, result: str | None) -> None:
        """The code has ended."""
        execution.ended, execution.status, execution.result = self.world.now, status, result
        self.say(execution.process.name, f"ends {short(execution.task_id)}/{execution.attempt}: {status}")

    def find(self, outcome: Outcome, worker: str) -> Execution | None:
        """The execution that had this outcome. A task that was lost unaccepted may use its attempt numbers again."""
        for execution in reversed(self.executions.get(outcome.id, ())):
            same = (execution.attempt, execution.started) == (outcome.attempt, outcome.started)
            if same and execution.process.name == worker:
                return execution
        return None

    def dead_ends(self) -> list[str]:
        """Ends that clients still wait for."""
        return [
            f"{client} waits for {short(task_id)}" for (client, task_id), end in self.watched.items() if end is None
        ]


def short(task_id: str) -> str:
    """Enough of an id to tell it from others in one simulation."""
    return f"{int(task_id[-12:-4])}.{int(task_id[-4:])}"
