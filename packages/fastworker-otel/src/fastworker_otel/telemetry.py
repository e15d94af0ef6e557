"""Spans and metrics round each submission and each run.

By OpenTelemetry's semantic conventions for messaging: the task name is the destination, the task id the message's id.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, cast
from uuid import UUID

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
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}", "Tasks submitted.")
        self._started = meter.create_counter("messaging.client.consumed.messages", "{message}", "Attempts started.")
        self._duration = meter.create_histogram("messaging.process.duration", "s", "How long attempts ran.")
        self._wait = meter.create_histogram("fastworker.queue.wait", "s", "From the submission to the first start.")

    @property
    def enabled(self) -> bool:  # type: ignore[override]
        """Whether a provider is set, or `OTEL_…` names an exporter."""
        return is_configured()

    # ---- submit --------------------------------------------------------------------------------------------------

    async def submit(self, submissions: Sequence[Submission], call_next: SubmitNext) -> None:
        """Around one submit request, which may hold many tasks: one span."""
        name = submissions[0].name
        attributes: dict[str, Any] = _attributes("submit", "send", name)
        if len(submissions) > 1:
            attributes["messaging.batch.message_count"] = len(submissions)
        else:
            attributes["messaging.message.id"] = submissions[0].id
        with self._tracer.start_as_current_span(
            f"submit {name}", _parent_of(submissions[0]), SpanKind.PRODUCER, attributes
        ):
            for submission in submissions:
                submission.headers = _with_current_context(submission.headers or {})
            await call_next(submissions)
        self._sent.add(len(submissions), _attributes("submit", "send", name))

    # ---- run -----------------------------------------------------------------------------------------------------

    async def run(self, task: CurrentTask, call_next: RunNext) -> Any:
        """Around one attempt: one span. Inside, `current_task().headers` holds this span's context."""
        common = _attributes("execute", "process", task.name)
        self._started.add(1, common)
        submitted = submitted_at(task.id)
        if task.attempt == 1 and submitted is not None:
            self._wait.record(max(0.0, time.time() - submitted), common)
        sent = propagate.extract(task.headers)
        token = context.attach(sent)
        began = time.monotonic()
        end: Mapping[str, str] = {}
        try:
            with self._span(task, sent, common) as span:
                task.headers = _with_current_context(task.headers)
                try:
                    value = await call_next(task)
                    end = _note_end(span, None)
                    return value
                except BaseException as error:
                    end = _note_end(span, error)
                    raise
        finally:
            context.detach(token)
            self._duration.record(time.monotonic() - began, {**common, **end})

    def _span(self, task: CurrentTask, sent: Context, common: Mapping[str, Any]) -> Any:
        submission = trace.get_current_span(sent).get_span_context()
        linked = self._relation == "link" and submission.is_valid
        return self._tracer.start_as_current_span(
            f"execute {task.name}",
            trace.set_span_in_context(trace.INVALID_SPAN, sent) if linked else sent,
            SpanKind.CONSUMER,
            {**common, "messaging.message.id": task.id, "fastworker.task.attempt": task.attempt},
            links=[Link(submission)] if linked else None,
            record_exception=False,
            set_status_on_exception=False,
        )

    # ---- in the control plane ------------------------------------------------------------------------------------

    def schedule(self, submission: Submission) -> None:
        """A trace begins here: nobody else has asked for this task."""
        common = _attributes("schedule", "send", submission.name)
        headers = submission.headers or {}
        attributes = {
            **common,
            "messaging.message.id": submission.id,
            "fastworker.schedule": headers.get(SCHEDULE_HEADER, ""),
            "fastworker.due": headers.get(DUE_HEADER, ""),
        }
        with self._tracer.start_as_current_span(
            f"schedule {submission.name}", Context(), SpanKind.PRODUCER, attributes
        ):
            submission.headers = _with_current_context(headers)
        self._sent.add(1, common)

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


def _attributes(operation: str, kind: str, name: str) -> dict[str, Any]:
    return {
        **_SYSTEM,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.destination.name": name,
    }


def _parent_of(submission: Submission) -> Context | None:
    """Nothing, so the current span; or what the submission carries from a request that nobody else has traced."""
    if trace.get_current_span().get_span_context().is_valid or not submission.headers:
        return None
    return propagate.extract(submission.headers)


def _with_current_context(headers: Mapping[str, str]) -> dict[str, str]:
    changed = dict(headers)
    changed.pop("tracestate", None)  # of another span; the propagator writes the right one, if there is any
    propagate.inject(changed)
    return changed


def _note_end(span: Span, error: BaseException | None) -> Mapping[str, str]:
    """Write on the span how the attempt ended; what of it belongs on the metrics.

    With payload keys the message and the traceback are for those who hold them, and not for who collects traces.
    """
    outcome = outcome_of(error)
    span.set_attribute("fastworker.task.outcome", outcome)
    if error is None or outcome == "retry":
        return {"fastworker.task.outcome": outcome}
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    span.set_attribute("error.type", kind)
    if sealer() is None:
        span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, kind))
    return {"fastworker.task.outcome": outcome, "error.type": kind}


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
    try:
        number = UUID(task_id)
    except ValueError:
        return None
    return (number.int >> 80) / 1000 if number.version == 7 else None
