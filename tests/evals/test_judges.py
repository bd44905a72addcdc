from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.checks import Check
from evals.errors import JudgeUnavailable
from evals.judges import corrections_of, judges_of, standing_of
from evals.judging.errors_known import JudgeErrors, corrected, corrected_gain
from evals.judging.places import place_of
from evals.judging.standing import Standing, family, standing
from evals.session import Judge
from evals.stats import Estimate, Interval, estimate_mean
from evals.subjects import Foreign, Subject, Subjects
from evals.suite import DatasetSource, EvalSuite, Judging, metrics_of
from registry import judges
from registry.clock import to_text
from registry.entities import JudgeContent, Version
from registry.errors import NotFound
from tests.evals.conftest import Project

NOW = datetime(2026, 5, 1, tzinfo=UTC)
PLAIN = JudgeContent("openai/gpt-5", "It answers the question.")
FOUND = Estimate(0.8, Interval(0.75, 0.84), 300, "Wilson")
ERRORS = JudgeErrors(0.9, 120, 0.8, 80)


def calibrated(content: JudgeContent = PLAIN, **record: Any) -> JudgeContent:
    """*content* with a calibration that holds, except for what *record* says; None leaves a field out."""
    held = {
        "of": judges.subject_of(content),
        "calibrated": True,
        "labels": 200,
        "kappa": 0.8,
        "kappa_low": 0.7,
        "kappa_high": 0.9,
        "sensitivity": 0.9,
        "positives": 120,
        "specificity": 0.8,
        "negatives": 80,
        "metric": "judge",
        "expires": to_text(NOW + timedelta(days=30)),
        **record,
    }
    return replace(content, calibration={key: value for key, value in held.items() if value is not None})


def held(content: JudgeContent, model: str | None = "anthropic/claude-5") -> Standing:
    return standing(content, NOW, candidate_model=model, min_kappa=0.4, min_labels=50)


def test_a_judge_decides_where_its_calibration_is_in_force() -> None:
    assert held(calibrated()) == Standing(True)
    assert held(calibrated(), None) == Standing(True)
    assert held(calibrated(kappa=0.4, labels=50, kappa_low=0.001)) == Standing(True)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (PLAIN, "not calibrated: run `evals calibrate`"),
        (replace(calibrated(), rubric="Another."), "another rubric, model or parameters"),
        (replace(calibrated(), parameters={"scale": "1-5"}), "another rubric, model or parameters"),
        (replace(calibrated(), model="openai/gpt-6"), "another rubric, model or parameters"),
        (replace(calibrated(), model_digest="sha256:" + "1" * 64), "another rubric, model or parameters"),
        (calibrated(expires=to_text(NOW)), "was calibrated until 2026-05-01 only"),
        (calibrated(expires="soon"), "malformed"),
        (calibrated(expires=None), "malformed"),
        (calibrated(calibrated=False), "its calibration failed"),
        (calibrated(calibrated=None), "failed its calibration"),
        (calibrated(labels=None), "malformed"),
        (calibrated(kappa="high"), "malformed"),
        (calibrated(labels=49), "calibrated on 49 labels; 50 are the least"),
        (calibrated(kappa=0.39), "by kappa 0.39, at least 0.70; 0.4 is asked"),
        (calibrated(kappa_low=0.0), "by kappa 0.80, at least 0.00; 0.4 is asked"),
        (calibrated(kappa=float("nan")), "by kappa nan"),
    ],
)
def test_a_judge_only_advises_for_a_reason_that_is_told(content: JudgeContent, why: str) -> None:
    found = held(content)
    assert not found.deciding
    assert why in found.why


@pytest.mark.parametrize(
    ("first", "second", "are_kin"),
    [
        ("openai/gpt-4o", "azure/gpt-5-mini", True),
        ("openai/gpt-4o", "openai/o3-mini", True),
        ("openai/chatgpt-4o-latest", "gateway/gpt-5", True),
        ("openai/ft:gpt-4o-mini:team::8f3a", "openai/gpt-5", True),
        ("anthropic/claude-5", "bedrock/anthropic.claude-4-v1:0", True),
        ("anthropic/claude-5", "bedrock/us.anthropic.claude-4", True),
        ("ollama/llama3.2:3b", "vllm/meta-llama/Meta-Llama-3-8B-Instruct", True),
        ("bedrock/meta.llama3-70b-instruct-v1:0", "ollama/llama3.2", True),
        ("ollama/qwen2.5:7b", "vllm/Qwen/Qwen3-8B", True),
        ("openai/gpt-4.1", "anthropic/claude-5", False),
        ("ollama/olmo2", "openai/o3", False),
        ("ollama/llama3.2", "ollama/qwen3", False),
        ("bedrock/anthropic.claude-4", "bedrock/amazon.nova-pro-v1:0", False),
    ],
)
def test_a_judge_never_decides_about_its_own_family(first: str, second: str, are_kin: bool) -> None:
    assert (family(first) == family(second)) is are_kin
    judge = calibrated(JudgeContent(first, "It answers."))
    assert held(judge, second).deciding is not are_kin


