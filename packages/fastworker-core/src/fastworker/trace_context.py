"""W3C trace context on its way through: from a request or a running task to what is submitted there.

It travels without any tracing library, in the headers of a task. A library that makes spans of its own overwrites it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from fastworker.context import running_task
from fastworker.protocol import Submission

TRACE_HEADERS: Final = ("traceparent", "tracestate", "baggage")
"""W3C Trace Context, section 3; W3C Baggage, section 3."""

_request: ContextVar[Mapping[str, str] | None] = ContextVar("fastworker_trace_headers", default=None)


@contextmanager
def carrying(headers: Mapping[str, str]) -> Iterator[None]:
    """What is submitted inside carries these headers on; those that are not of a trace are left out."""
    token = _request.set(_of_trace(headers))
    try:
        yield
    finally:
        _request.reset(token)


def carried() -> Mapping[str, str]:
    """The trace headers of the task that runs here, else of the request that is served here."""
    task = running_task()
    return _of_trace(task.headers) if task is not None else _request.get() or {}


def carry_on(submissions: Sequence[Submission]) -> None:
    """Give the submissions the trace headers of this place. What they say themselves goes first."""
    headers = carried()
    if headers:
        for submission in submissions:
            submission.headers = {**headers, **(submission.headers or {})}


def trace_ids(headers: Mapping[str, str]) -> tuple[str, str]:
    """The trace id and the span id of a `traceparent`, or two empty strings."""
    parts = headers.get("traceparent", "").split("-")
    return (parts[1], parts[2]) if len(parts) >= 4 else ("", "")


def _of_trace(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: headers[name] for name in TRACE_HEADERS if name in headers}
