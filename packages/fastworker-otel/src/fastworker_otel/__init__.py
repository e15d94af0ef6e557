"""OpenTelemetry for FastWorker: spans and metrics, found by the entry point `fastworker.middleware`."""

from fastworker_otel.telemetry import Telemetry

__all__ = ["Telemetry"]
