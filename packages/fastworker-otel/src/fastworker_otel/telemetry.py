"""Spans and metrics round each submission and each run.

By OpenTelemetry's semantic conventions for messaging: the task name is the destination, the task id the message's id.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, cast

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from fastworker.context import CurrentTask
from fastworker.errors import ConfigurationError, TaskCancelled, TaskTimeout
from fastworker.middleware import Gauges, Middleware, RunNext, SubmitNext
from fastworker.protocol import Submission
from fastworker.release import RELEASE
from fastworker.retry import Retry
from fastworker.schedule import DUE_HEADER, SCHEDULE_HEADER
from fastworker.sealing import sealer
from fastworker.tasks import Task
from fastworker_otel.provider import flush, is_configured

Relation = Literal["child", "link"]

RELATION_VARIABLE: Final = "FASTWORKER_OTEL_RELATION"
FLUSH_WITHIN: Final = 5.0
_SYSTEM: Final = {"messaging.system": "fastworker"}
_NO_EXEMPLAR: Final = Context()
"""Measured in no trace: the SDK then does not ask for each measurement whether it is worth to be kept as an example."""
_UUID_LENGTH, _UUID_VERSION = 36, 14


class Telemetry(Middleware):
    """A span for each submission and each attempt, run of a schedule and retry, and metrics of all.

    The context travels in the task's headers.

    Args:
        relation: whether the span of an attempt is a `child` of the submission's, in the same trace (default), or
            begins a trace of its own with a `link` to it; also `FASTWORKER_OTEL_RELATION`.

    Raises:
        ConfigurationError: the relation is another word.
    """

    suspends = False

    def __init__(self, relation: Relation | None = None) -> None:
        said = relation or os.environ.get(RELATION_VARIABLE) or "child"
        if said not in ("child", "link"):
            raise ConfigurationError(f"{RELATION_VARIABLE}={said!r}: use child or link")
        self._relation = cast(Relation, said)
        self._tracer = trace.get_tracer("fastworker", RELEASE)
        self._meter = meter = metrics.get_meter("fastworker", RELEASE)
        self._sent, self._scheduled, self._started = Totals("submit"), Totals("schedule"), Totals("execute")
        sent, counter = [self._sent.observe, self._scheduled.observe], meter.create_observable_counter
        counter("messaging.client.sent.messages", sent, "{message}", "Tasks submitted.")
        counter("messaging.client.consumed.messages", [self._started.observe], "{message}", "Attempts started.")
        self._duration = meter.create_histogram("messaging.process.duration", "s", "How long attempts ran.")
        self._wait = meter.create_histogram("fastworker.queue.wait", "s", "From the submission to the first start.")

    @property
    def enabled(self) -> bool:  # type: ignore[override]
        """Whether a provider is set, or `OTEL_…` names an exporter."""
        return is_configured()

    # ---- submit --------------------------------------------------------------------------------------------------

    async def submit(self, submissions: Sequence[Submission], call_next: SubmitNext) -> None:
        """Around one submit request, which may hold many tasks: one span."""
        first = submissions[0]
        attributes: dict[str, Any] = {**_attributes("submit", "send", first.name)}
        if len(submissions) > 1:
            attributes["messaging.batch.message_count"] = len(submissions)
        else:
            attributes["messaging.message.id"] = first.id
        parent = _parent_of(first)
        span = self._tracer.start_span(f"submit {first.name}", parent, SpanKind.PRODUCER, attributes)
        token = context.attach(trace.set_span_in_context(span, parent))
        try:
            _carry_context(submissions)
            await call_next(submissions)
        except Exception as error:
            _note_error(span, error)
            raise
        finally:
            context.detach(token)
            span.end()
        self._sent.add(first.name, len(submissions))

    # ---- run -----------------------------------------------------------------------------------------------------

    async def run(self, task: CurrentTask, call_next: RunNext) -> Any:
        """Around one attempt: one span. Inside, `current_task().headers` holds this span's context."""
        self._note_start(task)
        sent = propagate.extract(task.headers) if task.headers else Context()
        span = self._begin(task, sent)
        token = context.attach(trace.set_span_in_context(span, sent))
        began = time.monotonic()
        error: BaseException | None = None
        try:
            task.headers = _with_current_context(task.headers)
            return await call_next(task)
        except BaseException as raised:
            error = raised
            raise
        finally:
            context.detach(token)
            took = time.monotonic() - began
            self._duration.record(took, _ended(task.name, *_note_end(span, error)), _NO_EXEMPLAR)
            span.end()

    def _note_start(self, task: CurrentTask) -> None:
        self._started.add(task.name, 1)
        submitted = submitted_at(task.id) if task.attempt == 1 else None
        if submitted is not None:
            self._wait.record(max(0.0, time.time() - submitted), _destination(task.name), _NO_EXEMPLAR)

    def _begin(self, task: CurrentTask, sent: Context) -> Span:
        submission = trace.get_current_span(sent).get_span_context()
        linked = self._relation == "link" and submission.is_valid
        parent = trace.set_span_in_context(trace.INVALID_SPAN, sent) if linked else sent
        attributes = {
            **_attributes("execute", "process", task.name),
            "messaging.message.id": task.id,
            "fastworker.task.attempt": task.attempt,
        }
        links = [Link(submission)] if linked else None
        return self._tracer.start_span(f"execute {task.name}", parent, SpanKind.CONSUMER, attributes, links)

    # ---- in the control plane ------------------------------------------------------------------------------------

    def schedule(self, submission: Submission) -> None:
        """A trace begins here: nobody else has asked for this task."""
        headers = submission.headers or {}
        attributes = {
            **_attributes("schedule", "send", submission.name),
            "messaging.message.id": submission.id,
            "fastworker.schedule": headers.get(SCHEDULE_HEADER, ""),
            "fastworker.due": headers.get(DUE_HEADER, ""),
        }
        with self._tracer.start_as_current_span(
            f"schedule {submission.name}", Context(), SpanKind.PRODUCER, attributes
        ):
            submission.headers = _with_current_context(headers)
        self._scheduled.add(submission.name, 1)

    def retry(self, task: Task, now: float) -> None:
        """A moment in the trace: from here on the task waits for its next attempt."""
        attributes = {
            **_attributes("retry", "settle", task.name),
            "messaging.message.id": task.id,
            "fastworker.task.attempt": task.attempt,
            "fastworker.retry.delay": max(0.0, (task.due_at or now) - now),
        }
        parent = propagate.extract(task.headers or {})
        self._tracer.start_span(f"retry {task.name}", parent, attributes=attributes).end()

    def measure(self, gauges: Callable[[], Gauges | None]) -> None:
        """How full the control plane is, asked for at each export."""

        def queued(_: CallbackOptions) -> Iterator[Observation]:
            now = gauges()
            for priority, count in now.queued.items() if now is not None else ():
                yield Observation(count, {**_SYSTEM, "fastworker.task.priority": priority})

        def of(value: Callable[[Gauges], int]) -> Callable[[CallbackOptions], Iterator[Observation]]:
            def observe(_: CallbackOptions) -> Iterator[Observation]:
                now = gauges()
                if now is not None:
                    yield Observation(value(now), _SYSTEM)

            return observe

        gauge = self._meter.create_observable_gauge
        gauge("fastworker.queue.depth", [queued], "{message}", "Queued tasks.")
        gauge("fastworker.workers", [of(lambda now: now.workers)], "{worker}", "Connected workers.")
        gauge("fastworker.slots", [of(lambda now: now.slots)], "{slot}", "Tasks that all workers can run at once.")
        gauge("fastworker.slots.busy", [of(lambda now: now.busy)], "{slot}", "Tasks that they run.")

    # ---- the end -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Export what waits: the process may end without a word."""
        flush(FLUSH_WITHIN)


