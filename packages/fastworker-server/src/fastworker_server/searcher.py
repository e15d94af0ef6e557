"""Searches: what the tally knows at once, and what the store has to look for."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from fastworker.found import Facets, FailureGroup
from fastworker.search import TaskFilter
from fastworker.tasks import Task
from fastworker_server.storage import rows, search
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.tally import Tally


@dataclass(frozen=True, slots=True)
class FoundTasks:
    """One page; `next` and `complete` as in `fastworker.found.TaskPage`."""

    tasks: Sequence[Task]
    next: int | None
    complete: bool


class Searcher:
    """Answers searches, over all that was submitted when the search arrived."""

    def __init__(self, store: SqliteStore, tally: Tally) -> None:
        self._store = store
        self._tally = tally

    async def page(self, wanted: TaskFilter, limit: int, before: int | None, *, current: bool = True) -> FoundTasks:
        """One page of tasks, newest first. `current`: False waits for no commit; the latest moves may be missing."""
        if current:
            await self._current()
        kinds = self._tally.kinds(wanted)
        look = partial(search.find, wanted=wanted, kinds=kinds, limit=limit, before=before, words=self._words)
        return await self._store.read(lambda db: _with_tasks(db, look(db)))

    async def facets(self, wanted: TaskFilter) -> Facets:
        """How many tasks fit; of searches that the tally can't answer, only the newest are counted."""
        if wanted == wanted.but(
            words=(), ids=(), worker=None, tags=(), args=(), error=(), type=None, place=None,
            before=None, after=None, longer=None,
        ):  # fmt: skip
            return self._tally.facets(wanted)
        await self._current()
        kinds = self._tally.kinds(wanted)
        look = partial(
            search.find, wanted=wanted, kinds=kinds, limit=search.MOST_COUNTED, before=None, words=self._words,
            seconds=search.COUNT_FOR,
        )  # fmt: skip
        return await self._store.read(lambda db: search.count(db, look(db)))

    async def failures(self, limit: int) -> list[FailureGroup]:
        """Failed tasks by name, exception and place."""
        await self._current()
        return await self._store.read(partial(search.failure_groups, limit=limit))

    @property
    def _words(self) -> bool:
        return self._store.indexer.words

    async def _current(self) -> None:
        await self._store.saved(try_once=True)
        await self._store.indexer.catch_up()


def _with_tasks(db: sqlite3.Connection, found: search.FoundSeqs) -> FoundTasks:
    marks = ", ".join("?" * len(found.seqs))
    sql = f"SELECT {rows.COLUMNS} FROM tasks WHERE seq IN ({marks}) ORDER BY seq DESC"
    return FoundTasks([rows.task_from(row) for row in db.execute(sql, found.seqs)], found.next, found.complete)
