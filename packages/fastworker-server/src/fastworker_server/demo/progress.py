"""The live progress bar."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich import progress as rich_progress

from fastworker.cli.output import console


class Progress:
    """Shows how many files are done, how fast, and how many failed."""

    def __init__(self, total: int, *, enabled: bool) -> None:
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("parsing the standard library"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[rate]:>5.0f}/s"),
            rich_progress.TextColumn("{task.fields[failed]} failed"),
            rich_progress.TimeElapsedColumn(),
            console=console(),
            disable=not enabled,
        )
        self._task = self._bar.add_task("", total=total, failed=0, rate=0.0)

    def show(self, succeeded: int, failed: int) -> None:
        """So many have ended."""
        done = succeeded + failed
        elapsed = self._bar.tasks[0].elapsed or 0.0
        self._bar.update(self._task, completed=done, failed=failed, rate=done / elapsed if elapsed else 0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