def suite(metric: str = "judge", **more: Any) -> EvalSuite:
    check = Check("chat", metric, name="good", at_least=0.5)
    return EvalSuite("s", "support", DatasetSource(ref="rows:1"), (check,), judge="fair", **more)


def subjects(candidate: str, baseline: str | None = None) -> Subjects:
    named = [
        Subject(f"http://h/v1#{m}", foreign=Foreign("endpoint", "http://h/v1", m))
        for m in (candidate, baseline)
        if m
    ]
    return Subjects(named[0], named[1] if baseline else None)


def find(project: Project, content: JudgeContent, against: Subjects, **more: Any) -> Judge:
    with project.workspace.writing() as connection:
        judges.push(connection, "fair", content, actor="ann", now=NOW)
    one = suite(**more)
    (found,) = judges_of(project.workspace, one, metrics_of(one), against, NOW).values()
    return found


def test_judges_are_held_to_what_the_suite_asks_and_to_both_releases(project: Project) -> None:
    assert find(project, calibrated(), subjects("claude-5", "llama3")).deciding
    strict = find(project, calibrated(), subjects("claude-5"), judging=Judging(min_kappa=0.81))
    assert (strict.deciding, "0.81 is asked" in strict.why) == (False, True)
    kin = find(project, calibrated(), subjects("claude-5", "gpt-4"))
    assert (kin.deciding, "is of the family of openai/gpt-4" in kin.why) == (False, True)


def test_a_judge_that_the_registry_lacks_is_not_found(project: Project) -> None:
    one = suite()
    with pytest.raises(NotFound, match="fair"):
        judges_of(project.workspace, one, metrics_of(one), subjects("claude-5"), NOW)


def judge(content: JudgeContent, *, deciding: bool = True) -> Judge:
    version = Version("judge", "fair", 1, judges.subject_of(content), {}, {}, NOW, "ann")
    return Judge(version, content, deciding, "" if deciding else "not calibrated")


def test_a_judge_decides_only_with_the_metric_it_was_calibrated_with() -> None:
    assert standing_of(judge(calibrated()), "judge") is None
    assert standing_of(judge(calibrated(metric=None)), "win_rate") is None
    told = standing_of(judge(calibrated()), "win_rate")
    assert told == "judge fair: it was calibrated with judge, not with win_rate"
    assert standing_of(judge(PLAIN, deciding=False), "judge") == "judge fair: not calibrated"


def test_the_errors_a_judge_showed_correct_what_it_counts() -> None:
    correct, correct_gain = corrections_of(judge(calibrated()), "judge")
    assert correct is not None
    assert correct_gain is not None
    assert correct(FOUND, 0.9) == corrected(FOUND, ERRORS, 0.9)
    gain = Estimate(0.1, Interval(0.04, 0.16), 300, "Tango")
    assert correct_gain(gain, 0.95) == corrected_gain(gain, ERRORS, 0.95)


@pytest.mark.parametrize(
    ("held_by", "metric"),
    [
        (None, "judge"),
        (judge(calibrated(), deciding=False), "judge"),
        (judge(calibrated()), "win_rate"),
        (judge(calibrated(metric="safety")), "judge"),
        (judge(calibrated(sensitivity=None)), "judge"),
        (judge(calibrated(negatives="many")), "judge"),
        (judge(calibrated(replace(PLAIN, parameters={"scale": "1-5"}))), "judge"),
    ],
)
def test_scores_stay_as_they_are_where_a_judges_errors_are_not_known(
    held_by: Judge | None, metric: str
) -> None:
    assert corrections_of(held_by, metric) == (None, None)


rates = st.floats(0.6, 1)
counts = st.integers(10, 400)


