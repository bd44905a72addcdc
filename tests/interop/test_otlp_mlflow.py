"""Spans of requests arrive in a real MLflow server as traces of an experiment."""

from __future__ import annotations

from pathlib import Path

from mlflow.tracking import MlflowClient

from gateway.settings import OtlpSettings
from registry.settings import RegistrySettings
from registry.workspace import open_workspace
from tests.fakes.stand import until
from tests.fakes.upstream import MODEL, upstream
from tests.fakes.whole import whole


def test_mlflow_shows_each_request_as_a_trace(server: str, client: MlflowClient, tmp_path: Path) -> None:
    experiment = client.create_experiment("otlp")
    headers = tmp_path / "headers"
    headers.write_text(f"x-mlflow-experiment-id: {experiment}\n")
    otlp = OtlpSettings(endpoint=server, headers_file=headers, metrics=False, interval_s=0.05)
    settings = RegistrySettings(home=tmp_path / "home")
    with (
        upstream() as up,
        open_workspace(settings) as workspace,
        whole(workspace, up, tmp_path, otlp=otlp) as gate,
    ):
        asked = gate.chat()
        until(lambda: client.search_traces(locations=[experiment]), timeout_s=20)
        metrics = gate.ask("GET", "/metrics", key=None).body.decode()
    assert "sluicegate_otlp_dropped_total 0.0" in metrics
    (trace,) = client.search_traces(locations=[experiment])
    (span,) = trace.data.spans
    assert span.name == f"chat {MODEL}"
    assert span.attributes["gen_ai.response.id"] == asked.headers["x-request-id"]
    usage = asked.body["usage"]
    assert span.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert trace.info.token_usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
