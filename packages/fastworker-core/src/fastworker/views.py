"""What the control plane shows of itself, for people and programs. Times are seconds since 1970 (UTC)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Hold = Literal["paused", "no capable worker", "recovering"]


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One connected worker.

    Attributes:
        name: made of host and process id, unless it was given.
        own: belongs to the control plane: works only where no other worker can.
        slots: tasks that it runs at once.
        assigned: tasks that it has now.
        silent_for: seconds since it was last heard.
        connected: False while its connection is broken and it keeps its tasks.
    """

    name: str
    host: str
    pid: int
    release: str
    own: bool
    slots: int
    assigned: int
    finished: int
    failed: int
    since: float
    silent_for: float
    connected: bool
    tasks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LaneView:
    """One lane: what is queued under one queue and task name.

    Attributes:
        queued: how much waits, by priority.
        oldest: since when the head of the lane has been waiting.
        held: why nothing of it is started; None if it is open.
    """

    queue: str
    name: str
    queued: dict[str, int]
    oldest: float | None = None
    held: str | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of the whole system.

    Attributes:
        states: tasks per state; for ended ones, since the store was made.
        version: moves of tasks since the control plane started.
    """

    instance: str
    release: str
    pid: int
    started: float
    store: str
    listen: list[str]
    states: dict[str, int]
    workers: int
    slots: int
    version: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task is not running.

    Attributes:
        state: where it stands.
        reason: one sentence for a person.
        code: one word for a program.
        until: when that changes by itself, if it does.
        ahead: queued tasks that go before it.
        advice: what to do about it.
    """

    task: str
    state: str
    code: str
    reason: str
    until: float | None = None
    ahead: int | None = None
    advice: str | None = None
