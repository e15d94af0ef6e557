"""Rows of the audit for what is submitted through the API: one row in a while for each user, however many there are."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Final

from fastworker.client import Client
from fastworker.errors import FastWorkerError

logger = logging.getLogger("fastworker.dashboard")

WAIT: Final = 1.0
"""Seconds that submissions are collected for."""
MOST_NAMED: Final = 5


class SubmissionNotes:
    """Collects submissions, and writes them down."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[tuple[str, str]]] = {}
        self._writing: asyncio.Task[None] | None = None

    def submitted(self, client: Client, who: str, name: str, task_id: str) -> None:
        """Somebody has submitted a task; the audit tells of it soon."""
        self._waiting.setdefault(who, []).append((name, task_id))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(client))

    async def _write(self, client: Client) -> None:
        while self._waiting:
            await asyncio.sleep(WAIT)
            waiting, self._waiting = self._waiting, {}
            for who, tasks in waiting.items():
                try:
                    await client.note(_in_words(tasks), by=who)
                except FastWorkerError as error:
                    logger.warning("%s: %s, but the audit can't be written: %s", who, _in_words(tasks), error)


def _in_words(tasks: list[tuple[str, str]]) -> str:
    if len(tasks) == 1:
        [(name, task_id)] = tasks
        return f"submitted {name} {task_id}"
    counts = Counter(name for name, _ in tasks)
    named = ", ".join(f"{count} {name}" for name, count in counts.most_common(MOST_NAMED))
    return f"submitted {len(tasks)} tasks through the API: {named}{', …' if len(counts) > MOST_NAMED else ''}"
