from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.gate import CheckResult, decide, judge
from evals.metrics.classification import accuracy
from evals.metrics.operational import latency_ms
from evals.metrics.text import token_f1
from evals.score import Measured
from evals.stats import Estimate, Interval
from evals.suite import Check

VERDICTS = ["pass", "fail", "inconclusive", "skipped"]


def at_least(threshold: float, low: float, high: float, n: int = 100) -> CheckResult:
    check = Check("chat", "token_f1", at_least=threshold)
    return judge(check, token_f1, Measured(Estimate((low + high) / 2, Interval(low, high), n, "test")))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.5, 0.7, "pass"),
        (0.51, 0.7, "pass"),
        (0.49, 0.7, "inconclusive"),
        (0.3, 0.5, "inconclusive"),
        (0.3, 0.49, "fail"),
    ],
)
def test_the_interval_decides_a_floor(low: float, high: float, verdict: str) -> None:
    assert at_least(0.5, low, high).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(10, 20, "pass"), (10, 21, "inconclusive"), (20, math.inf, "inconclusive"), (21, 40, "fail")],
)
def test_the_interval_decides_a_ceiling(low: float, high: float, verdict: str) -> None:
    check = Check("chat", "latency_ms", statistic="p95", at_most=20)
    measured = Measured(Estimate(low + 1, Interval(low, high), 40, "test"))
    assert judge(check, latency_ms, measured).verdict == verdict


@pytest.mark.parametrize(
    ("margin", "low", "high", "verdict"),
    [
        (0.0, 0.01, 0.2, "pass"),
        (0.0, 0.0, 0.2, "inconclusive"),
        (0.0, -0.2, 0.0, "fail"),
        (-0.02, -0.01, 0.0, "pass"),
        (0.1, 0.05, 0.09, "fail"),
    ],
)
def test_a_gain_must_exceed_its_margin(margin: float, low: float, high: float, verdict: str) -> None:
    check = Check("prediction", "accuracy", better_than="majority", margin=margin)
    own = Estimate(0.8, Interval(0.7, 0.9), 100, "test")
    gain = Estimate((low + high) / 2, Interval(low, high), 100, "test")
    assert judge(check, accuracy, Measured(own, 0.7, gain)).verdict == verdict


@given(st.integers(0, 9), st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.99))
def test_fewer_than_ten_samples_never_decide(n: int, a: float, b: float, threshold: float) -> None:
    found = at_least(threshold, min(a, b), max(a, b), n)
    assert (found.verdict, found.more) == ("inconclusive", 10 - n)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.99), st.floats(0, 0.2))
def test_a_lower_threshold_never_turns_pass_into_less(
    a: float, b: float, threshold: float, less: float
) -> None:
    low, high = min(a, b), max(a, b)
    order = {"fail": 0, "inconclusive": 1, "pass": 2}
    easier = at_least(threshold - less, low, high).verdict
    assert order[easier] >= order[at_least(threshold, low, high).verdict]


def test_an_inconclusive_check_says_how_many_more_samples() -> None:
    found = at_least(0.5, 0.4, 0.8)
    assert found.more == 718
    assert found.reason == "the interval holds 0.5; about 718 more samples would decide it"


def test_too_few_samples_for_a_p95_say_how_many_are_missing() -> None:
    check = Check("chat", "latency_ms", statistic="p95", at_most=20)
    measured = Measured(Estimate(10.0, Interval(5.0, math.inf), 40, "order statistics"))
    assert judge(check, latency_ms, measured).more == 32


def result(verdict: str, tier: str = "gate") -> CheckResult:
    check = Check("chat", "token_f1", at_least=0.5, tier=tier)  # type: ignore[arg-type]
    return CheckResult(check, token_f1, None, verdict, "test")  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from(VERDICTS), st.sampled_from(["gate", "advisory"])), min_size=1))
def test_the_verdict_is_the_worst_of_the_gate_checks(found: list[tuple[str, str]]) -> None:
    results = [result("pass"), *(result(verdict, tier) for verdict, tier in found)]
    gates = {"pass", *(verdict for verdict, tier in found if tier == "gate")}
    worst = "fail" if "fail" in gates else "inconclusive" if "inconclusive" in gates else "pass"
    assert decide(results, error_share=0, max_error_share=0).verdict == worst


@given(st.lists(st.sampled_from(VERDICTS), min_size=1))
def test_too_many_errors_fail_whatever_the_scores(verdicts: list[str]) -> None:
    found = decide([result(verdict) for verdict in verdicts], error_share=0.011, max_error_share=0.01)
    assert found.verdict == "fail"


def test_errors_of_the_baseline_leave_no_fair_comparison() -> None:
    found = decide([result("pass")], error_share=0, max_error_share=0.1, baseline_error_share=0.2)
    assert found.verdict == "inconclusive"


def test_a_gate_whose_every_check_was_skipped_judged_nothing() -> None:
    results = [result("skipped"), result("pass", "advisory")]
    assert decide(results, error_share=0, max_error_share=0).verdict == "inconclusive"


def test_a_skipped_check_says_why() -> None:
    check = Check("chat", "token_f1", better_than="baseline")
    found = judge(check, token_f1, "no baseline")
    assert (found.verdict, found.reason) == ("skipped", "skipped: no baseline")
