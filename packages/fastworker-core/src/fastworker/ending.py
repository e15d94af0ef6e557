"""Where the end of one watched task arrives."""

from __future__ import annotations

import asyncio

from fastworker.protocol import Ended


class Ending:
    """Where the end of one watched task arrives."""

    __slots__ = ("__weakref__", "_waiting", "ended", "task_id")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.ended: Ended | None = None
        self._waiting: tuple[asyncio.Future[None], ...] = ()

    def arrive(self, ended: Ended) -> None:
        """The task has ended."""
        self.ended = ended
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self) -> Ended:
        """Wait for the end."""
        while self.ended is None:
            future = asyncio.get_running_loop().create_future()
            self._waiting += (future,)
            try:
                await future
            finally:
                self._waiting = tuple(other for other in self._waiting if other is not future)
        return self.ended

    def fail(self, error: Exception) -> None:
        """It will never be known here."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)
