from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from evals.errors import EvalsError
from evals.report.mlflow import log_run, metrics_of, tags_of
from registry.errors import BadInput
from registry.interop.mlflow import SWITCHES
from tests.evals.report_sample import DIGEST, case, check, full_report, old_report


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the environment as it was."""
    for name in SWITCHES:
        monkeypatch.setenv(name, os.environ.get(name, SWITCHES[name]))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_run_is_visible_in_mlflow(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = (tmp_path / "store").as_uri()
    identity = log_run(full_report(), uri, "support-quality", [case("q1", 0.0, "the answer")])
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(identity)
    metrics: dict[str, Any] = run.data.metrics
    assert (metrics["right"], metrics["right.gain"], metrics["right.gain_high"]) == (0.75, -0.1, -0.03)
    assert (metrics["errors"], metrics["cases_worse"], metrics["judges_cost_usd"]) == (2, 2, 0.25)
    assert run.data.tags["sluicegate.verdict"] == "fail"
    assert run.data.tags["sluicegate.digest"] == DIGEST
    assert run.data.params["right.wanted"] == "worse than baseline by less than 0.02"
    assert run.info.status == "FINISHED"
    assert sorted(file.path for file in client.list_artifacts(identity)) == ["report.html", "report.json"]
    page = Path(client.download_artifacts(identity, "report.html", str(tmp_path)))
    assert "the answer" in page.read_text()
    assert client.get_experiment_by_name("support-quality").experiment_id == run.info.experiment_id


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    pytest.importorskip("mlflow")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://ann:secret@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EvalsError) as caught:
            log_run(old_report(), uri, "x")
    assert "MLflow at http://127.0.0.1:" in caught.value.message
    assert "secret" not in caught.value.message


def test_nothing_is_logged_to_nowhere() -> None:
    with pytest.raises(BadInput, match="name a tracking server"):
        log_run(old_report(), "", "x")


def test_names_are_those_mlflow_takes_and_what_is_not_there_is_left_out() -> None:
    report = old_report(check("is it ü? (50 %)", value=None, low=None, high=None), check("a", high=None))
    assert metrics_of(report) == {"samples": 40.0, "errors": 0.0, "a": 0.75, "a.low": 0.6}
    assert "sluicegate.evidence" not in tags_of(report)
    assert set(metrics_of(old_report(check("is it: 50 %?")))) >= {"is it_ 50 __", "is it_ 50 __.low"}
