from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from registry import evaluations, evidence, judges
from registry.clock import to_text, utc_now
from registry.entities import JudgeContent, Version
from tests.evals.conftest import Project
from tests.evals.fake_gateway import Release, error
from tests.evals.fake_judge import KEY, FakeJudge, chat, serve_judge
from tests.evals.test_cli import Run, run

__all__ = ["run"]
SUITE = """name: support-quality
release: support
judge: fair
dataset: {path: rows.jsonl}
checks:
  - {name: good, system: chat, metric: judge, at_least: 0.5}
"""


def says(verdict: str) -> Callable[[Any], str]:
    return lambda _body: json.dumps({"reason": "It names it.", "verdict": verdict})


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeJudge]:
    with serve_judge(FakeJudge(say=says("pass"))) as served:
        monkeypatch.setenv("SLUICEGATE_JUDGE_URL", served.url)
        monkeypatch.setenv("SLUICEGATE_JUDGE_KEY", KEY)
        yield served


@pytest.fixture
def support(project: Project) -> Project:
    project.questions(40)
    project.suite(SUITE)
    version = project.chat_release("anthropic/claude-5")
    project.gateway.releases["support@candidate"] = Release(version.digest, lambda q: f"answer to {q}")
    return project


def push(project: Project, content: JudgeContent, **record: Any) -> Version:
    """A judge with a calibration that holds, except for what *record* says."""
    held = {
        "of": judges.subject_of(content),
        "calibrated": True,
        "labels": 200,
        "kappa": 0.8,
        "kappa_low": 0.7,
        "kappa_high": 0.9,
        "sensitivity": 0.95,
        "positives": 100,
        "specificity": 0.95,
        "negatives": 100,
        "metric": "judge",
        "expires": to_text(utc_now() + timedelta(days=30)),
        **record,
    }
    with project.workspace.writing() as connection:
        calibrated = replace(content, calibration=held)
        return judges.push(connection, "fair", calibrated, actor="ann", now=utc_now())


RUBRIC = JudgeContent("openai/judge-1", "The answer names the question's number.")


PANEL = replace(RUBRIC, parameters={"panel": ["openai/judge-1", "openai/judge-2", "mistral/judge-3"]})


def test_a_panel_counts_as_one_judge_and_its_majority_decides(
    support: Project, judge: FakeJudge, run: Run
) -> None:
    push(support, PANEL)
    outvoted = "judge-2"
    judge.say = lambda body: says("fail" if body["model"] == outvoted else "pass")(body)
    code, report = run("run suite.yaml")
    assert (code, report["verdict"]) == (0, "pass")
    assert sorted(Counter(body["model"] for body in judge.bodies).items()) == [
        ("judge-1", 40),
        ("judge-2", 40),
        ("judge-3", 40),
    ]
    (used,) = report["judges"]
    assert (used["name"], used["deciding"], used["calls"]) == ("fair", True, 120)
    assert report["checks"][0]["method"] == "Rogan-Gladen of Wilson"
    judge.say = lambda body: says("fail" if body["model"] != outvoted else "pass")(body)
    assert run("run suite.yaml --no-cache")[0] == 1


def test_a_panel_with_a_member_of_the_candidates_family_only_advises(
    support: Project, judge: FakeJudge, run: Run
) -> None:
    push(support, replace(PANEL, parameters={"panel": ["openai/judge-1", "openai/b", "vertex/claude-4"]}))
    code, report = run("run suite.yaml")
    assert code == 2
    assert "vertex/claude-4 is of the family" in report["checks"][0]["advisory_because"]


def test_a_calibrated_judge_decides_and_evidence_names_it(
    support: Project, judge: FakeJudge, run: Run
) -> None:
    version = push(support, RUBRIC)
    code, report = run("run suite.yaml")
    assert (code, report["verdict"]) == (0, "pass")
    assert len(judge.bodies) == 40
    (used,) = report["judges"]
    assert (used["name"], used["deciding"], used["calls"], used["failures"]) == ("fair", True, 40, {})
    assert report["checks"][0]["method"] == "Rogan-Gladen of Wilson"
    with support.workspace.reading() as connection:
        claim = evidence.verify(connection, evaluations.get_envelope(connection, report["evidence"]))
    assert claim.judges == (("fair", version.digest),)
    support.gate("support", suites=("support-quality",))
    assert run("run suite.yaml")[0] == 0
    support.promote()


