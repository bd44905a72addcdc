from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals import cli
from registry import datasets, evaluations, evidence, suites
from registry.refs import parse_ref
from tests.evals.conftest import Project
from tests.evals.fake_gateway import Release, fault

Run = Callable[..., tuple[int, Any]]

CHAT = """name: support-quality
release: support
dataset: {path: rows.jsonl, source: made up, licence: CC0-1.0}
checks:
  - {name: finds it, system: retrieval, metric: recall, k: 3, at_least: 0.75}
  - {system: chat, metric: token_f1, at_least: 0.5}
  - {name: beats production, system: chat, metric: token_f1, better_than: baseline}
  - {system: chat, metric: latency_ms, statistic: p50, at_most: 20000, tier: advisory}
"""
CHURN = """name: churn-quality
release: churn
dataset: {path: rows.jsonl}
checks:
  - {system: prediction, metric: accuracy, better_than: majority}
  - {system: prediction, metric: f1_macro, at_least: 0.65}
"""


def right(question: str) -> str:
    return f"The answer is: {question.replace('question', 'answer')}."


def found(query: str) -> list[str]:
    return ["other", "other", query.replace("question ", "d")]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(line: str, *, as_json: bool = True) -> tuple[int, Any]:
        words = [*line.split(), *(["--json"] if as_json else [])]
        monkeypatch.setattr(sys, "argv", ["evals", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        printed = capsys.readouterr()
        code = left.value.code
        assert isinstance(code, int)
        return code, json.loads(printed.out) if as_json else printed.out + printed.err

    return call


@pytest.fixture
def support(project: Project) -> Project:
    """A chat release that is right about forty questions, and its suite."""
    project.questions(40)
    project.suite(CHAT)
    version = project.chat_release()
    project.gateway.releases["support@candidate"] = Release(version.digest, right, found)
    return project


def test_a_good_release_passes_and_leaves_evidence(support: Project, run: Run) -> None:
    code, report = run("run suite.yaml")
    assert (code, report["ok"], report["verdict"], report["exit_code"]) == (0, True, "pass", 0)
    assert [(check["name"], check["verdict"]) for check in report["checks"]] == [
        ("finds it", "pass"),
        ("chat token_f1", "pass"),
        ("beats production", "skipped"),
        ("chat latency_ms p50", "pass"),
    ]
    assert report["checks"][2]["reason"].startswith("skipped: no baseline")
    assert {key: report[key] for key in ("samples", "errors", "cached", "retried", "baseline")} == {
        "samples": 40,
        "errors": 0,
        "cached": 0,
        "retried": 0,
        "baseline": None,
    }
    assert report["tokens"] == {"prompt": 280, "completion": 80}
    with support.workspace.reading() as connection:
        claim = evidence.verify(connection, evaluations.get_envelope(connection, report["evidence"]))
        suite = suites.get(connection, parse_ref("support-quality"))
        dataset, content = datasets.get(connection, parse_ref("support-quality"))
    assert (claim.verdict, claim.release, claim.samples) == ("pass", report["release"]["digest"], 40)
    assert (claim.suite, claim.dataset) == (suite.digest, dataset.digest)
    assert (suite.content["dataset"], content.rows, content.licence) == (dataset.digest, 40, "CC0-1.0")


def test_evidence_lets_the_registry_promote_and_production_becomes_the_baseline(
    support: Project, run: Run
) -> None:
    support.gate("support", suites=("support-quality",))
    assert run("run suite.yaml")[0] == 0
    support.promote()
    served = support.gateway.releases
    served["support@production"] = served["support@candidate"]
    better = support.chat_release("openai/two")
    served["support@candidate"] = Release(
        better.digest, lambda question: question.replace("question", "answer"), found
    )
    code, report = run("run suite.yaml")
    check = report["checks"][2]
    assert (code, report["baseline"]["ref"], check["verdict"]) == (0, "support@production", "pass")
    assert (check["value"], check["against"]) == (1.0, "baseline")
    assert (check["baseline_value"], check["gain"]) == pytest.approx((2 / 3, 1 / 3))
    assert report["cached"] == 40
    support.promote()


def test_the_same_release_has_no_baseline_in_itself(support: Project, run: Run) -> None:
    run("run suite.yaml")
    support.promote()
    code, report = run("run suite.yaml")
    assert (code, report["checks"][2]["verdict"]) == (0, "skipped")
    assert "is this very release" in report["checks"][2]["reason"]


def test_a_bad_release_fails_and_its_evidence_says_so(support: Project, run: Run) -> None:
    support.gateway.releases["support@candidate"].chat = lambda _question: "I do not know"
    code, report = run("run suite.yaml")
    assert (code, report["verdict"], report["reason"]) == (1, "fail", "failed: chat token_f1")
    with support.workspace.reading() as connection:
        envelope = evaluations.get_envelope(connection, report["evidence"])
        assert evidence.verify(connection, envelope).verdict == "fail"


def test_too_few_samples_are_inconclusive(support: Project, run: Run) -> None:
    support.questions(9)
    code, report = run("run suite.yaml")
    assert (code, report["verdict"]) == (2, "inconclusive")
    assert report["checks"][0]["reason"] == "9 samples decide nothing; 10 are the least"


def test_a_stopped_run_goes_on_where_it_was(support: Project, run: Run) -> None:
    support.gateway.faults = [lambda _request: None] * 60 + [fault(404, "model_not_found")]
    code, report = run("run suite.yaml --concurrency 1")
    assert (code, report["error"]["code"]) == (3, "release_not_served")
    before = len(support.gateway.requests)
    code, report = run("run suite.yaml")
    assert (code, report["cached"], len(support.gateway.requests) - before) == (0, 60, 20)
    assert run("run suite.yaml --no-submit")[1]["cached"] == 80
    assert run("run suite.yaml --no-cache --no-submit")[1]["cached"] == 0


def test_failed_requests_fail_the_release_and_are_not_cached(support: Project, run: Run) -> None:
    support.gateway.faults = [fault(500, "server_error"), fault(400, "guardrail_blocked")]
    code, report = run("run suite.yaml --concurrency 1")
    assert (code, report["verdict"], report["errors"]) == (1, "fail", 2)
    assert report["error_kinds"] == [
        {"role": "candidate", "system": "chat", "kind": "guardrail_blocked", "count": 1},
        {"role": "candidate", "system": "chat", "kind": "server_error", "count": 1},
    ]
    assert report["checks"][1]["n"] == 40
    assert run("run suite.yaml")[1]["cached"] == 78


def test_a_suite_may_allow_some_errors(support: Project, run: Run) -> None:
    support.suite(CHAT + "max_error_share: 0.05\n")
    support.gateway.faults = [fault(500, "server_error")]
    code, report = run("run suite.yaml --concurrency 1")
    assert (code, report["verdict"], report["errors"]) == (0, "pass", 1)


def test_a_gateway_that_serves_other_bytes_ends_the_run(support: Project, run: Run) -> None:
    other = support.chat_release("openai/two")
    support.gateway.faults = [lambda _request: None] * 3
    support.gateway.releases["support@candidate"].digest = other.digest
    calls = 0

    def move(question: str) -> str:
        nonlocal calls
        calls += 1
        if calls == 5:
            support.gateway.releases["support@candidate"].digest = "sha256:" + "0" * 64
        return right(question)

    support.gateway.releases["support@candidate"].chat = move
    code, report = run("run suite.yaml --concurrency 1")
    assert (code, report["error"]["code"]) == (3, "release_moved")
    with support.workspace.reading() as connection:
        assert evaluations.envelopes(connection, "support") == []


def test_a_limited_run_is_a_trial_without_evidence(support: Project, run: Run) -> None:
    code, report = run("run suite.yaml --limit 20")
    assert (code, report["samples"], report["trial"], report["evidence"]) == (0, 20, True, None)
    assert "no evidence filed" in run("run suite.yaml --limit 20", as_json=False)[1]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("run missing.yaml", "bad_input"),
        ("run suite.yaml --key wrong", "key_refused"),
        ("run suite.yaml --gateway http://127.0.0.1:1", "gateway_unreachable"),
        ("run suite.yaml --gateway ftp://x", "bad_settings"),
        ("run suite.yaml --release other@candidate", "bad_suite"),
        ("run suite.yaml --release support@staging", "not_found"),
        ("run suite.yaml --limit 0", "bad_input"),
        ("run suite.yaml --concurrency 0", "bad_input"),
        ("run suite.yaml --valid-hours -1", "bad_input"),
        ("show run_nothing", "not_found"),
        ("verify missing.json", "bad_input"),
    ],
)
def test_what_cannot_be_done_is_exit_code_3(
    support: Project, run: Run, line: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICEGATE_EVALS__RETRIES", "0")
    status, report = run(line)
    assert (status, report["ok"], report["error"]["code"]) == (3, False, code)


def test_no_key_says_how_to_make_one(support: Project, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLUICEGATE_API_KEY")
    code, report = run("run suite.yaml")
    assert (code, report["error"]["code"]) == (3, "key_missing")
    assert "gateway keys create" in report["error"]["message"]


def test_a_suite_for_another_kind_of_release_is_refused(support: Project, run: Run) -> None:
    bare = support.bare_release()
    support.gateway.releases["support@candidate"].digest = bare.digest
    code, report = run("run suite.yaml")
    assert (code, report["error"]["code"]) == (3, "bad_suite")
    assert "no index to search" in report["error"]["message"]


@pytest.fixture
def churn(project: Project) -> Project:
    """A classical release that is right about every customer but those called `odd`, and its suite."""
    rows = [
        {
            "id": i,
            "features": {"plan": None if i % 9 == 0 else "basic" if i % 3 else "gold", "months": i % 20},
            "expected": "Yes" if i % 20 < 6 else "No",
        }
        for i in range(150)
    ]
    project.rows(rows)
    project.suite(CHURN)
    version = project.model_release()
    project.gateway.releases["churn@candidate"] = Release(
        version.digest, predict=lambda row: "Yes" if row["months"] < 5 else "No"
    )
    return project


def test_a_classical_release_is_judged_in_batches(churn: Project, run: Run) -> None:
    code, report = run("run suite.yaml --concurrency 1")
    accuracy, f1 = report["checks"]
    assert (code, len(churn.gateway.requests)) == (0, 3)
    assert (accuracy["value"], accuracy["baseline_value"]) == pytest.approx((142 / 150, 102 / 150))
    assert accuracy["p_value"] < 1e-8
    assert 0.65 < f1["low"] < f1["value"] < f1["high"] <= 1.0


def test_a_bad_row_spoils_only_itself(churn: Project, run: Run) -> None:
    rows = [json.loads(line) for line in (churn.folder / "rows.jsonl").read_text().splitlines()]
    rows[7]["features"]["poison"] = "yes"
    churn.rows(rows)
    code, report = run("run suite.yaml")
    assert (code, report["verdict"], report["errors"]) == (1, "fail", 1)


def test_files_for_people_and_ci(support: Project, run: Run) -> None:
    support.gateway.releases["support@candidate"].chat = lambda _question: "no idea"
    code, text = run(
        "run suite.yaml --output out --junit out/junit.xml --markdown out/report.md", as_json=False
    )
    out = support.folder / "out"
    assert code == 1
    assert text.splitlines()[-2] == "FAIL: failed: chat token_f1"
    report = json.loads((out / "report.json").read_text())
    assert report["verdict"] == "fail"
    lines = [json.loads(line) for line in (out / "outputs.jsonl").read_text().splitlines()]
    assert len(lines) == 80
    chat = next(line for line in lines if line["system"] == "chat")
    assert set(chat["scores"]) == {"chat token_f1", "beats production", "chat latency_ms p50"}
    root = ET.parse(out / "junit.xml").getroot()  # noqa: S314 - our own file
    (found_suite,) = root
    counts = [found_suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["4", "1", "0", "1"]
    assert "| ❌ | chat token\\_f1 |" in (out / "report.md").read_text()
    assert run("verify out/evidence.json")[1]["verdict"] == "fail"


def test_edited_evidence_is_not_genuine(support: Project, run: Run) -> None:
    run("run suite.yaml --output out")
    path = support.folder / "out" / "evidence.json"
    envelope = json.loads(path.read_text())
    envelope["payload"] = envelope["payload"][:-8] + "AAAAAAAA"
    path.write_text(json.dumps(envelope))
    code, report = run("verify out/evidence.json")
    assert (code, report["error"]["code"]) == (1, "evidence_tampered")


def test_evidence_is_genuine_only_in_its_window(support: Project, run: Run) -> None:
    run("run suite.yaml --output out --valid-hours 0.000001")
    code, report = run("verify out/evidence.json")
    assert (code, report["error"]["code"]) == (1, "evidence_expired")


def test_runs_are_listed_and_shown_again(support: Project, run: Run) -> None:
    first = run("run suite.yaml")[1]
    (listed,) = run("list")[1]["runs"]
    assert (listed["verdict"], listed["evidence"]) == ("pass", first["evidence"])
    shown = run(f"show {listed['id'][:20]}")[1]
    assert shown["checks"] == first["checks"]
    text = run(f"show {listed['id']}", as_json=False)[1]
    assert "PASS: every check that decides passed" in text
    assert listed["id"] in run("list", as_json=False)[1]


def test_a_suite_can_be_checked_and_pushed_without_a_gateway(support: Project, run: Run) -> None:
    code, report = run("validate suite.yaml")
    assert (code, report["samples"], len(report["checks"])) == (0, 40, 4)
    first, again = run("push suite.yaml")[1], run("push suite.yaml")[1]
    assert first == again
    assert (first["suite"]["number"], first["dataset"]["name"]) == (1, "support-quality")
    assert support.gateway.requests == []
    assert run("run suite.yaml")[1]["suite"]["digest"] == first["suite"]["digest"]


def test_the_report_for_people_is_aligned_and_plain(support: Project, run: Run) -> None:
    text = run("run suite.yaml --no-submit", as_json=False)[1]
    lines = text.splitlines()
    assert re.fullmatch(r"support-quality: support@candidate [0-9a-f]{12}", lines[0])
    assert lines[2].startswith("pass     finds it (recall@3)")
    assert re.search(r"1\.00 \[0\.91, 1\.00\]  at least 0\.75 +n=40$", lines[2])
    assert lines[2].index("n=40") == lines[3].index("n=40")
    assert "\x1b" not in text


@pytest.mark.parametrize("command", ["run", "validate", "push", "list", "show", "verify"])
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    code, text = run(f"{command} --help", as_json=False)
    assert code == 0
    assert f"Example: evals {command}" in text


def test_the_suite_folder_decides_where_the_dataset_is(support: Project, run: Run, tmp_path: Path) -> None:
    nested = tmp_path / "suites"
    nested.mkdir()
    (nested / "s.yaml").write_text(CHAT.replace("path: rows", "path: ../rows"))
    assert run("validate suites/s.yaml")[0] == 0