@given(st.floats(0, 1), st.integers(10, 2000), rates, counts, rates, counts)
def test_a_corrected_share_lies_in_its_interval_which_is_never_a_point(
    share: float, n: int, sensitivity: float, positives: int, specificity: float, negatives: int
) -> None:
    hits = round(share * n)
    found = estimate_mean([1.0] * hits + [0.0] * (n - hits), 0, 1)
    said = corrected(found, JudgeErrors(sensitivity, positives, specificity, negatives))
    assert 0 <= said.interval.low < said.interval.high <= 1
    assert said.interval.low <= said.value <= said.interval.high


@given(st.floats(-1, 1), st.floats(0.001, 0.5), rates, counts, rates, counts)
def test_a_corrected_gain_lies_in_its_interval_which_is_never_a_point(
    gain: float, half: float, sensitivity: float, positives: int, specificity: float, negatives: int
) -> None:
    found = Estimate(gain, Interval(gain - half, gain + half).clipped(-1, 1), 100, "Tango")
    said = corrected_gain(found, JudgeErrors(sensitivity, positives, specificity, negatives))
    assert -1 <= said.interval.low < said.interval.high <= 1
    assert said.interval.low <= said.value <= said.interval.high


def test_a_judge_that_contradicts_its_calibration_proves_no_more_than_it_counted() -> None:
    """It calls 1,000 of 1,000 good, though it missed a fifth of the good ones that people showed it."""
    found = estimate_mean([1.0] * 1000, 0, 1)
    said = corrected(found, JudgeErrors(0.8, 200, 0.9, 200))
    assert (said.value, said.interval) == (1.0, Interval(found.interval.low, 1.0))


def test_a_perfect_judge_is_hardly_corrected() -> None:
    said = corrected(FOUND, JudgeErrors(1.0, 10**6, 1.0, 10**6))
    assert said.value == pytest.approx(0.8)
    assert (said.interval.low, said.interval.high) == pytest.approx((0.75, 0.84), abs=0.01)
    gain = Estimate(0.1, Interval(0.04, 0.16), 300, "Tango")
    same = corrected_gain(gain, JudgeErrors(1.0, 10**6, 1.0, 10**6)).interval
    assert (same.low, same.high) == pytest.approx((0.04, 0.16), abs=1e-4)


URL, JUDGE = "http://h/v1", {"SLUICEGATE_JUDGE_URL": "http://h/v1", "SLUICEGATE_JUDGE_KEY": "j"}
OPENAI = {"OPENAI_API_KEY": "k"}
OURS = {"SLUICEGATE_API_KEY": "sg"}


@pytest.mark.parametrize(
    ("model", "environ", "place"),
    [
        ("openai/gpt-5", OPENAI, ("https://api.openai.com/v1", "k", "gpt-5")),
        ("openai/a/b", {**OPENAI, "OPENAI_BASE_URL": f"{URL}/"}, (URL, "k", "a/b")),
        ("vllm/Qwen/Qwen3", {}, ("http://127.0.0.1:8000/v1", "", "Qwen/Qwen3")),
        ("ollama/llama3", {"OLLAMA_HOST": URL}, (URL, "", "llama3")),
        ("gateway/fair", OURS, ("http://127.0.0.1:8080/v1", "sg", "fair")),
        ("gateway/fair", {**OURS, "SLUICEGATE_BASE_URL": URL}, (URL, "sg", "fair")),
        ("gateway/fair", {**OURS, "SLUICEGATE_BASE_URL": "http://h/"}, (URL, "sg", "fair")),
        ("else/where", JUDGE, (URL, "j", "where")),
        ("openai/gpt-5", {**OPENAI, **JUDGE}, (URL, "j", "gpt-5")),
    ],
)
def test_a_judge_is_asked_where_its_providers_tools_would_ask(
    model: str, environ: dict[str, str], place: tuple[str, str, str]
) -> None:
    assert tuple(place_of(model, environ)) == place


@pytest.mark.parametrize(
    ("model", "environ", "message"),
    [
        ("openai/gpt-5", {}, "set OPENAI_API_KEY"),
        ("gateway/fair", {}, "set SLUICEGATE_API_KEY"),
        ("else/where", {}, "no server is known for 'else'"),
        ("vllm/x", {"VLLM_BASE_URL": "ftp://h"}, "is no address"),
        ("vllm/x", {"VLLM_BASE_URL": "http://ann:secret@h"}, "holds credentials"),
    ],
)
def test_a_judge_without_server_or_key_says_what_to_set(
    model: str, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(JudgeUnavailable, match=message) as refused:
        place_of(model, environ)
    assert "secret" not in refused.value.message
