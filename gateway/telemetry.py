"""
UsageRecords and the gateway's state as Prometheus metrics.

Labels come from bounded sets: routes are patterns, releases those of the registry, a model called directly
is `provider/*`, error codes those of this gateway; past a bound, series are counted as `other`. Counting
is a dictionary look-up and some additions, so that it costs the request little; text is made when scraped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.dataplane.admission import Admission
from gateway.dataplane.balance import Upstream
from gateway.dataplane.table import RouteTable
from gateway.dataplane.usage import UsageRecord
from gateway.errors import STATUS
from gateway.series import MAX_SERIES, SECONDS, Histogram, counter_of, histogram_of, summed
from gateway.telemetry_arms import Arms

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MAX_FEEDBACK = 500
"""Clients choose its names."""
_OTHER = "other"
_PREDICT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1)
_TOKENS_PER_S = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_PHASE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_PREDICT_ROUTES = frozenset({"/v2/models/{name}/infer", "/predict", "/predict/batch"})
_ERRORS = frozenset({*STATUS, "client_closed", "gateway_error", ""})
_STATES = ("closed", "open", "half_open")


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

    @property
    def upstreams(self) -> Sequence[Upstream]:
        """Every upstream in use."""
        ...


@dataclass(frozen=True, slots=True)
class Gauges:
    """Further state, read when scraped."""

    admission: Admission | None = None
    limits_store_up: Callable[[], bool] = lambda: True
    unwritten_records: Callable[[], int] = lambda: 0
    """Usage records that are in memory alone."""
    journal_bytes: Callable[[], int] = lambda: 0
    """Usage that the registry does not have yet."""
    spent: Callable[[], Mapping[tuple[str, str, str], int]] = dict
    """(kind, subject, period) → micro-USD."""
    unlogged: Callable[[], int] = lambda: 0
    """Requests that the request log left out."""
    unexported: Callable[[], int] = lambda: 0
    """Requests whose spans were dropped."""


@dataclass(slots=True)
class _Row:
    """All that is counted for one route, release and model."""

    statuses: dict[tuple[int, str], int] = field(default_factory=dict)
    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    first_byte: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    token_seconds: Histogram = field(default_factory=lambda: Histogram(_TOKEN_SECONDS))
    tokens_per_s: Histogram = field(default_factory=lambda: Histogram(_TOKENS_PER_S))
    predict: Histogram = field(default_factory=lambda: Histogram(_PREDICT_SECONDS))
    tokens: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    """Prompt, completion, cached, reasoning."""
    microusd: int = 0
    unpriced: int = 0
    retries: int = 0
    fallbacks: int = 0
    replayed: int = 0
    predicted: int = 0
    refused: int = 0
    failed: int = 0


class Telemetry:
    """The metrics of one process."""

    def __init__(self, state: State, gauges: Gauges | None = None) -> None:
        """Gauges show *state* and *gauges* as they are at each scrape."""
        self._rows: dict[tuple[str, str, str], _Row] = {}
        self._phases = {phase: Histogram(_PHASE_SECONDS) for phase in ("admit", "guard", "upstream")}
        self._findings: dict[tuple[str, ...], int] = {}
        self._limited: dict[str, int] = {}
        self._feedback: dict[tuple[str, ...], int] = {}
        self._variants: dict[tuple[str, str, str], list[int]] = {}
        """(release, variant, outcome) → requests, prompt tokens, completion tokens, milliseconds."""
        self.arms = Arms()
        """What releases that share an alias's traffic did."""
        self._registry = CollectorRegistry()
        self._registry.register(_Collected(self._counted))
        self._registry.register(_Collected(lambda: _gauges(state, gauges or Gauges())))

    def emit(self, record: UsageRecord) -> None:
        """Count one request. Called once for each."""
        release = record.release
        key = (record.route, release, release if release[-2:] == "/*" else record.model)
        row = self._rows.get(key)
        if row is None:
            row = self._new(key)
        error = record.error
        outcome = (record.status, error if error in _ERRORS else "upstream_error")
        row.statuses[outcome] = row.statuses.get(outcome, 0) + 1
        row.seconds.observe(record.duration_s)
        if record.attempts:
            self._note_upstream(row, record)
        elif record.prompt_tokens:
            row.tokens[0] += record.prompt_tokens
        if record.variant:
            self._note_variant(record)
        if record.arm:
            self.arms.note(record, "error" if record.error or record.status >= 400 else "ok")
        if record.limited:
            self._limited[record.limited] = self._limited.get(record.limited, 0) + 1
        if record.feedback is not None:
            self._note_feedback(release, *record.feedback)
        for finding in record.findings:
            self._findings[finding] = self._findings.get(finding, 0) + 1
        if record.route in _PREDICT_ROUTES and release:
            _note_prediction(row, record)

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def _note_feedback(self, release: str, name: str, sign: str) -> None:
        key: tuple[str, ...] = (release, name, sign)
        if key not in self._feedback and len(self._feedback) >= _MAX_FEEDBACK:
            key = (_OTHER, _OTHER, sign)
        self._feedback[key] = self._feedback.get(key, 0) + 1

    def _note_variant(self, record: UsageRecord) -> None:
        outcome = "error" if record.error or record.status >= 400 else "ok"
        key = (record.release, record.variant, outcome)
        sums = self._variants.get(key)
        if sums is None and len(self._variants) < MAX_SERIES:
            sums = self._variants[key] = [0, 0, 0, 0]
        if sums is not None:
            sums[0] += 1
            sums[1] += record.prompt_tokens
            sums[2] += record.completion_tokens
            sums[3] += round(record.duration_s * 1000)

    def _new(self, key: tuple[str, str, str]) -> _Row:
        if len(self._rows) >= MAX_SERIES:
            key = (key[0], _OTHER, _OTHER)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Row()
        return row

    def _note_upstream(self, row: _Row, record: UsageRecord) -> None:
        phases = self._phases
        phases["admit"].observe(record.admit_s)
        phases["guard"].observe(record.guard_s)
        if record.upstream_s:
            phases["upstream"].observe(record.upstream_s)
        tokens = row.tokens
        tokens[0] += record.prompt_tokens
        tokens[1] += record.completion_tokens
        tokens[2] += record.cached_tokens
        tokens[3] += record.reasoning_tokens
        if record.cost_microusd is not None:
            row.microusd += record.cost_microusd
        else:
            row.unpriced += 1
        row.retries += record.attempts - 1
        row.fallbacks += record.fallback
        row.replayed += record.replayed
        if record.streaming and record.first_byte_s:
            row.first_byte.observe(record.first_byte_s)
            writing_s = record.duration_s - record.first_byte_s
            if record.completion_tokens > 1 and writing_s > 0:
                row.token_seconds.observe(writing_s / (record.completion_tokens - 1))
                row.tokens_per_s.observe(record.completion_tokens / record.duration_s)

    def _counted(self) -> Iterator[Metric]:
        rows = self._rows
        yield counter_of(
            "sluicegate_requests", "Requests of the data plane; status 499 is a client that left, an error "
            "besides status 200 a stream that failed after its head.",
            ("route", "release", "status", "error"),
            summed(
                ((route, release, str(status), error), count)
                for (route, release, _), row in rows.items()
                for (status, error), count in row.statuses.items()
            ),
        )  # fmt: skip
        for name, text, pick in _HISTOGRAMS:
            yield histogram_of(
                name, text, ("route", "release"),
                [((route, release), pick(row)) for (route, release, _), row in rows.items()],
            )  # fmt: skip
        yield histogram_of(
            "sluicegate_phase_duration_seconds", "Where time went before an answer began.", ("phase",),
            [((phase,), histogram) for phase, histogram in self._phases.items()],
        )  # fmt: skip
        for name, text, label, count in _COUNTERS:
            pairs = (((release if label == "release" else model,), count(row))
                     for (_, release, model), row in rows.items())  # fmt: skip
            yield counter_of(name, text, (label,), summed(pairs))
        yield counter_of(
            "sluicegate_tokens", "Tokens as the upstream counted them; estimated where it counts none.",
            ("release", "direction"),
            summed(
                ((release, direction), row.tokens[place])
                for (_, release, _), row in rows.items()
                for place, direction in enumerate(("prompt", "completion", "cached", "reasoning"))
            ),
        )  # fmt: skip
        for place, (name, text) in enumerate(_VARIANT_COUNTERS):
            yield counter_of(name, text, ("release", "variant", "outcome"),
                           {key: sums[place] for key, sums in self._variants.items()})  # fmt: skip
        yield from self.arms.series()
        yield counter_of("sluicegate_limited", "Requests refused by a limit.", ("rule",),
                       {(rule,): count for rule, count in self._limited.items()})  # fmt: skip
        yield counter_of("sluicegate_guardrail", "What guardrails found, and what was done about it.",
                       ("rule", "action"), self._findings)  # fmt: skip
        yield counter_of("sluicegate_feedback", "What people said of answers.", ("release", "name", "sign"),
                       self._feedback)  # fmt: skip
        yield counter_of(
            "ml_predictions", "Rows predicted, and prediction requests that failed.", ("release", "outcome"),
            summed(
                ((release, outcome), count)
                for (_, release, _), row in rows.items()
                for outcome, count in (("ok", row.predicted), ("refused", row.refused), ("error", row.failed))
            ),
        )  # fmt: skip
        yield histogram_of(
            "ml_prediction_duration_seconds", "Time inside the classical model, per request.", ("release",),
            [((release,), row.predict) for (_, release, _), row in rows.items()],
        )  # fmt: skip


