"""Spans and metrics reach a strict receiver, and a receiver that fails costs no request anything."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.controlplane.otlp import Export, Places, headers_of, open_export, places_of
from gateway.controlplane.otlp_views import DURATION_S, FIRST_TOKEN_S, OPERATIONS, TOKENS, attributes
from gateway.dataplane.trace import onward, parent_of, span_of
from gateway.dataplane.usage import UsageRecord
from gateway.settings import OtlpSettings
from registry.clock import from_text, to_text, utc_now
from registry.errors import BadInput, BadSettings
from registry.settings import RegistrySettings
from registry.workspace import open_workspace
from tests.fakes.otlp import Receiver, receiver
from tests.fakes.stand import until
from tests.fakes.upstream import MODEL, Fault, Upstream
from tests.fakes.whole import DIRECT, Whole, whole

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
QUICK: dict[str, Any] = {"interval_s": 0.01, "metrics_interval_s": 0.05, "timeout_s": 2.0}


@pytest.fixture(scope="module")
def taker() -> Iterator[Receiver]:
    with receiver(headers={"authorization": "Basic cGs6c2s="}) as running:
        yield running


@pytest.fixture(scope="module")
def gate(up: Upstream, taker: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("otlp")
    secret = folder / "headers"
    secret.write_text("Authorization: Basic cGs6c2s=\n")
    otlp = OtlpSettings(endpoint=taker.url + "/", headers_file=secret, **QUICK)
    up.seen.clear()
    with (
        open_workspace(RegistrySettings(home=folder / "home")) as workspace,
        whole(workspace, up, folder, otlp=otlp) as running,
    ):
        yield running


def span_named(taker: Receiver, request_id: str) -> Any:
    def found() -> list[Any]:
        return [s for s in taker.spans if s.attributes["gen_ai.response.id"] == request_id]

    until(found)
    (span,) = found()
    return span


def test_a_request_is_one_span_with_the_conventions_names(gate: Whole, taker: Receiver) -> None:
    before = time.time_ns()
    asked = gate.chat(x_sluicegate_user="ann")
    span = span_named(taker, asked.headers["x-request-id"])
    usage = asked.body["usage"]
    cost = float(asked.headers["x-sluicegate-cost-usd"])
    assert (span.name, span.kind, span.status, span.parent) == (f"chat {MODEL}", 3, (0, ""), "")
    assert before - 1_000_000 <= span.begin_ns < span.end_ns <= time.time_ns() + 1_000_000
    assert (span.resource["service.name"], "service.instance.id" in span.resource) == ("sluicegate", True)
    known = dict(span.attributes)
    for name in ("sluicegate.key", "sluicegate.account", "user.id"):
        assert known.pop(name)
    assert known.pop("server.port") > 0
    assert known == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": MODEL,
        "gen_ai.response.id": asked.headers["x-request-id"],
        "gen_ai.request.stream": False,
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "gen_ai.usage.cost": cost,
        "server.address": "127.0.0.1",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "sluicegate.attempts": 1,
        "sluicegate.fallback": False,
        "sluicegate.replayed": False,
        "sluicegate.usage.estimated": False,
        "sluicegate.cost_usd": cost,
        "sluicegate.release": "vllm/*",
        "sluicegate.upstream": "vllm",
    }


def test_a_callers_trace_goes_on_and_on_to_the_upstream(gate: Whole, taker: Receiver, up: Upstream) -> None:
    up.seen.clear()
    asked = gate.chat(traceparent=f"00-{TRACE}-{CALLER}-01", stream=True)
    span = span_named(taker, asked.headers["x-request-id"])
    assert (span.trace, span.parent) == (TRACE, CALLER)
    assert up.seen[0].headers["traceparent"] == f"00-{TRACE}-{span.span}-01"
    assert span.attributes["gen_ai.response.time_to_first_chunk"] > 0
    up.seen.clear()
    rootless = span_named(taker, gate.chat(traceparent="00-junk").headers["x-request-id"])
    assert up.seen[0].headers["traceparent"] == f"00-{rootless.trace}-{rootless.span}-01"


def test_what_its_caller_does_not_sample_is_counted_and_not_sent(gate: Whole, taker: Receiver) -> None:
    gate.chat(traceparent=f"00-{'ab' * 16}-{CALLER}-00")
    span_named(taker, gate.chat().headers["x-request-id"])  # what came later is there
    assert "ab" * 16 not in {span.trace for span in taker.spans}
    dropped = gate.ask("GET", "/metrics", key=None).body.decode()
    assert "sluicegate_otlp_dropped_total 0.0" in dropped


def test_failures_name_their_code(gate: Whole, taker: Receiver, up: Upstream) -> None:
    up.faults.append(Fault(cut_after=300))
    broken = span_named(taker, gate.chat(stream=True).headers["x-request-id"])
    assert (broken.status, broken.attributes["error.type"]) == ((2, "upstream_broken"), "upstream_broken")
    refused = gate.ask("POST", "/v1/chat/completions", {"model": DIRECT, "messages": "x", "api_base": "y"})
    span = span_named(taker, refused.headers["x-request-id"])
    assert (span.status[0], span.attributes["error.type"]) == (2, "unsafe_field")


def test_paths_that_reach_no_model_leave_no_span(gate: Whole, taker: Receiver) -> None:
    listed = gate.ask("GET", "/v1/models").headers["x-request-id"]
    span_named(taker, gate.chat().headers["x-request-id"])
    assert listed not in {span.attributes["gen_ai.response.id"] for span in taker.spans}


def test_the_three_metrics_have_the_conventions_units_and_buckets(gate: Whole, taker: Receiver) -> None:
    gate.chat()
    gate.chat(stream=True)
    until(lambda: "gen_ai.server.time_to_first_token" in taker.metrics)
    assert taker.units == {
        "gen_ai.client.operation.duration": "s",
        "gen_ai.client.token.usage": "{token}",
        "gen_ai.server.time_to_first_token": "s",
    }
    assert taker.bounds == {
        "gen_ai.client.operation.duration": DURATION_S,
        "gen_ai.client.token.usage": TOKENS,
        "gen_ai.server.time_to_first_token": FIRST_TOKEN_S,
    }
    kinds = {named["gen_ai.token.type"] for named, _, _ in taker.metrics["gen_ai.client.token.usage"]}
    assert kinds == {"input", "output"}
    named, count, total = taker.metrics["gen_ai.server.time_to_first_token"][0]
    assert count >= 1 and total > 0
    assert named.keys() == {
        "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model",
        "server.address", "server.port",
    }  # fmt: skip


def test_no_text_is_ever_sent(gate: Whole, taker: Receiver, up: Upstream) -> None:
    up.answer = "Zanzibar answers"
    body = {"model": DIRECT, "messages": [{"role": "user", "content": "Zanzibar asks"}], "user": "Zanzibar"}
    asked = gate.ask("POST", "/v1/chat/completions", body)
    span = span_named(taker, asked.headers["x-request-id"])
    up.answer = "forty two"
    assert "Zanzibar" not in str(span) + str(taker.metrics)


def record(number: int, **more: Any) -> UsageRecord:
    return UsageRecord(
        f"req_{number}", at=to_text(utc_now()), route="/v1/chat/completions", model="vllm/tiny",
        release="vllm/*", attempts=1, status=200, **more,
    )  # fmt: skip


def export(url: str, **changes: Any) -> Export:
    usual: dict[str, Any] = {"endpoint": url, "metrics": False}
    made = open_export(OtlpSettings(**(usual | QUICK | changes)), {}, dict)
    assert made is not None
    return made


def test_a_receiver_that_refuses_costs_spans_that_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with receiver(status=400) as taker:
        made = export(taker.url)
        for number in range(3):
            made.add(record(number))
        until(lambda: made.dropped == 3)
        taker.status = 200
        made.add(record(4))
        until(lambda: taker.spans)
        made.close()
    assert (made.dropped, len(taker.spans)) == (3, 1)
    assert "Failed to export spans batch code: 400" in caplog.text


def test_a_receiver_that_hangs_holds_up_nothing_and_the_queue_is_bounded() -> None:
    with receiver() as taker:
        taker.hold.clear()
        made = export(taker.url, max_waiting=10, timeout_s=30.0)
        made.add(record(0))
        until(made._waiting.empty)
        began = time.monotonic()
        for number in range(1, 2000):
            made.add(record(number))
        assert time.monotonic() - began < 1
        assert made.dropped >= 2000 - 1 - 10 - 512
        taker.hold.set()
        made.close()
        assert len(taker.spans) + made.dropped == 2000


def test_a_receiver_that_is_gone_ends_with_the_gateway_in_time() -> None:
    made = export("http://127.0.0.1:9", metrics=True, timeout_s=1.0)
    made.add(record(0))
    began = time.monotonic()
    made.close()
    assert time.monotonic() - began < 8


def test_what_waits_is_sent_at_the_end() -> None:
    with receiver() as taker:
        made = export(taker.url, interval_s=60.0)
        for number in range(600):
            made.add(record(number))
        made.close()
    assert (len(taker.spans), made.dropped) == (600, 0)
    assert len({span.span for span in taker.spans}) == 600


def test_models_that_clients_make_up_are_a_bounded_number_of_series() -> None:
    from opentelemetry.sdk.resources import Resource

    from gateway.controlplane.otlp_metrics import Metrics

    with receiver() as taker:
        settings = OtlpSettings(**QUICK | {"metrics_interval_s": 60.0})
        metrics = Metrics(f"{taker.url}/v1/metrics", None, settings, Resource({}))
        for number in range(700):
            one = record(number)
            one.model = f"vllm/m{number}"
            metrics.note(one, "")
        metrics.close(5)
        points = taker.metrics["gen_ai.client.operation.duration"]
    assert len(points) == 501
    others = [count for named, count, _ in points if named["gen_ai.request.model"] == "other"]
    assert others == [200]


@pytest.mark.parametrize(
    ("settings", "environ", "found"),
    [
        ({}, {}, (None, None)),
        ({"endpoint": "http://c:1/"}, {}, ("http://c:1/v1/traces", "http://c:1/v1/metrics")),
        ({"endpoint": "http://c", "metrics": False}, {}, ("http://c/v1/traces", None)),
        (
            {"endpoint": "http://c/api/public/otel", "metrics": False},
            {},
            ("http://c/api/public/otel/v1/traces", None),
        ),
        ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e"}, ("http://e/v1/traces", "http://e/v1/metrics")),
        ({}, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://e/t"}, ("http://e/t", None)),
        (
            {},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e", "OTEL_TRACES_EXPORTER": "none"},
            (None, "http://e/v1/metrics"),
        ),
        ({"endpoint": "http://c"}, {"OTEL_SDK_DISABLED": "true"}, (None, None)),
        (
            {"endpoint": "http://c"},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e"},
            ("http://c/v1/traces", "http://c/v1/metrics"),
        ),
    ],
)
def test_settings_say_where_and_else_the_environment(
    settings: Any, environ: Mapping[str, str], found: Any
) -> None:
    assert places_of(OtlpSettings(**settings), environ) == Places(*found)


def test_headers_come_from_a_variable_or_a_file_and_are_never_shown(tmp_path: Path) -> None:
    environ = {"H": "authorization=Basic%20cGs%3D, x-mlflow-experiment-id=7"}
    wanted = {"authorization": "Basic cGs=", "x-mlflow-experiment-id": "7"}
    assert headers_of(OtlpSettings(headers_env="H"), environ) == wanted
    assert headers_of(OtlpSettings(), environ) is None
    bad = tmp_path / "headers"
    bad.write_text("a: 1\nSECRET\n")
    for settings, env in (
        (OtlpSettings(headers_env="NONE"), environ),
        (OtlpSettings(headers_env="H"), {"H": "a=1,SECRET"}),
        (OtlpSettings(headers_env="H"), {"H": "a=SECRET%0d%0ax: y"}),
        (OtlpSettings(headers_file=bad), environ),
        (OtlpSettings(headers_file=tmp_path / "none"), environ),
    ):
        with pytest.raises(BadSettings) as refused:
            headers_of(settings, env)
        assert "SECRET" not in refused.value.message
    with pytest.raises(BadSettings, match="user or password") as refused:
        places_of(OtlpSettings(endpoint="https://u:SECRET@c"), {})
    assert "SECRET" not in refused.value.message


@pytest.mark.parametrize(
    "wrong", [{"endpoint": "c:4318"}, {"sample_ratio": 1.1}, {"timeout_s": 0}, {"max_waiting": 0}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        OtlpSettings(**wrong)


def test_nothing_of_it_is_imported_where_it_is_not_asked_for() -> None:
    script = "import sys, gateway.app; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_without_the_extra_the_settings_are_refused_and_the_environment_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from registry.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sluicegate\[otel\]'"):
        open_export(OtlpSettings(endpoint="http://c"), {}, dict)
    assert open_export(OtlpSettings(), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, dict) is None
    assert "sluicegate[otel]" in caplog.text


@given(st.binary(max_size=80) | st.builds(lambda a, b: f"00-{a:032x}-{b:016x}-01".encode(),
                                          st.integers(0, 2**128 - 1), st.integers(0, 2**64 - 1)))  # fmt: skip
def test_a_traceparent_is_taken_as_the_w3c_says_or_not_at_all(value: bytes) -> None:
    said = parent_of(value)
    if said:
        version, trace, span, flags = said.split("-")
        assert (version, len(trace), len(span), len(flags)) == ("00", 32, 16, 2)
        assert int(trace, 16) and int(span, 16)
        assert said.encode() in value
        place = span_of("req_1", said)
        assert (place.trace, place.parent) == (trace, span)
        assert parent_of(onward(place)) == onward(place).decode()


def test_about_the_asked_share_of_traces_is_kept_and_always_the_same() -> None:
    kept = [span_of(f"req_{number}", "", 0.25).sampled for number in range(4000)]
    assert 900 < sum(kept) < 1100
    assert kept == [span_of(f"req_{number}", "", 0.25).sampled for number in range(4000)]
    assert not any(span_of(f"req_{number}", "", 0.0).sampled for number in range(100))
    assert all(span_of(f"req_{number}", "", 1.0).sampled for number in range(100))


def test_every_exported_route_is_one_there_is() -> None:
    from gateway.dataplane.routes import EXACT, PATTERNS

    assert OPERATIONS.keys() <= EXACT.keys() | {name for _, _, name, _, _ in PATTERNS}


@pytest.mark.parametrize(
    ("host", "found"),
    [("a.example:81", ("a.example", 81)), ("a.example", ("a.example", None)), ("[::1]:81", ("::1", 81)),
     ("[::1]", ("::1", None)), ("", (None, None))],
)  # fmt: skip
def test_an_address_and_its_port_are_told_apart(host: str, found: Any) -> None:
    made = attributes(record(1), host)
    assert (made.get("server.address"), made.get("server.port")) == found


def test_times_are_exact_to_the_microsecond() -> None:
    from gateway.controlplane.otlp_views import interval_ns

    one = record(1, duration_s=1.5)
    one.at = "2026-11-24T02:30:04.123457Z"
    begin, end = interval_ns(one)
    assert begin == int(from_text("2026-11-24T02:30:04Z").timestamp()) * 10**9 + 123_457_000
    assert end - begin == 1_500_000_000
