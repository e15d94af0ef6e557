"""Keeps the index of words up to date behind the commits, in the writer thread, a little at a time."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import batched
from typing import Final

from fastworker.errors import StoreError
from fastworker_server.storage import words
from fastworker_server.storage.transaction import transaction

logger = logging.getLogger("fastworker.store")

PAUSE: Final = 0.1
"""Seconds between two goes while the store is written: it takes 2 to 4 % of the writer's time then."""
REST: Final = 0.005
"""Seconds between two goes while nothing else is written."""
AFTER_FAILURE: Final = 30.0
FAILURES_AT_ONCE: Final = 100
"""Failures that are entered in one go: 1 to 2 ms, for which a commit may have to wait."""

Do = Callable[[Callable[[sqlite3.Connection], bool]], Awaitable[bool]]


class Indexer:
    """Writes what `fastworker_server.storage.search` reads and no commit needs to wait for.

    Args:
        do: runs a call in the writer thread.
    """

    def __init__(self, do: Do) -> None:
        self._do = do
        self._changed: dict[int, bool] = {}  # tasks that were failures or are, and whether they may be
        self._timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[None] | None = None
        self._entering = asyncio.Lock()
        self._behind = False
        self._written = 0
        self.words = False

    def open(self, db: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Make the tables, and see what is missing in them; in the writer thread."""
        self._loop = loop
        self.words = words.prepare(db)
        self._changed = dict.fromkeys(words.missed_failures(db), True)
        self._behind = self.words

    def close(self) -> None:
        """No more."""
        self._cancel()
        self.words = self._behind = False

    def written(self, inserted: int) -> None:
        """A commit has been made, with so many new tasks."""
        self._written += inserted
        self._behind = self._behind or (self.words and inserted > 0) or bool(self._changed)
        if self._behind and self._timer is None and self._work is None:
            self._start_in(PAUSE)

    def failed(self, seqs: Iterable[int]) -> None:
        """These tasks have failed."""
        self._changed.update(dict.fromkeys(seqs, True))

    def failed_no_more(self, seqs: Iterable[int]) -> None:
        """These tasks are queued again: to take them out takes a third of the time that entering takes."""
        for seq in seqs:
            self._changed.setdefault(seq, False)

    async def catch_up(self) -> None:
        """Enter the failures that were not entered yet, and take out those that are none any more.

        Raises:
            StoreError: the store can't be written.
        """
        async with self._entering:
            left, self._changed = self._changed, {}
            try:
                for change, failed in ((self._take_out, False), (self._enter_failures, True)):
                    for some in batched([seq for seq, may_be in left.items() if may_be is failed], FAILURES_AT_ONCE):
                        await self._do(partial(change, some))
                        for seq in some:
                            del left[seq]
            finally:
                self._changed = left | self._changed

    def forget(self, db: sqlite3.Connection, seqs: Iterable[int]) -> None:
        """These tasks are deleted; inside the transaction that does it."""
        words.forget(db, seqs, with_words=self.words)

    # ---- behind the commits --------------------------------------------------------------------------------------

    def _start_in(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._start)

    def _start(self) -> None:
        self._timer = None
        self._work = self._loop.create_task(self._go())

    async def _go(self) -> None:
        wait = PAUSE if self._written else REST
        self._written = 0
        try:
            await self.catch_up()
            more = self.words and await self._do(self._enter_arguments)
            self._behind = more or bool(self._changed)
        except StoreError as error:
            logger.warning("the index of words can't be written: %s; trying again in %.0f s", error, AFTER_FAILURE)
            wait = AFTER_FAILURE
        self._work = None
        if self._behind:
            self._start_in(wait)

    def _enter_arguments(self, db: sqlite3.Connection) -> bool:
        with transaction(db):
            return words.enter_arguments(db)

    def _enter_failures(self, seqs: Iterable[int], db: sqlite3.Connection) -> bool:
        with transaction(db):
            words.enter_failures(db, seqs, with_words=self.words)
        return True

    def _take_out(self, seqs: Iterable[int], db: sqlite3.Connection) -> bool:
        with transaction(db):
            words.take_out_failures(db, seqs)
        return True

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._work is not None:
            self._work.cancel()
        self._timer = self._work = None
