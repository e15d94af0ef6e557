"""Log records that say in which task they were made, as text or as a JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from fastworker.context import running_task
from fastworker.trace_context import trace_ids

TASK_FIELDS: Final = ("task_id", "task_name", "attempt", "trace_id", "span_id")
"""What every record has once `mark_records` was called; empty outside of tasks."""

_make: Callable[..., logging.LogRecord] = logging.getLogRecordFactory()


def mark_records() -> None:
    """Give each log record of this process the fields `TASK_FIELDS`, for the handlers of whoever has some."""
    global _make
    if logging.getLogRecordFactory() is not _marked:
        _make = logging.getLogRecordFactory()
        logging.setLogRecordFactory(_marked)


def _marked(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = _make(*args, **kwargs)
    task = running_task()
    if task is None:
        values: tuple[object, ...] = ("", "", "", "", "")
    else:
        values = (task.id, task.name, task.attempt, *trace_ids(task.headers))
    record.__dict__.update(zip(TASK_FIELDS, values, strict=True))
    return record


class TextLines(logging.Formatter):
    """A line for a person at night; in a task with its name and id."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(task)s%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        task_id = getattr(record, "task_id", "")
        record.task = f"[{getattr(record, 'task_name', '')} {task_id}] " if task_id else ""
        return super().format(record)


class JsonLines(logging.Formatter):
    """A JSON object a line, for programs. What a record does not have is left out."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: getattr(record, name, "") for name in TASK_FIELDS},
            "exception": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return json.dumps({name: value for name, value in fields.items() if value != ""}, ensure_ascii=False)


def logs_as_json() -> bool:
    """Whether this process logs for programs."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def log_to_standard_error(level: int, *, as_json: bool) -> None:
    """Log to standard error, with the task in each record."""
    mark_records()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else TextLines())
    logging.basicConfig(level=level, handlers=[handler])
