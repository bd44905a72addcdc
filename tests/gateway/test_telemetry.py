"""Records become metrics with bounded labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.dataplane.admission import Admission
from gateway.dataplane.balance import Upstream
from gateway.dataplane.breaker import Breaker
from gateway.dataplane.table import Route, RouteTable, Subject
from gateway.dataplane.usage import UsageRecord
from gateway.errors import STATUS
from gateway.telemetry import Gauges, Telemetry
from registry.entities import Limits
from tests.fakes.parts import DIGEST, Scripted, table_of

CHAT = "/v1/chat/completions"
INFER = "/v2/models/{name}/infer"


@dataclass
class State:
    table: RouteTable = field(default_factory=lambda: table_of({"churn": Route(name="churn", digest=DIGEST)}))
    ready: bool = True
    registry_error: str | None = None
    upstreams: Sequence[Upstream] = ()


def record(route: str = CHAT, release: str = "support", status: int = 200, **more: Any) -> UsageRecord:
    return UsageRecord("req_1", route=route, release=release, status=status, **more)


def samples(telemetry: Telemetry) -> dict[str, float]:
    lines = telemetry.render().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs if "_bucket" not in name and "_created" not in name}


def test_a_prediction_counts_its_rows_and_its_time() -> None:
    telemetry = Telemetry(State())
    telemetry.emit(record(INFER, "churn", rows=3, predict_s=0.25, duration_s=0.5))
    telemetry.emit(record(INFER, "churn", 400, error="bad_features"))
    telemetry.emit(record(INFER, "churn", 500, error="internal_error"))
    telemetry.emit(record(INFER, "", 401))
    got = samples(telemetry)
    assert {name: value for name, value in got.items() if name.startswith("ml_")} == {
        'ml_predictions_total{outcome="ok",release="churn"}': 3,
        'ml_predictions_total{outcome="refused",release="churn"}': 1,
        'ml_predictions_total{outcome="error",release="churn"}': 1,
        'ml_prediction_duration_seconds_count{release="churn"}': 1,
        'ml_prediction_duration_seconds_sum{release="churn"}': 0.25,
    }


def test_a_stream_counts_its_tokens_its_times_and_its_money() -> None:
    telemetry = Telemetry(State())
    telemetry.emit(
        record(
            model="vllm/tiny", streaming=True, attempts=3, fallback=True, duration_s=2.5, first_byte_s=0.5,
            admit_s=0.125, guard_s=0.25, upstream_s=0.375, prompt_tokens=7, completion_tokens=5,
            cached_tokens=4, reasoning_tokens=2, cost_microusd=11,
        )
    )  # fmt: skip
    telemetry.emit(record(model="vllm/tiny", attempts=1, prompt_tokens=1, error="upstream_timeout"))
    got = samples(telemetry)
    labels = f'release="support",route="{CHAT}"'
    expected = {
        f'sluicegate_requests_total{{error="",{labels},status="200"}}': 1,
        f'sluicegate_requests_total{{error="upstream_timeout",{labels},status="200"}}': 1,
        f"sluicegate_time_to_first_byte_seconds_count{{{labels}}}": 1,
        f"sluicegate_time_to_first_byte_seconds_sum{{{labels}}}": 0.5,
        f"sluicegate_time_per_output_token_seconds_count{{{labels}}}": 1,
        f"sluicegate_time_per_output_token_seconds_sum{{{labels}}}": 0.5,
        f"sluicegate_output_tokens_per_second_count{{{labels}}}": 1,
        f"sluicegate_output_tokens_per_second_sum{{{labels}}}": 2,
        'sluicegate_phase_duration_seconds_sum{phase="admit"}': 0.125,
        'sluicegate_phase_duration_seconds_sum{phase="guard"}': 0.25,
        'sluicegate_phase_duration_seconds_sum{phase="upstream"}': 0.375,
        'sluicegate_tokens_total{direction="prompt",release="support"}': 8,
        'sluicegate_tokens_total{direction="completion",release="support"}': 5,
        'sluicegate_tokens_total{direction="cached",release="support"}': 4,
        'sluicegate_tokens_total{direction="reasoning",release="support"}': 2,
        'sluicegate_cost_microusd_total{model="vllm/tiny"}': 11,
        'sluicegate_unpriced_requests_total{model="vllm/tiny"}': 1,
        'sluicegate_retries_total{model="vllm/tiny"}': 2,
        'sluicegate_fallbacks_total{release="support"}': 1,
    }
    assert {name: got[name] for name in expected} == expected


def test_refusals_and_findings_are_counted_by_rule() -> None:
    telemetry = Telemetry(State())
    telemetry.emit(record(status=429, error="rate_limit_exceeded", limited="key.rpm"))
    telemetry.emit(record(findings=[("email", "redact"), ("email", "redact"), ("", "block")]))
    got = samples(telemetry)
    expected = {
        'sluicegate_limited_total{rule="key.rpm"}': 1,
        'sluicegate_guardrail_total{action="redact",rule="email"}': 2,
        'sluicegate_guardrail_total{action="block",rule=""}': 1,
    }
    assert {name: got[name] for name in expected} == expected


def test_the_state_is_shown_as_it_is_when_asked() -> None:
    busy = Upstream("vllm", Scripted(None), "tiny", "vllm/tiny")
    busy.in_flight = 2
    broken = Upstream("vllm#2", Scripted(None), "tiny", "vllm/tiny", breaker=Breaker(failures=1, open_s=1e9))
    broken.breaker.failed(broken.breaker.allow(monotonic()), monotonic())
    limited = Subject("key", "key_1", Limits(budget_microusd=100))
    state = State(
        table_of({"churn": Route(name="churn", digest=DIGEST)}, subjects=(limited,)),
        ready=False, registry_error="gone", upstreams=[busy, broken],
    )  # fmt: skip
    admission = Admission(10, 1.0)
    telemetry = Telemetry(
        state,
        Gauges(
            admission, limits_store_up=lambda: False, unwritten_records=lambda: 3, journal_bytes=lambda: 4,
            spent=lambda: {("key", "key_1", "month"): 30, ("key", "key_1", "day"): 7}, unlogged=lambda: 5,
            unexported=lambda: 8,
        ),
    )  # fmt: skip
    admission.in_flight, admission.refused, admission.lag_s = 6, 7, 0.5
    assert samples(telemetry) == {
        f'sluicegate_release_info{{alias="production",digest="{DIGEST}",release="churn"}}': 1,
        "sluicegate_registry_up": 0,
        "sluicegate_ready": 0,
        "sluicegate_registry_revision": 1,
        'sluicegate_upstream_state{model="vllm/tiny",state="closed",upstream="vllm"}': 1,
        'sluicegate_upstream_state{model="vllm/tiny",state="open",upstream="vllm#2"}': 1,
        'sluicegate_upstream_in_flight{model="vllm/tiny",upstream="vllm"}': 2,
        'sluicegate_upstream_in_flight{model="vllm/tiny",upstream="vllm#2"}': 0,
        "sluicegate_in_flight_requests": 6,
        "sluicegate_event_loop_turn_seconds": 0.5,
        "sluicegate_overload_refusals_total": 7,
        "sluicegate_limits_store_up": 0,
        "sluicegate_unwritten_usage_records": 3,
        "sluicegate_usage_backlog_bytes": 4,
        "sluicegate_request_log_dropped_total": 5,
        "sluicegate_otlp_dropped_total": 8,
        'sluicegate_budget_remaining_microusd{kind="key",period="month",subject="key_1"}': 70,
    }


def test_labels_are_bounded_whatever_is_asked_for() -> None:
    telemetry = Telemetry(State())
    for number in range(2500):
        telemetry.emit(record(release=f"r{number}", model=f"m{number}", error=f"made up {number}"))
        telemetry.emit(record(release="vllm/*", model=f"vllm/chosen-{number}", attempts=1, cost_microusd=1))
    got = samples(telemetry)
    counted = {name: value for name, value in got.items() if name.startswith("sluicegate_requests_total")}
    assert len(counted) == 2001
    other = f'sluicegate_requests_total{{error="upstream_error",release="other",route="{CHAT}",status="200"}}'
    assert (sum(counted.values()), counted[other]) == (5000, 501)
    assert [name for name in got if "chosen" in name or "made up" in name] == []
    assert got['sluicegate_cost_microusd_total{model="vllm/*"}'] == 2500


seconds = st.floats(0, 1000)
records = st.builds(
    UsageRecord, request_id=st.just("req_1"), route=st.sampled_from([CHAT, INFER, "/predict", "unknown"]),
    release=st.sampled_from(["", "support", 'we"ird\\\n', "vllm/*"]),
    model=st.sampled_from(["", "vllm/tiny"]),
    status=st.sampled_from([0, 200, 429, 499, 502]), error=st.sampled_from(["", "nonsense", *STATUS]),
    streaming=st.booleans(), attempts=st.integers(0, 3), fallback=st.booleans(), duration_s=seconds,
    first_byte_s=seconds, admit_s=seconds, guard_s=seconds, upstream_s=seconds,
    prompt_tokens=st.integers(0, 10**6), completion_tokens=st.integers(0, 10**6),
    cost_microusd=st.none() | st.integers(0, 10**9), rows=st.integers(0, 5), predict_s=seconds,
    limited=st.sampled_from(["", "key.rpm", "team.budget"]),
    findings=st.lists(st.tuples(st.sampled_from(["email", ""]), st.sampled_from(["redact"])), max_size=3),
)  # fmt: skip


@given(st.lists(records, max_size=20))
def test_the_text_is_valid_and_its_sums_are_those_of_the_records(noted: list[UsageRecord]) -> None:
    telemetry = Telemetry(State())
    for each in noted:
        telemetry.emit(each)
    families = list(text_string_to_metric_families(telemetry.render().decode()))
    assert len({family.name for family in families}) == len(families)
    totals: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0) + sample.value
        if family.type == "histogram":
            check_buckets(family)
    upstream = [each for each in noted if each.attempts]
    expected = {
        "sluicegate_requests_total": len(noted),
        "sluicegate_request_duration_seconds_count": len(noted),
        "sluicegate_cost_microusd_total": sum(each.cost_microusd or 0 for each in upstream),
        "sluicegate_unpriced_requests_total": sum(each.cost_microusd is None for each in upstream),
        "sluicegate_retries_total": sum(each.attempts - 1 for each in upstream),
        "sluicegate_limited_total": sum(bool(each.limited) for each in noted),
        "sluicegate_guardrail_total": sum(len(each.findings) for each in noted),
    }
    assert {name: totals.get(name, 0) for name in expected} == expected


def check_buckets(family: Any) -> None:
    """Buckets grow to the count."""
    series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    counts: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        key = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        if sample.name.endswith("_bucket"):
            series.setdefault(key, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_count"):
            counts[key] = sample.value
    assert series.keys() == counts.keys()
    for key, buckets in series.items():
        assert buckets == sorted(buckets)
        assert [count for _, count in buckets] == sorted(count for _, count in buckets)
        assert buckets[-1] == (float("inf"), counts[key])
