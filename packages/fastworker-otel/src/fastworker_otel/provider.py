"""Whether OpenTelemetry is configured, and configuring it from `OTEL_…` where nobody else has."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from opentelemetry import metrics, trace

logger = logging.getLogger("fastworker.otel")

SPANS: Final = 8192
"""How many may wait for their export; a busy worker makes thousands a second. The SDK's 2,048 would lose many."""
SPANS_AT_ONCE: Final = 1024


def is_configured() -> bool:
    """Whether spans go anywhere: somebody has set a provider, or the environment asks for one and it is set now."""
    return _has_provider() or _configure()


def _has_provider() -> bool:
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@cache
def _configure() -> bool:
    """Export over OTLP, if that is asked for. The SDK reads the other `OTEL_…` variables by itself."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporting = [
        signal
        for signal, export in (("traces", _export_traces), ("metrics", _export_metrics))
        if _wants(signal.upper()) and export()
    ]
    if exporting:
        logger.info("OpenTelemetry exports %s, as the environment asks", " and ".join(exporting))
    return bool(exporting)


# The SDK and the exporters take longer to import than FastWorker itself: only where they are wanted.


def _export_traces() -> bool:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = _exporter("TRACES", _spans_over_http, _spans_over_grpc)
    if exporter is not None:
        said = any(os.environ.get(f"OTEL_BSP_MAX_{what}_SIZE") for what in ("QUEUE", "EXPORT_BATCH"))
        waiting, at_once = (None, None) if said else (SPANS, SPANS_AT_ONCE)
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(exporter, waiting, max_export_batch_size=at_once))
        trace.set_tracer_provider(provider)
    return exporter is not None


def _export_metrics() -> bool:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = _exporter("METRICS", _metrics_over_http, _metrics_over_grpc)
    if exporter is not None:
        metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(exporter)]))
    return exporter is not None


def _exporter(signal: str, over_http: Callable[[], Any], over_grpc: Callable[[], Any]) -> Any:
    """The exporter of the protocol that the environment names; None if it is not installed."""
    protocol = _said(signal, "PROTOCOL") or "http/protobuf"
    is_grpc = protocol == "grpc"
    try:
        return over_grpc() if is_grpc else over_http()
    except ModuleNotFoundError:
        package = "grpc" if is_grpc else "http"
        logger.error("OTLP over %s needs pip install opentelemetry-exporter-otlp-proto-%s", protocol, package)
        return None


def _spans_over_http() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _spans_over_grpc() -> Any:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # type: ignore[import-not-found, unused-ignore]
        OTLPSpanExporter,
    )

    return OTLPSpanExporter()


def _metrics_over_http() -> Any:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter()


def _metrics_over_grpc() -> Any:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # type: ignore[import-not-found, unused-ignore]
        OTLPMetricExporter,
    )

    return OTLPMetricExporter()


def _wants(signal: str) -> bool:
    exporters = os.environ.get(f"OTEL_{signal}_EXPORTER")
    return "otlp" in exporters.split(",") if exporters else _said(signal, "ENDPOINT") is not None


def _said(signal: str, what: str) -> str | None:
    """What the environment says of OTLP, for this signal or for all."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{what}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{what}") or None


def flush(within: float) -> None:
    """Export what is waiting, in at most `within` seconds each for spans and metrics."""
    milliseconds = round(within * 1000)
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        force = getattr(provider, "force_flush", None)
        if force is not None:
            force(milliseconds)
