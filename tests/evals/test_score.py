from __future__ import annotations

import math

import pytest

from evals.client import Failure
from evals.dataset import Sample
from evals.metrics.classification import accuracy, f1_macro
from evals.metrics.operational import latency_ms
from evals.metrics.retrieval import recall
from evals.score import majority, measure
from evals.stats import tango, wilson
from evals.suite import Check
from evals.systems.base import Output

SAMPLES = [Sample(str(i), f"d{i}", expected="No" if i % 4 else "Yes", features={}) for i in range(40)]
PERFECT = {sample.id: Output(1.0, label=sample.expected) for sample in SAMPLES}


def test_a_failed_request_scores_the_worst_and_keeps_its_place() -> None:
    check = Check("prediction", "accuracy", at_least=0.5)
    outputs: dict[str, Output | Failure] = {**PERFECT, "0": Failure("timeout"), "1": Output(1.0, label="Yes")}
    found = measure(check, accuracy, SAMPLES, outputs, None).estimate
    assert (found.value, found.n, found.interval) == (38 / 40, 40, wilson(38, 40))


def test_accuracy_is_paired_with_the_majority_class() -> None:
    check = Check("prediction", "accuracy", better_than="majority")
    found = measure(check, accuracy, SAMPLES, PERFECT, None)
    assert found.compared == 0.75
    assert found.gain is not None
    assert (found.gain.value, found.gain.interval) == (0.25, tango(10, 0, 40))
    assert found.p_value == pytest.approx(2 * 0.5**10)


def test_the_majority_class_breaks_ties_by_name() -> None:
    found = majority([Sample("1", "d", expected="b"), Sample("2", "e", expected="a")])
    assert {output.label for output in found.values() if isinstance(output, Output)} == {"a"}


def test_perfect_macro_f1_still_has_a_lower_bound_below_one() -> None:
    check = Check("prediction", "f1_macro", at_least=0.5)
    found = measure(check, f1_macro, SAMPLES, PERFECT, None).estimate
    assert found.value == 1.0
    assert found.interval.rounded(2) == (0.69, 1.0)


def test_macro_f1_is_resampled_in_pairs() -> None:
    check = Check("prediction", "f1_macro", better_than="baseline")
    worse = {**PERFECT, **{str(i): Output(1.0, label="No") for i in range(0, 40, 8)}}
    found = measure(check, f1_macro, SAMPLES, PERFECT, worse)
    assert found.gain is not None
    assert found.compared == pytest.approx(1 - found.gain.value)
    assert 0 < found.gain.interval.low < found.gain.value < found.gain.interval.high
    assert measure(check, f1_macro, SAMPLES, PERFECT, worse) == found


def test_a_lower_latency_is_a_gain() -> None:
    check = Check("chat", "latency_ms", better_than="baseline")
    slow = {sample.id: Output(100.0 + i % 7) for i, sample in enumerate(SAMPLES)}
    fast = {sample.id: Output(50.0 + i % 5) for i, sample in enumerate(SAMPLES)}
    found = measure(check, latency_ms, SAMPLES, fast, slow)
    assert found.gain is not None
    assert found.gain.interval.low > 40


def test_failed_requests_have_no_mean_latency_but_a_quantile() -> None:
    outputs: dict[str, Output | Failure] = {sample.id: Output(10.0) for sample in SAMPLES}
    outputs["0"] = Failure("timeout")
    mean = measure(Check("chat", "latency_ms", at_most=20), latency_ms, SAMPLES, outputs, None).estimate
    assert math.isnan(mean.value)
    p50 = Check("chat", "latency_ms", statistic="p50", at_most=20)
    assert measure(p50, latency_ms, SAMPLES, outputs, None).estimate.value == 10.0


def test_a_limit_takes_the_first_samples_and_no_others() -> None:
    samples = [Sample(str(i), "d", relevant=("x",)) for i in range(30)]
    outputs = {str(i): Output(1.0, documents=("x",) if i < 12 else ("y",)) for i in range(30)}
    check = Check("retrieval", "recall", k=1, at_least=0.5, limit=12)
    found = measure(check, recall, samples, outputs, None).estimate
    assert (found.value, found.n) == (1.0, 12)
