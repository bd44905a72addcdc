"""What is measured of requests, by OpenTelemetry's SDK."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gateway.controlplane import otlp_views as views
from gateway.dataplane.usage import UsageRecord
from gateway.settings import OtlpSettings

_MOST_SERIES = 500
_log = logging.getLogger(__name__)


class Metrics:
    """The conventions' three histograms, sent every while by a thread of their own."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None,
        settings: OtlpSettings,
        resource: Any,  # noqa: ANN401
    ) -> None:
        """
        Send to *url*.

        Raises:
            ModuleNotFoundError: OpenTelemetry's SDK is not installed.
        """
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        sent = dict(headers) if headers is not None else None
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(url, headers=sent, timeout=settings.timeout_s),
            export_interval_millis=settings.metrics_interval_s * 1000,
            export_timeout_millis=settings.timeout_s * 1000,
        )
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("sluicegate", release_of())
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "From a request's head to the end of its answer.",
            explicit_bucket_boundaries_advisory=views.DURATION_S,
        )  # fmt: skip
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens that a request read and wrote.",
            explicit_bucket_boundaries_advisory=views.TOKENS,
        )  # fmt: skip
        self._first = meter.create_histogram(
            "gen_ai.server.time_to_first_token", "s", "From a request's head to its stream's first byte.",
            explicit_bucket_boundaries_advisory=views.FIRST_TOKEN_S,
        )  # fmt: skip
        self._seen: set[tuple[tuple[str, Any], ...]] = set()

    def note(self, record: UsageRecord, host: str) -> None:
        """Count one request, which *host* answered."""
        named = self._bounded(views.common(record, host))
        self._duration.record(record.duration_s, named)
        for kind, tokens in (("input", record.prompt_tokens), ("output", record.completion_tokens)):
            if tokens:
                self._tokens.record(tokens, named | {"gen_ai.token.type": kind})
        if record.streaming and record.first_byte_s and not record.error:
            self._first.record(record.first_byte_s, named)

    def close(self, timeout_s: float) -> None:
        """Send the last values."""
        try:
            self._provider.shutdown(timeout_s * 1000)
        except Exception as error:  # noqa: BLE001 - a receiver that is gone must not spoil the end
            _log.warning("the last metrics could not be sent: %r", error)

    def _bounded(self, named: dict[str, Any]) -> dict[str, Any]:
        """The attributes; with another model's name once there are too many kinds."""
        key = tuple(sorted(named.items()))
        if key in self._seen or len(self._seen) < _MOST_SERIES:
            self._seen.add(key)
            return named
        return {
            "gen_ai.operation.name": named["gen_ai.operation.name"],
            "gen_ai.provider.name": "other",
            "gen_ai.request.model": "other",
        }


def release_of() -> str:
    """The installed release of this gateway."""
    try:
        return version("sluicegate")
    except PackageNotFoundError:
        return "0"
