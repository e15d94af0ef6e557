"""One background event loop per process, for blocking code and for the default client."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

from fastworker.errors import ConfigurationError
from fastworker.forks import refuse_if_forked

LAST_WORDS = 5.0
"""Seconds that the loop gets to close what is open when the process ends."""


class Portal:
    """An event loop in a background thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._closers: list[Callable[[], Awaitable[None]]] = []
        threading.Thread(target=self.loop.run_forever, name="fastworker-client", daemon=True).start()

    def submit[T](self, work: Awaitable[T]) -> Future[T]:
        """Run it in the loop."""

        async def run() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self.loop)

    def close_with(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Run this in the loop before the process ends."""
        self._closers.append(closer)

    def close(self) -> None:
        """End the loop, in the process that made it."""
        if self.pid != os.getpid():
            return
        for closer in self._closers:
            self.submit(closer()).result(LAST_WORDS)
        self.loop.call_soon_threadsafe(self.loop.stop)


_portal: Portal | None = None
_making = threading.Lock()


def portal() -> Portal:
    """The background loop of this process, made at first use.

    Raises:
        ForkError: the process was forked from one that was connected already.
    """
    global _portal
    with _making:
        if _portal is not None and _portal.pid != os.getpid():
            refuse_if_forked()
            _portal = None
        if _portal is None:
            _portal = Portal()
            atexit.register(_portal.close)
        return _portal


def wait_for[T](work: Awaitable[T], timeout: float | None = None) -> T:
    """Run a coroutine on the background loop and wait for it, from blocking code.

    Raises:
        ConfigurationError: called inside the background loop itself, where waiting would never end.
    """
    door = portal()
    try:
        inside = asyncio.get_running_loop() is door.loop
    except RuntimeError:
        inside = False
    if inside:
        raise ConfigurationError("a blocking call inside FastWorker's own event loop would never end: await it instead")
    return door.submit(work).result(timeout)