_HISTOGRAMS: tuple[tuple[str, str, Callable[[_Row], Histogram]], ...] = (
    ("sluicegate_request_duration_seconds", "From the request's head to the answer's end.",
     lambda row: row.seconds),
    ("sluicegate_time_to_first_byte_seconds", "From a request's head to the first byte of its stream.",
     lambda row: row.first_byte),
    ("sluicegate_time_per_output_token_seconds", "Mean time between two tokens of a stream.",
     lambda row: row.token_seconds),
    ("sluicegate_output_tokens_per_second", "Tokens of a stream over its whole time.",
     lambda row: row.tokens_per_s),
)  # fmt: skip
_VARIANT_COUNTERS = (
    ("sluicegate_variant_requests", "Requests answered with each prompt of a release that has several."),
    ("sluicegate_variant_prompt_tokens", "Tokens that they read."),
    ("sluicegate_variant_completion_tokens", "Tokens that they wrote."),
    ("sluicegate_variant_milliseconds", "Time that they took."),
)
_COUNTERS: tuple[tuple[str, str, str, Callable[[_Row], int]], ...] = (
    ("sluicegate_cost_microusd", "Money, in millionths of a dollar.", "model", lambda row: row.microusd),
    ("sluicegate_unpriced_requests", "Requests of models without a price.", "model",
     lambda row: row.unpriced),
    ("sluicegate_retries", "Upstream calls beyond the first of a request.", "model", lambda row: row.retries),
    ("sluicegate_fallbacks", "Requests answered by something other than a release's first model.", "release",
     lambda row: row.fallbacks),
    ("sluicegate_cache_hits", "Requests answered as an equal one was.", "release", lambda row: row.replayed),
)  # fmt: skip


