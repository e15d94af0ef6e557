"""Middleware: code around each submission and each run, as an onion.

A middleware sees what goes in, calls `call_next`, and sees what comes out. The first one added is the outermost.
Installed packages add theirs through the entry-point group `fastworker.middleware`; an application calls
`add_middleware`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from importlib.metadata import entry_points
from typing import Any

from fastworker.context import CurrentTask
from fastworker.protocol import Submission
from fastworker.tasks import Task

SubmitNext = Callable[[Sequence[Submission]], Awaitable[None]]
RunNext = Callable[[CurrentTask], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Gauges:
    """How full a control plane is.

    Attributes:
        queued: queued tasks by priority.
        workers: connected workers.
        slots: tasks that they can run at once.
        busy: how many of these are taken.
    """

    queued: Mapping[str, int]
    workers: int
    slots: int
    busy: int


class Middleware:
    """Override what you need.

    Attributes:
        enabled: while False, it is passed over; asked at each submission, and once when a worker starts.
        suspends: False promises that `run` awaits nothing but `call_next`. Then functions that block need not go
            through the event loop.
    """

    enabled: bool = True
    suspends: bool = True

    async def submit(self, submissions: Sequence[Submission], call_next: SubmitNext) -> None:
        """Around one submit request, in the client. May change `headers`; may raise to refuse."""
        await call_next(submissions)

    async def run(self, task: CurrentTask, call_next: RunNext) -> Any:
        """Around one attempt, in the worker. `call_next` returns the task's result or raises its exception."""
        return await call_next(task)

    def schedule(self, submission: Submission) -> None:
        """In a control plane: a schedule submits a task. May change `headers`; must not block."""

    def retry(self, task: Task, now: float) -> None:
        """In a control plane: an attempt has failed, and there will be another at `task.due_at`. Must not block."""

    def measure(self, gauges: Callable[[], Gauges | None]) -> None:
        """In a control plane, once: what tells from any other thread how full it is; None when it has stopped."""

    def flush(self) -> None:
        """A worker, a control plane, or an application with its client, ends; so may its process, without another
        word. May block."""


_added: list[Middleware] = []


def add_middleware(middleware: Middleware) -> None:
    """Use a middleware in this process, inside those that were added before."""
    _added.append(middleware)


def remove_middleware(middleware: Middleware) -> None:
    """Stop to use it."""
    _added.remove(middleware)


@cache
def _installed() -> tuple[Middleware, ...]:
    return tuple(point.load()() for point in sorted(entry_points(group="fastworker.middleware")))


def active_middleware() -> Sequence[Middleware]:
    """All middleware of this process that is enabled, outermost first."""
    return [middleware for middleware in (*_installed(), *_added) if middleware.enabled]


def around_submit(middleware: Sequence[Middleware], innermost: SubmitNext) -> SubmitNext:
    """The onion for submissions."""

    def wrap(call_next: SubmitNext, layer: Middleware) -> SubmitNext:
        return lambda submissions: layer.submit(submissions, call_next)

    return reduce(wrap, reversed(middleware), innermost)


def around_run(middleware: Sequence[Middleware], innermost: RunNext) -> RunNext:
    """The onion for runs."""

    def wrap(call_next: RunNext, layer: Middleware) -> RunNext:
        return lambda task: layer.run(task, call_next)

    return reduce(wrap, reversed(middleware), innermost)
