"""Middleware: code around each submission and each run, as an onion.

A middleware sees what goes in, calls `call_next`, and sees what comes out. The first one added is the outermost.
Installed packages add theirs through the entry-point group `fastworker.middleware`; an application calls
`add_middleware`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import cache, reduce
from importlib.metadata import entry_points
from typing import Any

from fastworker.context import CurrentTask
from fastworker.protocol import Submission

SubmitNext = Callable[[Sequence[Submission]], Awaitable[None]]
RunNext = Callable[[CurrentTask], Awaitable[Any]]


class Middleware:
    """Override what you need."""

    async def submit(self, submissions: Sequence[Submission], call_next: SubmitNext) -> None:
        """Around one submit request, in the client. May change `headers`; may raise to refuse."""
        await call_next(submissions)

    async def run(self, task: CurrentTask, call_next: RunNext) -> Any:
        """Around one attempt, in the worker. `call_next` returns the task's result or raises its exception."""
        return await call_next(task)


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
    """All middleware of this process, outermost first."""
    return (*_installed(), *_added)


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
