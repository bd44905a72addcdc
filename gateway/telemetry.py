"""UsageRecords and the table's state as Prometheus metrics. Labels come from bounded sets only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.dataplane.table import RouteTable
from gateway.dataplane.usage import UsageRecord

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_PREDICT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_PREDICT_ROUTES = frozenset({"/v2/models/{name}/infer", "/predict", "/predict/batch"})


class State(Protocol):
    """What the gauges read when they are scraped."""

    @property
    def table(self) -> RouteTable:
        """The table in force."""
        ...

    @property
    def ready(self) -> bool:
        """Whether every release in production can answer."""
        ...

    @property
    def registry_error(self) -> str | None:
        """Why the registry could not be read; None when it could."""
        ...


class Telemetry:
    """The metrics of one gateway."""

    def __init__(self, state: State) -> None:
        """Gauges show *state* as it is at each scrape."""
        self._registry = CollectorRegistry()
        self._predictions = Counter(
            "ml_predictions_total",
            "Rows predicted, and prediction requests that failed.",
            ("release", "outcome"),
            registry=self._registry,
        )
        self._predict_seconds = Histogram(
            "ml_prediction_duration_seconds",
            "Time inside the classical model, per request.",
            ("release",),
            buckets=_PREDICT_BUCKETS,
            registry=self._registry,
        )
        self._requests = Counter(
            "sluicegate_requests_total",
            "Requests of the data plane; status 499 is a client that left.",
            ("route", "release", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "sluicegate_request_duration_seconds",
            "From the request's head to the answer's end.",
            ("route", "release"),
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "sluicegate_tokens_total",
            "Tokens as the upstream counted them; estimated for local embedders.",
            ("release", "direction"),
            registry=self._registry,
        )
        self._guardrails = Counter(
            "sluicegate_guardrail_total",
            "What guardrails found, and what was done about it.",
            ("rule", "action"),
            registry=self._registry,
        )
        self._registry.register(_Gauges(state))

    def emit(self, record: UsageRecord) -> None:
        """Count one finished request."""
        release = record.release
        self._requests.labels(record.route, release, str(record.status)).inc()
        self._seconds.labels(record.route, release).observe(record.duration_s)
        if record.prompt_tokens:
            self._tokens.labels(release, "prompt").inc(record.prompt_tokens)
        if record.completion_tokens:
            self._tokens.labels(release, "completion").inc(record.completion_tokens)
        for rule, action in record.findings:
            self._guardrails.labels(rule, action).inc()
        if record.route in _PREDICT_ROUTES and release:
            if record.rows:
                self._predictions.labels(release, "ok").inc(record.rows)
                self._predict_seconds.labels(release).observe(record.predict_s)
            else:
                outcome = "refused" if record.status < 500 else "error"
                self._predictions.labels(release, outcome).inc()

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    """The state of the table, read when scraped, so that no series outlives its release."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One family for each gauge."""
        state = self._state
        info = GaugeMetricFamily(
            "sluicegate_release_info", "What each alias serves.", labels=("release", "alias", "digest")
        )
        for (name, alias), _ in sorted(state.table.aliases.items()):
            route = state.table.targets[f"{name}@{alias}"].route
            info.add_metric((name, alias, route.digest), 1)
        yield info
        up = "Whether the registry could be read at the last look."
        yield GaugeMetricFamily("sluicegate_registry_up", up, value=float(state.registry_error is None))
        ready = "Whether every release in production can answer."
        yield GaugeMetricFamily("sluicegate_ready", ready, value=float(state.ready))
        revision = "Revision of the registry that is served."
        yield GaugeMetricFamily("sluicegate_registry_revision", revision, value=state.table.revision)
