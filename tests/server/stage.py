"""What engine tests share: an engine with a clock that the test moves, and short ways to say what happens."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from fastworker.lifecycle import State
from fastworker.limits import TaskLimits
from fastworker.protocol import PROTOCOL_VERSION, Hello, Outcome, Outcome_, Submission, Token
from fastworker.tasks import Definition, ErrorInfo, Options, Task
from fastworker_server.engine import Engine
from fastworker_server.queue import Patience
from fastworker_server.workers import WorkerRecord

START = 1000.0


def submission(task_id: str, name: str = "add", options: Options | None = None) -> Submission:
    """A task to be queued."""
    return Submission(task_id, name, "[]", options)


def hello(name: str, slots: int, *names: str, own: bool = False, holding: Sequence[Token] = (), pid: int = 1) -> Hello:
    """A worker introduces itself."""
    definitions = [Definition(task_name) for task_name in names]
    return Hello("worker", PROTOCOL_VERSION, name, "host", pid, "1", slots, own, definitions, list(holding))


class Stage:
    """An engine, its clock, and the workers in front of it."""

    def __init__(self, **patience: Any) -> None:
        self.now = START
        self.engine = Engine(Patience(**patience), Random(0))

    # ---- clients -------------------------------------------------------------------------------------------------

    def submit(self, task_id: str, name: str = "add", **said: Any) -> Task:
        """Queue a task."""
        task = self.engine.submit(submission(task_id, name, Options(**said) if said else None), self.now)
        assert task is not None, f"{task_id} is known already"
        return task

    def task(self, task_id: str) -> Task:
        """A task, open or ended."""
        return self.engine.tasks.get(task_id) or self.engine.ended[task_id]

    def state(self, task_id: str) -> State:
        """Where a task stands."""
        return self.task(task_id).state

    def limit(self, name: str, limits: TaskLimits | None) -> None:
        """Set the limits of a task name."""
        self.engine.limits.set(name, limits)
        self.engine.limits_changed([name], self.now)

    # ---- workers -------------------------------------------------------------------------------------------------

    def join(self, name: str = "w", slots: int = 1, *names: str, **said: Any) -> WorkerRecord:
        """A worker comes; it knows `add` if nothing else is said."""
        return self.engine.join(hello(name, slots, *(names or ("add",)), **said), self.now)[0]

    def dispatch(self) -> list[tuple[str, str, int]]:
        """Start what can be started: worker, task id, attempt of each."""
        return [(worker.name, order.id, order.attempt) for worker, order in self.engine.dispatch(self.now)]

    def started(self) -> list[str]:
        """Start what can be started: the ids, in order."""
        return [task_id for _, task_id, _ in self.dispatch()]

    def report(self, task_id: str, status: Outcome_ = "succeeded", attempt: int | None = None, **said: Any) -> None:
        """The worker of a task reports how its attempt ended."""
        task = self.task(task_id)
        worker = said.pop("worker", None) or self.engine.workers[task.worker or ""]
        error = ErrorInfo("builtins.ValueError", "bad luck") if status in ("failed", "timeout") else None
        ran = said.pop("ran", 1.0)
        result = said.pop("result", "3" if status == "succeeded" else None)
        outcome = Outcome(task_id, attempt or task.attempt, status, self.now, ran, result, error, **said)
        self.engine.report(worker, [outcome], self.now)

    # ---- time ----------------------------------------------------------------------------------------------------

    def advance(self, seconds: float, *, silent: bool = False) -> None:
        """Time passes, timer by timer. `silent`: no worker says anything meanwhile."""
        end = self.now + seconds
        while True:
            due = self.engine.timers.next_due()
            self.now = min(max(self.now, due), end)
            for worker in () if silent else self.engine.workers.values():
                if worker.connected:
                    self.engine.heard(worker, self.now)
            if due > end:
                break
            self.engine.timers.fire_due(self.now)
