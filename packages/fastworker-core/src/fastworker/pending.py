"""What a client has asked and not been answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from fastworker.errors import ConnectionFailed


class Pending[M]:
    """Requests by their number, oldest first.

    Each is given up after the same time, so one timer does for all: a timer each would cost as much as the rest of a
    submission.

    Args:
        patience: seconds after which a request without an answer fails.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._waiting: dict[int, tuple[M, asyncio.Future[Any], float]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[M]:
        return iter([message for message, answer, _ in self._waiting.values() if not answer.done()])

    def add(self, request: int, message: M, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
        """A request was sent: where its answer will be. Cancel it if nobody waits any more."""
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting[request] = message, answer, loop.time() + self._patience
        if self._timer is None:
            self._timer = loop.call_later(self._patience, self._look, loop)
        return answer

    def finish(self, request: int, outcome: Any) -> None:
        """The answer has come; an exception is raised where it is awaited."""
        _, answer, _ = self._waiting.pop(request, (None, None, 0.0))
        if answer is None or answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def fail_all(self, error: ConnectionFailed) -> None:
        """No answer will come."""
        waiting, self._waiting = self._waiting, {}
        for _, answer, _ in waiting.values():
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # nobody may be waiting any more: no complaint then
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up what is overdue."""
        self._timer = None
        for request, (_, answer, due) in list(self._waiting.items()):
            if due > loop.time() and not answer.done():
                self._timer = loop.call_at(due, self._look, loop)
                return
            limit = f"the control plane has not answered for {self._patience:g} s"
            self.finish(request, ConnectionFailed(f"{limit}; what was asked may or may not have been done"))
