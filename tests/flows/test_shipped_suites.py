"""The three suites that ship with evals, on real data: an assistant, a classical model and a guard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SUITES = Path(__file__).parents[2] / "evals" / "suites"
PREPARE = (
    "rag build data/corpus.jsonl.gz --name handbook",
    "classical train params.yaml --holdout data/churn-holdout.jsonl",
    "registry policies push policies/guardrails.yaml",
    "registry releases create releases/support-baseline.yaml",
    "registry releases create releases/churn.yaml",
)


def call(line: str, folder: Path) -> tuple[int, dict[str, Any]]:
    name, *words = line.split()
    module = "gateway.cli.sluicegate" if name == "sluicegate" else f"{name}.cli"
    more = [] if name == "sluicegate" else ["--json"]
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import main; main()", *words, *more],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("SLUICEGATE_")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout or not more, done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout) if more else {}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("suites")
    assert call("sluicegate init project", folder)[0] == 0
    for line in PREPARE:
        code, said = call(line, folder / "project")
        assert code == 0, said
    return folder / "project"


def judged(project: Path, suite: str, release: str) -> tuple[int, dict[str, Any]]:
    """The suite's run; no gateway is running: it starts one of its own."""
    return call(f"evals run {SUITES / suite / 'suite.yaml'} --release {release}", project)


@pytest.mark.e2e
def test_the_classical_suite_passes_a_real_model_and_looks_at_groups(project: Path) -> None:
    code, report = judged(project, "classical", "churn@latest")
    assert (code, report["verdict"], report["samples"], report["errors"]) == (0, "pass", 886, 0)
    assert report["evidence"]
    values = {check["name"]: check["value"] for check in report["checks"] if check["n"]}
    assert values["ranks who leaves"] > 0.8
    assert {(one["by"], one["slice"]) for one in report["slices"]} == {
        ("senior", "no"), ("senior", "yes"), ("gender", "Female"), ("gender", "Male"),
    }  # fmt: skip


@pytest.mark.e2e
def test_the_assistants_suite_passes_through_a_gateway_of_its_own(project: Path) -> None:
    code, report = judged(project, "rag-assistant", "support@latest")
    assert (code, report["verdict"], report["samples"], report["errors"]) == (0, "pass", 120, 0)
    assert report["critical_cases"] == {"total": 4, "failed": []}
    assert {check["method"] for check in report["checks"] if check["name"] == "answers at all"} == {
        "clustered t, 102 clusters"
    }
    keys = call("gateway keys list", project)[1]["keys"]
    assert [key for key in keys if not key["revoked_at"]] == []


@pytest.mark.e2e
def test_the_guards_suite_judges_the_gateways_own_rules(project: Path) -> None:
    code, report = judged(project, "guard", "python:gateway.guardrails.rows:judge_injection")
    assert (code, report["verdict"], report["samples"]) == (0, "pass", 600)
    assert report["critical_cases"] == {"total": 7, "failed": []}
    assert report["evidence"] is None
    values = {check["name"]: check["value"] for check in report["checks"]}
    assert values["false alarms"] < 0.02
    assert values["stops attacks"] > 0.35
