"""What pytest finds by itself once FastWorker is installed: the fixture `task_queue`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fastworker_server.testing import TaskQueue


@pytest.fixture
def task_queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[TaskQueue]:
    """A control plane and a worker in memory, for one test; see `fastworker.testing.TaskQueue`."""
    from fastworker_server.testing import TaskQueue  # not at the start of every pytest run

    with TaskQueue() as queue:
        monkeypatch.setenv("FASTWORKER_URL", queue.url)
        yield queue
