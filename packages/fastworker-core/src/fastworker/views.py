"""What the control plane shows of itself, for people and programs. Times are seconds since 1970 (UTC)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fastworker.lifecycle import State
from fastworker.limits import RateLimit
from fastworker.protocol import Schedule

ScheduleSource = Literal["code", "run time"]
ScheduleState = Literal["active", "paused", "finished", "not in the code"]
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
        paused: it gets no new tasks until somebody resumes it.
        memory: bytes that it held a few seconds ago, with its process slots; None if it has not told.
        per_second: attempts that it ended lately, on average over about ten seconds.
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
    paused: bool = False
    tasks: list[str] = field(default_factory=list)
    memory: int | None = None
    per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class LaneView:
    """One lane: what is queued under one queue, task name and limit key.

    Attributes:
        queued: how much waits, by priority.
        oldest: since when the head of the lane has been waiting.
        held: why nothing of it is started; None if it is open.
        key: the limit key; None where tasks have none.
        held_until: when it opens again, if that is known.
        running: how many of its tasks run, where a limit counts them.
    """

    queue: str
    name: str
    queued: dict[str, int]
    oldest: float | None = None
    held: str | None = None
    key: str | None = None
    held_until: float | None = None
    running: int | None = None


@dataclass(frozen=True, slots=True)
class LimitsView:
    """The limits of one task name.

    Attributes:
        set_by_client: they were set at run time, and go before what the definition says.
    """

    name: str
    rates: tuple[RateLimit, ...]
    max_concurrency: int | None
    set_by_client: bool


@dataclass(frozen=True, slots=True)
class WorkflowNode:
    """One task of a workflow.

    Attributes:
        needs: the tasks whose results it gets.
        parent: the task that submitted it.
    """

    id: str
    name: str
    state: State
    needs: tuple[str, ...] = ()
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of the whole system.

    Attributes:
        states: tasks per state; for ended ones, since the store was made.
        version: the number of the last move of a task. It only grows, also over restarts.
        refused: connections and messages that were refused since the control plane started, by reason.
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
    refused: dict[str, int] = field(default_factory=dict)


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


@dataclass(frozen=True, slots=True)
class Firing:
    """What became of a due time of a schedule, or of several in a row that met the same fate.

    Attributes:
        due: the due time, or the first of several.
        at: when its fate was decided.
        task: the task that ran; None if it was skipped.
        until: the last of several due times.
        why: why it was skipped, or ran out of turn.
    """

    due: float
    at: float
    task: str | None = None
    until: float | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """One schedule.

    Attributes:
        source: whether it stands in the code, at `@task`, or was added at run time.
        state: `not in the code`: it was, and the newest worker's code does not have it any more; it rests.
        known: whether a connected worker knows its task; if not, its runs wait for one.
        words: when it runs, in plain words.
        next: the next five runs.
        fired: how often it has run by itself.
        running: the task of its last run, if that has not ended.
        owed: the due time of a run that waits for that.
        history: the last twenty entries, the newest first.
    """

    schedule: Schedule
    source: ScheduleSource
    state: ScheduleState
    known: bool
    words: str
    next: list[float]
    created: float
    fired: int = 0
    running: str | None = None
    owed: float | None = None
    history: list[Firing] = field(default_factory=list)
