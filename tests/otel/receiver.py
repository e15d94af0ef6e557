"""An OTLP receiver over HTTP, in the test's process: what really comes over the wire."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    """A span as it came."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    links: tuple[str, ...]
    attributes: dict[str, Any]
    failed: bool
    process: int

    @property
    def task(self) -> str | None:
        """The id of its task."""
        found: str | None = self.attributes.get("messaging.message.id")
        return found


@dataclass(frozen=True)
class Point:
    """A point of a metric as it came. `value` is that of a gauge."""

    name: str
    attributes: dict[str, Any]
    is_gauge: bool
    value: float


class Receiver:
    """Listens on a free port of this host.

    Attributes:
        spans: all that came, in the order in which they came.
        metrics: all points of metrics, likewise.
        bodies: all that came, as it came.
    """

    def __init__(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.take(self.path, body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.spans: list[Received] = []
        self.metrics: list[Point] = []
        self.bodies: list[bytes] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, path: str, body: bytes) -> None:
        """One request."""
        self.bodies.append(body)
        if path == "/v1/traces":
            self.spans += spans_of(ExportTraceServiceRequest.FromString(body))
        elif path == "/v1/metrics":
            self.metrics += metrics_of(ExportMetricsServiceRequest.FromString(body))

    @property
    def variables(self) -> dict[str, str]:
        """What lets a process export to it, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process",
        }

    def named(self, name: str) -> list[Received]:
        """The spans of this name."""
        return [span for span in self.spans if span.name == name]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for resource in request.resource_spans:
        process = plain(resource.resource.attributes).get("process.pid", 0)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.kind,
                    tuple(link.span_id.hex() for link in span.links), plain(span.attributes), span.status.code == 2,
                    process,
                )  # fmt: skip


def metrics_of(request: ExportMetricsServiceRequest) -> Iterator[Point]:
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in (*metric.sum.data_points, *metric.histogram.data_points):
                    yield Point(metric.name, plain(point.attributes), False, 0.0)
                for gauge in metric.gauge.data_points:
                    yield Point(metric.name, plain(gauge.attributes), True, gauge.as_int or gauge.as_double)


def plain(attributes: Any) -> dict[str, Any]:
    """Attributes as a dict."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value") for item in attributes}