def _note_prediction(row: _Row, record: UsageRecord) -> None:
    if record.rows:
        row.predicted += record.rows
        row.predict.observe(record.predict_s)
    elif record.status < 500:
        row.refused += 1
    else:
        row.failed += 1


class _Collected(Collector):
    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families()

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not looked for twice."""
        return ()


def _gauges(state: State, gauges: Gauges) -> Iterator[Metric]:
    """The state now, so that no series outlives what it is about."""
    table = state.table
    info = GaugeMetricFamily(
        "sluicegate_release_info", "What each alias serves.", labels=("release", "alias", "digest")
    )
    for name, alias in sorted(table.aliases):
        info.add_metric((name, alias, table.targets[f"{name}@{alias}"].route.digest), 1)
    yield info
    unproven = GaugeMetricFamily(
        "sluicegate_alias_without_evidence", "1 for each alias that was moved by breaking the glass.",
        labels=("release", "alias"),
    )  # fmt: skip
    for name, alias in sorted(table.unproven):
        unproven.add_metric((name, alias), 1)
    yield unproven
    up = "Whether the registry could be read at the last look."
    yield GaugeMetricFamily("sluicegate_registry_up", up, value=float(state.registry_error is None))
    ready = "Whether every release in production can answer."
    yield GaugeMetricFamily("sluicegate_ready", ready, value=float(state.ready))
    revision = "Revision of the registry that is served."
    yield GaugeMetricFamily("sluicegate_registry_revision", revision, value=table.revision)
    yield from _upstream_gauges(state.upstreams)
    admission = gauges.admission
    if admission is not None:
        text = "Requests under way."
        yield GaugeMetricFamily("sluicegate_in_flight_requests", text, value=admission.in_flight)
        text = "Length of the last measured turn of the event loop."
        yield GaugeMetricFamily("sluicegate_event_loop_turn_seconds", text, value=admission.lag_s)
        text = "Requests refused because this process was full or fell behind."
        yield CounterMetricFamily("sluicegate_overload_refusals", text, value=admission.refused)
    text = "Whether limits are counted where they should be."
    yield GaugeMetricFamily("sluicegate_limits_store_up", text, value=float(gauges.limits_store_up()))
    text = "Usage records in memory alone, because the disk takes none."
    yield GaugeMetricFamily("sluicegate_unwritten_usage_records", text, value=gauges.unwritten_records())
    text = "Usage on disk that the registry does not have yet."
    yield GaugeMetricFamily("sluicegate_usage_backlog_bytes", text, value=gauges.journal_bytes())
    text = "Lines that the request log left out, because its reader was too slow."
    yield CounterMetricFamily("sluicegate_request_log_dropped", text, value=gauges.unlogged())
    text = "Requests whose spans were not exported, because too many waited or the receiver took none."
    yield CounterMetricFamily("sluicegate_otlp_dropped", text, value=gauges.unexported())
    yield _budgets(table, gauges.spent())


def _upstream_gauges(upstreams: Sequence[Upstream]) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "sluicegate_upstream_state", "1 for the state an upstream's breaker is in.",
        labels=("upstream", "model", "state"),
    )  # fmt: skip
    busy = GaugeMetricFamily(
        "sluicegate_upstream_in_flight", "Requests under way at an upstream.", labels=("upstream", "model")
    )
    seen: dict[tuple[str, str], int] = {}
    worst: dict[tuple[str, str], int] = {}
    for upstream in upstreams:
        key = (upstream.name, upstream.model_name)
        seen[key] = seen.get(key, 0) + upstream.in_flight
        worst[key] = max(worst.get(key, 0), (0, 2, 1)[_STATES.index(upstream.state())])
    for key in sorted(seen)[:MAX_SERIES]:
        busy.add_metric(key, seen[key])
        states.add_metric((*key, ("closed", "half_open", "open")[worst[key]]), 1)
    yield states
    yield busy


def _budgets(table: RouteTable, spent: Mapping[tuple[str, str, str], int]) -> Metric:
    family = GaugeMetricFamily(
        "sluicegate_budget_remaining_microusd",
        "Money left in the period that is now, as of a few seconds ago.",
        labels=("kind", "subject", "period"),
    )  # fmt: skip
    left: dict[tuple[str, str, str], int] = {}
    for grant in table.grants.values():
        for subject in grant.subjects:
            limits = subject.limits
            if limits.budget_microusd is not None:
                key: tuple[str, str, str] = (subject.kind, subject.id, limits.budget_period)
                left[key] = limits.budget_microusd - spent.get(key, 0)
    for key in sorted(left)[:MAX_SERIES]:
        family.add_metric(key, left[key])
    return family
