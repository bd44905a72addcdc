"""Records become metrics with bounded labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.dataplane.table import Route, RouteTable
from gateway.dataplane.usage import UsageRecord, tokens_of
from gateway.telemetry import Telemetry
from tests.fakes.parts import DIGEST, table_of


@dataclass
class State:
    table: RouteTable = field(default_factory=lambda: table_of({"churn": Route(name="churn", digest=DIGEST)}))
    ready: bool = True
    registry_error: str | None = None


def samples(telemetry: Telemetry) -> dict[str, float]:
    lines = telemetry.render().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs if "_bucket" not in name and "_created" not in name}


def test_a_prediction_counts_its_rows_and_its_time() -> None:
    telemetry = Telemetry(State())
    route = "/v2/models/{name}/infer"
    telemetry.emit(UsageRecord("req", route, "churn", status=200, rows=3, predict_s=0.25, duration_s=0.5))
    telemetry.emit(UsageRecord("req", route, "churn", status=400, error="bad_features"))
    telemetry.emit(UsageRecord("req", route, "churn", status=500, error="internal_error"))
    telemetry.emit(UsageRecord("req", route, "", status=401))
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
    record = UsageRecord("req", "/v1/chat/completions", "support", status=200)
    record.prompt_tokens, record.completion_tokens = 7, 2
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


def test_usage_that_cannot_be_read_is_none() -> None:
    for body in (b"", b"{", b"[]", b'{"usage": null}', b'{"usage": {"prompt_tokens": "x"}}', b"\xff"):
        assert tokens_of(body) is None
    tokens = tokens_of(b'{"usage": {"prompt_tokens": 3, "other": {}}, "x": 1}')
    assert tokens is not None
    assert (tokens.prompt_tokens, tokens.completion_tokens) == (3, 0)
