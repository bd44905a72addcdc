"""
A strict receiver of OTLP over HTTP on a real socket.

It refuses what a collector refuses (another path, method or content type, bytes that are no request of that
kind, ids of the wrong length, a span that ends before it begins) and remembers what it took.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

NO_PARENT = b""


@dataclass(frozen=True)
class Taken:
    """One span as it was received."""

    name: str
    kind: int
    trace: str
    span: str
    parent: str
    begin_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    status: tuple[int, str]
    resource: Mapping[str, Any]


@dataclass
class Receiver:
    """Read its attributes from any thread."""

    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What each request must carry."""
    status: int = 200
    hold: threading.Event = field(default_factory=threading.Event)
    """While it is clear, no request is answered."""
    spans: list[Taken] = field(default_factory=list)
    metrics: dict[str, list[Any]] = field(default_factory=dict)
    """Name → data points of the newest export."""
    bounds: dict[str, tuple[float, ...]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, int]] = field(default_factory=list)
    """(path, status) of each."""

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self.hold.wait(30)
        if headers.get("content-type") != "application/x-protobuf":
            return 415, b"content type"
        for name, value in self.headers.items():
            if headers.get(name) != value:
                return 401, b"header"
        if self.status != 200:
            return self.status, b"told to"
        if headers.get("content-encoding") == "gzip":
            body = decompress(body)
        if path == "/v1/traces":
            return self._traces(body)
        if path == "/v1/metrics":
            return self._metrics(body)
        return 404, b"path"

    def _traces(self, body: bytes) -> tuple[int, bytes]:
        sent = ExportTraceServiceRequest.FromString(body)
        for resource in sent.resource_spans:
            about = _plain(resource.resource.attributes)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    if not _is_valid(span):
                        return 400, b"span"
                    self.spans.append(_taken(span, about))
        return 200, ExportTraceServiceResponse().SerializeToString()

    def _metrics(self, body: bytes) -> tuple[int, bytes]:
        sent = ExportMetricsServiceRequest.FromString(body)
        for resource in sent.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = list(metric.histogram.data_points)
                    if not points:
                        return 400, b"not a histogram"
                    self.metrics[metric.name] = [(_plain(p.attributes), p.count, p.sum) for p in points]
                    self.bounds[metric.name] = tuple(points[0].explicit_bounds)
                    self.units[metric.name] = metric.unit
        return 200, ExportMetricsServiceResponse().SerializeToString()


def _is_valid(span: Span) -> bool:
    keys = [attribute.key for attribute in span.attributes]
    return (
        len(span.trace_id) == 16
        and len(span.span_id) == 8
        and len(span.parent_span_id) in (0, 8)
        and any(span.trace_id)
        and any(span.span_id)
        and bool(span.name)
        and 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        and len(keys) == len(set(keys))
    )


def _taken(span: Span, about: Mapping[str, Any]) -> Taken:
    return Taken(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _plain(span.attributes),
        (span.status.code, span.status.message),
        about,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def receiver(**wanted: Any) -> Iterator[Receiver]:
    """One that runs."""
    made = Receiver(**wanted)
    made.hold.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = made.take(self.path, headers, body)
            made.requests.append((self.path, status))
            try:
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        made.hold.set()
        server.shutdown()
        thread.join(10)
        server.server_close()
