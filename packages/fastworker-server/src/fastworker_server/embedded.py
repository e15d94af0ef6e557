"""A control plane and a worker inside another program, e.g. a web application: no process of their own.

Of several processes that want the same one, the first to lock a file serves. The others connect to it and watch the
lock, which the system releases when its holder ends, however that comes about: then the next one serves.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from fastworker.addresses import checked, runtime_directory
from fastworker.errors import ConfigurationError, FastWorkerError
from fastworker.settings import Settings, load_settings
from fastworker_server.control_plane import ControlPlane
from fastworker_server.own_workers import OwnWorkers, own_workers

logger = logging.getLogger("fastworker.embedded")

LOOK_EVERY: Final = 0.25
"""Seconds between looks whether the one that serves is gone."""
TRY_AGAIN_AFTER: Final = 1.0
GRACE: Final = 5.0
"""Seconds that running tasks get when the program ends, unless the setting `grace` was given."""


class Embedded:
    """Serves, or waits to be the next that does. It lives in a thread with an event loop of its own.

    Args:
        url: the socket (`ipc://…`) where it listens; default: one of its own for each folder of a store.
        settings: see `Settings`; default: of the environment.

    Attributes:
        url: where the one that serves listens.
        serving: whether that is this one.
    """

    def __init__(self, url: str | None = None, settings: Settings | None = None) -> None:
        settings = settings or load_settings()
        self.url = _socket(url, settings.store_path)
        grace = settings.grace if "grace" in settings.model_fields_set else GRACE
        self._settings = settings.model_copy(update={"listen": [self.url], "grace": grace})
        self._lock = FileLock(runtime_directory() / f"embedded-{_digest(self.url)}.lock", thread_local=False)
        self._control_plane: ControlPlane | None = None
        self._workers: OwnWorkers | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def serving(self) -> bool:
        """Whether this is the one that serves."""
        return self._workers is not None

    async def start(self) -> None:
        """Serve, unless another one does.

        Raises:
            StoreError: the store can't be used.
            AddressInUse: another process listens at one of the addresses.
            ModuleImportError: one of the modules of the settings can't be imported.
        """
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="fastworker-embedded", daemon=True).start()
        try:
            await self._there(self._begin())
        except BaseException:
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise

    async def stop(self) -> None:
        """Drain the worker, close the store, and let another one serve."""
        await self._there(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _there[T](self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    # ---- in the thread -------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        if not await self._serve_if_nobody_does():
            logger.info("another process serves at %s: this one takes over when it ends", self.url)
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                if await self._serve_if_nobody_does():
                    return
            except FastWorkerError as error:
                logger.error("could not take over: %s; trying again in %g s", error, TRY_AGAIN_AFTER)
                await asyncio.sleep(TRY_AGAIN_AFTER)

    async def _serve_if_nobody_does(self) -> bool:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        try:
            await self._serve()
        except BaseException:
            self._lock.release()
            raise
        return True

    async def _serve(self) -> None:
        control_plane = ControlPlane(self._settings)
        await control_plane.start()
        try:
            workers = own_workers(control_plane, self._settings.modules, "info", in_process=True)
            workers.start()
            await workers.first_failure()
        except BaseException:
            await control_plane.stop()
            raise
        self._control_plane, self._workers = control_plane, workers
        logger.info("process %d serves at %s, with %s", os.getpid(), self.url, control_plane.describe_store())

    async def _end(self) -> None:
        """First the worker, so that its last outcomes are recorded; the lock last, so that the next finds all free."""
        if self._watching is not None:
            self._watching.cancel()
        control_plane, workers = self._control_plane, self._workers
        self._control_plane = self._workers = self._watching = None
        if control_plane is not None and workers is not None:
            await workers.stop()
            await control_plane.stop()
            self._lock.release()


def _socket(url: str | None, store: Path) -> str:
    if url is not None and not url.startswith("ipc://"):
        raise ConfigurationError(f"{url!r}: what is embedded is reached through a socket of this host, ipc:///path")
    return checked(url or f"ipc://{runtime_directory() / f'embedded-{_digest(str(store.resolve()))}'}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
