"""Whether OpenTelemetry is configured, and configuring it from `OTEL_…` where nobody else has."""

from __future__ import annotations

import logging
import os
from functools import cache

from opentelemetry import metrics, trace

logger = logging.getLogger("fastworker.otel")


def is_configured() -> bool:
    """Whether spans go anywhere: somebody has set a provider, or the environment asks for one and it is set now."""
    return _has_provider() or _configure()


def _has_provider() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@cache
def _configure() -> bool:
    """Export over OTLP and HTTP, if an endpoint is named. The SDK reads the other `OTEL_…` variables by itself."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    wants_traces, wants_metrics = _wants("TRACES"), _wants("METRICS")
    if wants_traces:
        _export_traces()
    if wants_metrics:
        _export_metrics()
    if wants_traces or wants_metrics:
        logger.info("OpenTelemetry is on, as the environment asks")
    return wants_traces or wants_metrics


# The SDK and the exporters take longer to import than FastWorker itself: only where they are wanted.


def _export_traces() -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _export_metrics() -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))


def _wants(signal: str) -> bool:
    if os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp") != "otlp":
        return False
    return any(
        os.environ.get(name) for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    )


def flush(within: float) -> None:
    """Export what is waiting, in at most `within` seconds each for spans and metrics."""
    milliseconds = round(within * 1000)
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        force = getattr(provider, "force_flush", None)
        if force is not None:
            force(milliseconds)
