"""What a control plane shows to middleware: runs of schedules, retries, how full it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from fastworker.lifecycle import State
from fastworker.middleware import Gauges, active_middleware
from fastworker.protocol import Submission
from fastworker.tasks import PRIORITIES
from fastworker_server.engine import Engine
from fastworker_server.queue import Moved

logger = logging.getLogger("fastworker.control_plane")

ANSWER_WITHIN: Final = 1.0
"""Seconds that another thread waits for gauges: the control plane's own thread has other things to do."""


class Onlookers:
    """The middleware that is active where a control plane starts. What goes wrong in it does not concern the queue."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._middleware = active_middleware()
        self._loop = asyncio.get_running_loop()
        self._stopped = False

    def begin(self) -> None:
        """Offer the gauges."""
        for layer in self._middleware:
            self._call(layer.measure, self._from_another_thread)

    async def end(self) -> None:
        """Export what waits; there is no more to be seen."""
        for layer in self._middleware:
            await asyncio.to_thread(self._call, layer.flush)
        self._stopped = True

    def schedule(self, submission: Submission) -> None:
        """A schedule is about to submit a task."""
        for layer in self._middleware:
            self._call(layer.schedule, submission)

    def tell(self, moves: Sequence[Moved]) -> None:
        """Tasks have moved."""
        if not self._middleware:
            return
        for moved in moves:
            if moved.after is State.RETRYING:
                for layer in self._middleware:
                    self._call(layer.retry, moved.task, moved.at)

    def _call(self, hook: Callable[..., None], *args: Any) -> None:
        try:
            hook(*args)
        except Exception:
            logger.exception("middleware failed; the queue goes on without it")

    # ---- gauges --------------------------------------------------------------------------------------------------

    def _gauges(self) -> Gauges:
        workers = [worker for worker in self._engine.workers.values() if worker.connected]
        return Gauges(
            queued={priority.value: self._engine.lanes.queued(priority.rank) for priority in PRIORITIES},
            workers=len(workers),
            slots=sum(worker.slots for worker in workers),
            busy=sum(min(len(worker.assigned), worker.slots) for worker in workers),
        )

    def _from_another_thread(self) -> Gauges | None:
        answer: Future[Gauges] = Future()
        if not self._stopped:
            with suppress(RuntimeError, TimeoutError):  # its loop has ended, or it is very busy
                self._loop.call_soon_threadsafe(lambda: answer.set_result(self._gauges()))
                return answer.result(ANSWER_WITHIN)
        return None