@pytest.mark.parametrize(
    ("content", "record", "why"),
    [
        (RUBRIC, {"of": "sha256:" + "1" * 64}, "another rubric, model or parameters"),
        (RUBRIC, {"calibrated": False, "reasons": ["kappa 0.1"]}, "its calibration failed: kappa 0.1"),
        (RUBRIC, {"expires": "2020-01-01T00:00:00Z"}, "calibrated until 2020-01-01 only"),
        (RUBRIC, {"labels": 49}, "49 labels; 50 are the least"),
        (RUBRIC, {"kappa": 0.39}, "kappa 0.39"),
        (RUBRIC, {"kappa_low": -0.01}, "at least -0.01"),
        (RUBRIC, {"metric": "safety"}, "calibrated with safety, not with judge"),
        (replace(RUBRIC, model="bedrock/us.amazon.nova-pro-v1:0"), {}, None),
        (replace(RUBRIC, model="bedrock/anthropic.claude-4"), {}, "family of anthropic/claude-5"),
        (replace(RUBRIC, model="openai/claude-4"), {}, "family of anthropic/claude-5"),
    ],
)
def test_a_judge_that_may_not_decide_cannot_open_the_gate(
    support: Project,
    judge: FakeJudge,
    run: Run,
    content: JudgeContent,
    record: dict[str, Any],
    why: str | None,
) -> None:
    push(support, content, **record)
    code, report = run("run suite.yaml")
    if why is None:
        assert code == 0
        return
    assert (code, report["verdict"]) == (2, "inconclusive")
    assert report["reason"].startswith("no check may decide")
    (check,) = report["checks"]
    assert (check["tier"], check["verdict"]) == ("advisory", "pass")
    assert why in check["advisory_because"]
    with support.workspace.reading() as connection:
        claim = evidence.verify(connection, evaluations.get_envelope(connection, report["evidence"]))
    assert (claim.verdict, claim.judges) == ("inconclusive", ())


def test_an_uncalibrated_judge_cannot_open_the_gate(support: Project, judge: FakeJudge, run: Run) -> None:
    with support.workspace.writing() as connection:
        judges.push(connection, "fair", RUBRIC, actor="ann", now=utc_now())
    code, report = run("run suite.yaml")
    assert (code, report["verdict"]) == (2, "inconclusive")
    assert "not calibrated" in report["checks"][0]["advisory_because"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (lambda _body: error(500, "broken"), "judge_http_500"),
        (lambda _body: error(429, "slow_down"), "judge_rate_limited"),
        (lambda _body: chat("not json"), "judge_malformed"),
        (lambda _body: chat('{"reason": "x", "verdict": NaN}'), "judge_nan"),
        (lambda _body: chat(None), "judge_empty_answer"),
    ],
)
def test_what_a_judge_fails_to_score_is_an_error_and_never_a_number(
    support: Project, judge: FakeJudge, run: Run, monkeypatch: pytest.MonkeyPatch, fault: Any, kind: str
) -> None:
    monkeypatch.setenv("SLUICEGATE_EVALS__RETRIES", "0")
    push(support, RUBRIC)
    clear = run("run suite.yaml --no-cache --no-submit")[1]["checks"][0]
    judge.faults = [lambda body: fault(body) if "question 7" in json.dumps(body) else None] * 200
    code, report = run("run suite.yaml --no-cache --no-submit")
    (check,) = report["checks"]
    assert report["error_kinds"] == [{"role": "judge", "system": "good", "kind": kind, "count": 1}]
    assert (check["n"], check["missing"], check["value"]) == (39, 1, clear["value"])
    assert check["low"] < clear["low"]
    assert code == 0
    judge.faults = [fault] * 200
    code, report = run("run suite.yaml --no-cache --no-submit")
    assert (code, report["verdict"]) == (2, "inconclusive")
    assert report["checks"][0]["value"] is None


