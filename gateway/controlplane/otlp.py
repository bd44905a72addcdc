"""
Spans and metrics of requests, sent by OpenTelemetry's protocol over HTTP.

A request leaves its UsageRecord in a bounded queue when it ends; a thread of its own makes spans of them and
sends these. What the receiver does not take in time is dropped and counted: no request waits for it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from gateway.controlplane import otlp_views as views
from gateway.controlplane.otlp_metrics import Metrics, release_of
from gateway.dataplane.trace import Span, onward, span_of
from gateway.dataplane.usage import UsageRecord
from gateway.settings import OtlpSettings
from registry.clock import utc_now
from registry.errors import BadSettings, MissingExtra
from registry.ids import sortable_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_MOST_AT_ONCE = 512
_LAST_S = 5.0
"""How long the end waits for what is left to be sent."""
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_log = logging.getLogger(__name__)


class Places(NamedTuple):
    """Full URLs; None sends none of that kind."""

    traces: str | None
    metrics: str | None


def places_of(settings: OtlpSettings, environ: Mapping[str, str]) -> Places:
    """
    Where to send: the settings' endpoint, else what OpenTelemetry's own variables say.

    Raises:
        BadSettings: an endpoint is no URL, or has a password in it.
    """
    given = settings.endpoint
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Places(None, None)
    found: dict[str, str | None] = {}
    for kind, wanted in (("traces", settings.traces), ("metrics", settings.metrics)):
        root, whole = given or environ.get(_ENDPOINT, ""), ""
        if not given:
            whole = environ.get(f"OTEL_EXPORTER_OTLP_{kind.upper()}_ENDPOINT", "")
            wanted = wanted and environ.get(f"OTEL_{kind.upper()}_EXPORTER", "otlp") != "none"  # noqa: PLW2901
        url = whole or (f"{root.rstrip('/')}/v1/{kind}" if root else "")
        found[kind] = (
            _checked(url, "gateway.otlp.endpoint" if given else _ENDPOINT) if wanted and url else None
        )
    return Places(found["traces"], found["metrics"])


def headers_of(settings: OtlpSettings, environ: Mapping[str, str]) -> dict[str, str] | None:
    """
    Headers to send; None leaves it to OpenTelemetry's own variables.

    Raises:
        BadSettings: the variable is not set, the file cannot be read, or a part of it is no header.
    """
    if settings.headers_file is not None:
        where = f"gateway.otlp.headers_file: {settings.headers_file}"
        try:
            lines = settings.headers_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadSettings(f"{where} cannot be read") from error
        pairs = [line.partition(":") for line in lines if line.strip()]
    elif settings.headers_env is not None:
        where = f"gateway.otlp.headers_env: {settings.headers_env}"
        if settings.headers_env not in environ:
            raise BadSettings(f"{where} is not set")
        parts = environ[settings.headers_env].split(",")
        pairs = [(unquote(a), b, unquote(c)) for a, b, c in (p.partition("=") for p in parts if p.strip())]
    else:
        return None
    made: dict[str, str] = {}
    for number, (name, mark, value) in enumerate(pairs, 1):
        name, value = name.strip(), value.strip()  # noqa: PLW2901
        if not (mark and name and value and f"{name}{value}".isascii() and f"{name}{value}".isprintable()):
            raise BadSettings(f"{where}: its header {number} is not a name and a value")
        made[name] = value
    return made


def open_export(
    settings: OtlpSettings, environ: Mapping[str, str], hosts: Callable[[], Mapping[str, str]]
) -> Export | None:
    """
    What exports, or None where nothing says where to.

    Args:
        hosts: name of an upstream → its host, asked every few seconds.

    Raises:
        MissingExtra: the settings name an endpoint, and OpenTelemetry's SDK is not installed. Where only the
            environment names one it is left alone with a warning.
        BadSettings: see `places_of` and `headers_of`.
    """
    places = places_of(settings, environ)
    if places == Places(None, None):
        return None
    if not settings.endpoint and environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").startswith("grpc"):
        _log.warning("nothing is exported: OTEL_EXPORTER_OTLP_PROTOCOL is grpc, and only HTTP is spoken here")
        return None
    try:
        return Export(settings, places, headers_of(settings, environ), hosts, environ)
    except ModuleNotFoundError as error:
        message = f"{error.name} is missing; pip install 'sluicegate[otel]'"
        if settings.endpoint:
            raise MissingExtra(message) from error
        _log.warning("nothing is exported to %s: %s", _ENDPOINT, message)
        return None


class Export:
    """Sends in a thread of its own. `add` belongs to one event loop."""

    def __init__(
        self,
        settings: OtlpSettings,
        places: Places,
        headers: Mapping[str, str] | None,
        hosts: Callable[[], Mapping[str, str]],
        environ: Mapping[str, str],
    ) -> None:
        """
        Begin. See `open_export`.

        Raises:
            ModuleNotFoundError: OpenTelemetry's SDK is not installed.
        """
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource

        self._ratio = settings.sample_ratio
        self._interval_s = settings.interval_s
        self._hosts = hosts
        about = {"service.version": release_of(), "service.instance.id": sortable_id("gw", utc_now())}
        if not environ.get("OTEL_SERVICE_NAME"):
            about["service.name"] = "sluicegate"
        self._resource = Resource.create(about)
        self._spans = None
        if places.traces is not None:
            self._spans = OTLPSpanExporter(places.traces, headers=headers, timeout=settings.timeout_s)
        self._metrics = None
        if places.metrics is not None:
            self._metrics = Metrics(places.metrics, headers, settings, self._resource)
        self._waiting: queue.Queue[UsageRecord | None] = queue.Queue(settings.max_waiting)
        self._ending = threading.Event()
        self.dropped = 0
        """Requests whose span was not sent."""
        self._thread = threading.Thread(target=self._run, name="gateway-otlp", daemon=True)
        self._thread.start()

    def add(self, record: UsageRecord) -> None:
        """Send *record* soon, if its route is one that is exported."""
        if record.route not in views.OPERATIONS:
            return
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def onward(self, record: UsageRecord) -> bytes:
        """The `traceparent` for what *record*'s request calls, so that it hangs below its span."""
        return onward(span_of(record.request_id, record.trace, self._ratio))

    def close(self) -> None:
        """Send what waits, for up to about five seconds. Blocks."""
        end = time.monotonic() + _LAST_S
        self._ending.set()
        try:
            self._waiting.put(None, timeout=_LAST_S)
        except queue.Full:
            _log.warning("the receiver of spans takes none; %d are left", self._waiting.qsize())
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._spans is not None:
            self._spans.shutdown()  # type: ignore[no-untyped-call]
        if self._metrics is not None:
            self._metrics.close(max(1.0, end - time.monotonic()))

    def _run(self) -> None:
        asked_s, hosts = float("-inf"), dict[str, str]()
        ended = False
        while not ended:
            records, ended = self._taken()
            if time.monotonic() - asked_s >= self._interval_s:
                asked_s, hosts = time.monotonic(), dict(self._hosts())
            try:
                self._send(records, hosts)
            except Exception:  # noqa: BLE001 - whatever one batch does, the next is tried
                _log.exception("%d spans could not be sent", len(records))
                self.dropped += len(records)

    def _taken(self) -> tuple[list[UsageRecord], bool]:
        """What came until there is enough, or the first has waited its time; and whether this is the end."""
        first = self._waiting.get()
        if first is None:
            return [], True
        records, end = [first], time.monotonic() + self._interval_s
        while len(records) < _MOST_AT_ONCE:
            left_s = 0.0 if self._ending.is_set() else end - time.monotonic()
            try:
                # In short pieces, so that an end need not wait for the interval.
                one = (
                    self._waiting.get(timeout=min(left_s, 0.2)) if left_s > 0 else self._waiting.get_nowait()
                )
            except queue.Empty:
                if left_s > 0:
                    continue
                break
            if one is None:
                return records, True
            records.append(one)
        return records, False

    def _send(self, records: list[UsageRecord], hosts: Mapping[str, str]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        spans: list[ReadableSpan] = []
        for record in records:
            host = hosts.get(record.upstream, "")
            if self._metrics is not None:
                self._metrics.note(record, host)
            place = span_of(record.request_id, record.trace, self._ratio)
            if self._spans is not None and place.sampled:
                spans.append(self._made(record, place, host))
        if spans and self._spans is not None and self._spans.export(spans) is not SpanExportResult.SUCCESS:
            self.dropped += len(spans)

    def _made(self, record: UsageRecord, place: Span, host: str) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        trace, flags = int(place.trace, 16), TraceFlags(TraceFlags.SAMPLED)
        wrong = views.failure(record)
        begin, end = views.interval_ns(record)
        parent = SpanContext(trace, int(place.parent, 16), True, flags) if place.parent else None
        return ReadableSpan(
            views.title(record),
            SpanContext(trace, int(place.span, 16), False, flags),
            parent,
            self._resource,
            views.attributes(record, host),
            kind=SpanKind.CLIENT,
            status=Status(StatusCode.ERROR, wrong) if wrong else Status(StatusCode.UNSET),
            start_time=begin,
            end_time=end,
            instrumentation_scope=InstrumentationScope("sluicegate", release_of()),
        )


def _checked(url: str, name: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadSettings(f"{name} is not an http or https URL such as http://127.0.0.1:4318")
    if parts.username is not None or parts.password is not None:
        raise BadSettings(
            f"{name} has a user or password in it; send it as a header: gateway.otlp.headers_env"
        )
    return url
