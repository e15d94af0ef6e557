"""What a client can order for many tasks at once, and what it can ask about all that goes on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from fastworker.activity import Activity, AuditRow, BulkAction, BulkView
from fastworker.orders import Request, as_filter
from fastworker.protocol import Control, Query
from fastworker.search import TaskFilter
from fastworker.tasks import Priority
from fastworker.validate import validated


class ManyTasks:
    """Asks and orders about many tasks, over whatever `_ask` is."""

    @abstractmethod
    async def _ask(self, request: Request) -> Any:
        """Send a request, and wait for the data of its answer."""

    async def activity(self) -> Activity:
        """What has been going on: series, task types, what is queued."""
        return validated(Activity, await self._ask(Query(0, "activity")))

    async def audit(self, *, limit: int = 50, before: int | None = None) -> Sequence[AuditRow]:
        """Who did what, the latest first.

        Args:
            before: only rows older than this one's `number`, for the next page.
        """
        return validated(list[AuditRow], await self._ask(Query(0, "audit", limit=limit, before=before)))

    async def bulk_jobs(self) -> Sequence[BulkView]:
        """The last actions on all tasks that match, with their progress."""
        return validated(list[BulkView], await self._ask(Query(0, "bulk")))

    async def start_bulk(
        self,
        action: BulkAction,
        wanted: TaskFilter | str,
        *,
        priority: Priority | str | None = None,
        by: str | None = None,
    ) -> str:
        """Retry, cancel, delete or reprioritise all tasks that fit a filter, in the background.

        Args:
            priority: the new one, for `reprioritise`.
            by: who wants it, for the audit.

        Returns:
            The id of the job, as in `bulk_jobs`.
        """
        given = Priority(priority) if priority is not None else None
        job: str = await self._ask(Control(0, action, filter=as_filter(wanted), priority=given, by=by))
        return job

    async def stop_bulk(self, job_id: str, *, by: str | None = None) -> bool:
        """Stop such a job; what was done stays done. False if it is not under way."""
        return bool(await self._ask(Control(0, "stop", name=job_id, by=by)))

    async def note(self, what: str, *, by: str) -> None:
        """Write a row of the audit for something that was done elsewhere."""
        await self._ask(Control(0, "note", name=what, by=by))