def test_epochs_are_asked_anew_and_averaged_within_the_sample(
    support: Project, judge: FakeJudge, run: Run
) -> None:
    push(support, RUBRIC)
    support.suite(SUITE.replace("judge: fair", "judge: fair\nepochs: 3"))
    asked: dict[str, int] = {}

    def say(body: Any) -> str:
        text = json.dumps(body["messages"])
        asked[text] = asked.get(text, 0) + 1
        return says("pass" if asked[text] < 3 else "fail")(body)

    judge.say = say
    code, report = run("run suite.yaml --output out")
    assert set(asked.values()) == {3}
    assert (report["epochs"], report["samples"], report["checks"][0]["n"]) == (3, 40, 40)
    lines = [json.loads(line) for line in (support.folder / "out" / "outputs.jsonl").read_text().splitlines()]
    assert sorted({line["epoch"] for line in lines}) == [0, 1, 2]
    assert code in (0, 2)
    before = len(judge.bodies)
    run("run suite.yaml")
    assert len(judge.bodies) == before


def test_a_cap_on_cost_stops_the_run_and_a_higher_one_goes_on(
    support: Project, judge: FakeJudge, run: Run
) -> None:
    from registry import prices
    from registry.entities import Price

    push(support, RUBRIC)
    with support.workspace.writing() as connection:
        price = Price("openai/*", utc_now(), 10**6, 10**6)
        prices.set_price(connection, price, actor="ann", now=utc_now())
    code, planned = run("run suite.yaml --dry-run")
    assert (code, len(judge.bodies), planned["calls"]) == (0, 0, 80)
    assert planned["cost_usd"] > 0
    code, failed = run("run suite.yaml --max-cost 0.0016")
    assert (code, failed["error"]["code"]) == (3, "cost_cap_reached")
    assert 0 < len(judge.bodies) < 40
    code, report = run("run suite.yaml --max-cost 1")
    assert (code, len(judge.bodies)) == (0, 40)
    assert 0 < report["cost"]["spent_usd"] < planned["cost_usd"]


def test_a_sure_verdict_stops_early(support: Project, judge: FakeJudge, run: Run) -> None:
    support.questions(1000)
    support.suite(SUITE.replace("metric: judge", "metric: exact").replace("judge: fair\n", ""))
    code, report = run("run suite.yaml --stop-early")
    assert (code, report["verdict"]) == (1, "fail")
    assert report["stopped_early"]["cases"] < 500
    assert len(support.gateway.requests) == report["samples"]


def test_what_is_no_release_is_judged_and_leaves_no_evidence(
    support: Project, judge: FakeJudge, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(support, RUBRIC)
    endpoint = judge.url
    judge.say = lambda body: says("pass")(body) if "response_format" in body else "answer 1"
    monkeypatch.setenv("SLUICEGATE_TARGET_KEY", KEY)
    code, report = run(f"run suite.yaml --release {endpoint}#subject --output out")
    assert (code, report["evidence"]) == (0, None)
    recorded = "recorded:out/outputs.jsonl"
    code, again = run(f"run suite.yaml --release {recorded} --baseline {recorded}")
    assert (code, again["evidence"], again["checks"][0]["value"]) == (0, None, report["checks"][0]["value"])
    (support.folder / "mine.py").write_text("def answer(row):\n    return 'answer to ' + row['query']\n")
    code, mine = run("run suite.yaml --release python:mine:answer")
    assert (code, mine["samples"], mine["evidence"]) == (0, 40, None)


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:9/v1#x", "python:nowhere:f", "recorded:missing.jsonl", "http://host/v1"]
)
def test_a_target_that_is_not_there_is_exit_code_3(
    support: Project, judge: FakeJudge, run: Run, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setenv("SLUICEGATE_EVALS__RETRIES", "0")
    push(support, RUBRIC)
    code, failed = run(f"run suite.yaml --release {target}")
    assert (code, failed["error"]["code"]) == (3, "target_unavailable")
