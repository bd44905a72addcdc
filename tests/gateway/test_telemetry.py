"""Records become metrics with bounded labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.dataplane.admission import Admission
from gateway.dataplane.balance import Upstream
from gateway.dataplane.breaker import Breaker
from gateway.dataplane.table import Route, RouteTable, Subject
from gateway.dataplane.usage import UsageRecord
from gateway.telemetry import Gauges, Telemetry
from registry.entities import Limits
from tests.fakes.parts import DIGEST, Scripted, table_of


@dataclass
class State:
    table: RouteTable = field(default_factory=lambda: table_of({"churn": Route(name="churn", digest=DIGEST)}))
    ready: bool = True
    registry_error: str | None = None
    upstreams: list[Upstream] = field(default_factory=list)


def samples(telemetry: Telemetry) -> dict[str, float]:
    lines = telemetry.render().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs if "_bucket" not in name and "_created" not in name}


def test_a_prediction_counts_its_rows_and_its_time() -> None:
    telemetry = Telemetry(State())
    route = "/v2/models/{name}/infer"
    telemetry.emit(UsageRecord("req", "", route, "churn", status=200, rows=3, predict_s=0.25, duration_s=0.5))
    telemetry.emit(UsageRecord("req", "", route, "churn", status=400, error="bad_features"))
    telemetry.emit(UsageRecord("req", "", route, "churn", status=500, error="internal_error"))
    telemetry.emit(UsageRecord("req", "", route, "", status=401))
    got = samples(telemetry)
    assert {name: value for name, value in got.items() if name.startswith("ml_")} == {
        'ml_predictions_total{outcome="ok",release="churn"}': 3,
        'ml_predictions_total{outcome="refused",release="churn"}': 1,
        'ml_predictions_total{outcome="error",release="churn"}': 1,
        'ml_prediction_duration_seconds_count{release="churn"}': 1,
        'ml_prediction_duration_seconds_sum{release="churn"}': 0.25,
    }


def test_tokens_guardrails_and_state_are_shown() -> None:
    state = State(registry_error="gone", ready=False)
    telemetry = Telemetry(state)
    record = UsageRecord("req", "", "/v1/chat/completions", "support", status=200)
    record.prompt_tokens, record.completion_tokens, record.attempts = 7, 2, 1
    record.findings = [("email", "redact"), ("email", "redact"), ("", "block")]
    telemetry.emit(record)
    got = samples(telemetry)
    expected = {
        'sluicegate_tokens_total{direction="prompt",release="support"}': 7,
        'sluicegate_tokens_total{direction="completion",release="support"}': 2,
        'sluicegate_guardrail_total{action="redact",rule="email"}': 2,
        'sluicegate_guardrail_total{action="block",rule=""}': 1,
        f'sluicegate_release_info{{alias="production",digest="{DIGEST}",release="churn"}}': 1,
        "sluicegate_registry_up": 0,
        "sluicegate_ready": 0,
        "sluicegate_registry_revision": 1,
    }
    assert {name: got[name] for name in expected} == expected


def chat(**changes: Any) -> UsageRecord:
    values: dict[str, Any] = {
        "route": "/v1/chat/completions", "release": "support", "model": "vllm/tiny", "status": 200,
        "attempts": 1, "duration_s": 1.0, "first_byte_s": 0.5, "prompt_tokens": 7, "completion_tokens": 11,
    }  # fmt: skip
    return UsageRecord("req", **(values | changes))


def test_streams_show_how_fast_they_were() -> None:
    telemetry = Telemetry(State())
    telemetry.emit(chat(streaming=True))
    telemetry.emit(chat(streaming=False))
    got = samples(telemetry)
    labels = '{release="support",route="/v1/chat/completions"}'
    assert got["sluicegate_time_to_first_byte_seconds_sum" + labels] == 0.5
    assert got["sluicegate_time_to_first_byte_seconds_count" + labels] == 1
    assert got["sluicegate_time_per_output_token_seconds_sum" + labels] == 0.05
    assert got["sluicegate_output_tokens_per_second_sum" + labels] == 11.0
    assert got["sluicegate_request_duration_seconds_count" + labels] == 2


def test_money_retries_fallbacks_and_limits_are_counted() -> None:
    telemetry = Telemetry(State())
    telemetry.emit(chat(cost_microusd=5, attempts=3, fallback=True, cached_tokens=4, reasoning_tokens=2))
    telemetry.emit(chat(cost_microusd=None))
    telemetry.emit(chat(status=429, error="rate_limit_exceeded", attempts=0, limited="key.rpm"))
    got = samples(telemetry)
    expected = {
        'sluicegate_cost_microusd_total{model="vllm/tiny"}': 5,
        'sluicegate_unpriced_requests_total{model="vllm/tiny"}': 1,
        'sluicegate_retries_total{model="vllm/tiny"}': 2,
        'sluicegate_fallbacks_total{release="support"}': 1,
        'sluicegate_limited_total{rule="key.rpm"}': 1,
        'sluicegate_tokens_total{direction="cached",release="support"}': 4,
        'sluicegate_tokens_total{direction="reasoning",release="support"}': 2,
    }
    assert {name: got[name] for name in expected} == expected


def test_labels_are_bounded_whatever_clients_and_upstreams_say() -> None:
    telemetry = Telemetry(State())
    for number in range(3000):
        telemetry.emit(chat(release="vllm/*", model=f"vllm/{number}", error=f"made-up-{number}", status=502))
        telemetry.emit(chat(release=f"r{number}", model="vllm/tiny"))
    got = samples(telemetry)
    requests = {name: value for name, value in got.items() if name.startswith("sluicegate_requests_total")}
    assert sum(requests.values()) == 6000
    assert len(requests) <= 2001
    assert not any("made-up" in name for name in requests)
    assert not any("vllm/17" in name for name in got)


def test_budgets_show_what_is_left() -> None:
    limits = Limits(budget_microusd=1000, budget_period="day")
    table = table_of({}, subjects=(Subject("key", "key_1", limits),))
    telemetry = Telemetry(State(table), Gauges(spent=lambda: {("key", "key_1", "day"): 400}))
    name = 'sluicegate_budget_remaining_microusd{kind="key",period="day",subject="key_1"}'
    assert samples(telemetry)[name] == 600


def test_an_upstream_shows_its_breaker_and_its_load() -> None:
    upstream = Upstream("vllm", Scripted(None), "tiny", "vllm/tiny", breaker=Breaker(1, 1e9))
    upstream.in_flight = 3
    upstream.breaker.failed(upstream.breaker.allow(0.0), 0.0)
    got = samples(Telemetry(State(upstreams=[upstream])))
    assert got['sluicegate_upstream_state{model="vllm/tiny",state="open",upstream="vllm"}'] == 1
    assert got['sluicegate_upstream_in_flight{model="vllm/tiny",upstream="vllm"}'] == 3


def test_the_text_is_what_prometheus_reads() -> None:
    telemetry = Telemetry(State(), Gauges(Admission(1, 1.0)))
    telemetry.emit(chat(streaming=True, cost_microusd=1))
    families = {family.name for family in text_string_to_metric_families(telemetry.render().decode())}
    expected = {
        "sluicegate_requests", "sluicegate_phase_duration_seconds", "sluicegate_in_flight_requests",
    }  # fmt: skip
    assert expected <= families
