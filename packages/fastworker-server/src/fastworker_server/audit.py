"""Who did what: one row for each action of a person, in the store."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Sequence
from typing import Final

from fastworker.activity import AuditRow
from fastworker_server.storage.sqlite import SqliteStore
from fastworker_server.storage.transaction import transaction

logger = logging.getLogger("fastworker.audit")

KEPT: Final = 10_000
LONGEST: Final = 500


class Audit:
    """The last `KEPT` rows."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def note(self, who: str, action: str, target: str, now: float) -> None:
        """Write a row; it is in the store when this is done."""
        logger.info("%s: %s %s", who, action, target)
        row = (now, who[:LONGEST], action[:LONGEST], target[:LONGEST])

        def write(db: sqlite3.Connection) -> None:
            with transaction(db):
                db.execute("INSERT INTO audit (at, who, action, target) VALUES (?, ?, ?, ?)", row)
                db.execute("DELETE FROM audit WHERE number <= (SELECT max(number) FROM audit) - ?", (KEPT,))

        await self._store.do(write)

    def rows(self, limit: int, before: int | None) -> Awaitable[Sequence[AuditRow]]:
        """Rows, newest first."""

        def read(db: sqlite3.Connection) -> Sequence[AuditRow]:
            found = db.execute(
                "SELECT number, at, who, action, target FROM audit WHERE number < ? ORDER BY number DESC LIMIT ?",
                (2**62 if before is None else before, limit),
            )
            return [AuditRow(*row) for row in found]

        return self._store.read(read)