class Totals:
    """What a counter of an operation stands at, by task name: read at each export, where the SDK's own counters take
    10 µs for each call.
    """

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def add(self, name: str, count: int) -> None:
        """So many more, in any thread."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + count

    def observe(self, _: CallbackOptions) -> Iterator[Observation]:
        """All of them."""
        with self._lock:
            counts = list(self._counts.items())
        for name, count in counts:
            yield Observation(count, {"messaging.operation.name": self._operation, **_SYSTEM, **_destination(name)})


# Attributes are made once for each task name: these functions run for every task.


@lru_cache(4096)
def _attributes(operation: str, kind: str, name: str) -> Mapping[str, Any]:
    return {
        **_SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": name,
    }


@lru_cache(4096)
def _destination(name: str) -> Mapping[str, str]:
    return {"messaging.destination.name": name}


@lru_cache(4096)
def _ended(name: str, outcome: str, error_type: str | None) -> Mapping[str, str]:
    """The attributes of the duration of an attempt."""
    error = {"error.type": error_type} if error_type is not None else {}
    said = {"messaging.operation.name": "execute", "fastworker.task.outcome": outcome}
    return {**_SYSTEM, **said, **_destination(name), **error}


def _parent_of(submission: Submission) -> Context | None:
    """Nothing, so the current span; or what the submission carries from a request that nobody else has traced."""
    if not submission.headers or trace.get_current_span().get_span_context().is_valid:
        return None
    return propagate.extract(submission.headers)


def _carry_context(submissions: Sequence[Submission]) -> None:
    """Give the submissions the current context, which is looked at once for all of them."""
    current: dict[str, str] = {}
    propagate.inject(current)
    for submission in submissions:
        submission.headers = _with(current, submission.headers or {})


def _with_current_context(headers: Mapping[str, str]) -> dict[str, str]:
    current: dict[str, str] = {}
    propagate.inject(current)
    return _with(current, headers)


def _with(current: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, str]:
    changed = {**headers, **current}
    if "tracestate" not in current:
        changed.pop("tracestate", None)  # it is of another span
    return changed


def _note_end(span: Span, error: BaseException | None) -> tuple[str, str | None]:
    """Write on the span how the attempt ended: its outcome, and the type of the error if it is one."""
    outcome = outcome_of(error)
    span.set_attribute("fastworker.task.outcome", outcome)
    if error is None or outcome == "retry":
        return outcome, None
    return outcome, _note_error(span, error)


def _note_error(span: Span, error: BaseException) -> str:
    """Its type. With payload keys the message and the traceback are for those who hold them, and not for who collects
    traces.
    """
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    span.set_attribute("error.type", kind)
    if sealer() is None:
        span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, kind))
    return kind


def outcome_of(error: BaseException | None) -> str:
    """How an attempt ended, in one word."""
    match error:
        case None:
            return "succeeded"
        case Retry():
            return "retry"
        case TaskTimeout():
            return "timeout"
        case TaskCancelled() | asyncio.CancelledError():
            return "cancelled"
        case _:
            return "failed"


def submitted_at(task_id: str) -> float | None:
    """When a task was submitted, in seconds since 1970: a UUIDv7 begins with 48 bits of milliseconds; others don't."""
    if len(task_id) != _UUID_LENGTH or task_id[_UUID_VERSION] != "7":
        return None
    try:
        return int(task_id[:8] + task_id[9:13], 16) / 1000
    except ValueError:
        return None
