from __future__ import annotations

import math
from random import Random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.api import OLS
from statsmodels.stats.multitest import multipletests

from evals import inference
from evals.judging.errors_known import JudgeErrors, corrected, corrected_gain
from evals.marks import Marks
from evals.metrics.text import exact
from evals.score import compare
from evals.slices import slices_of, worse_slices
from evals.stats import Estimate, Interval, estimate_gain, estimate_mean
from evals.suite import Check, DatasetSource, EvalSuite
from tests.evals.test_score import SAMPLES


@given(st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=9))
def test_few_differences_are_permuted_exactly_as_scipy_does(differences: list[float]) -> None:
    found = (
        scipy_stats.permutation_test(
            (differences,), lambda x: float(np.sum(x)), permutation_type="samples", n_resamples=np.inf
        ).pvalue
        if any(differences)
        else 1.0
    )
    assert inference.permutation_p(differences) == pytest.approx(found)


def test_many_differences_are_permuted_at_random_and_agree() -> None:
    draw = Random(1)
    differences = [draw.gauss(0.1, 1) for _ in range(60)]
    found = scipy_stats.permutation_test(
        (differences,), lambda x: float(np.sum(x)), permutation_type="samples", n_resamples=9999, rng=1
    ).pvalue
    assert inference.permutation_p(differences, rounds=9999) == pytest.approx(found, abs=0.02)
    assert inference.permutation_p(differences) == inference.permutation_p(differences)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1]
    assert inference.holm(p_values) == pytest.approx(list(expected))


def test_clustered_errors_are_statsmodels() -> None:
    draw = Random(2)
    clusters = [str(i // 7) for i in range(140)]
    shift = {name: draw.gauss(0, 0.2) for name in set(clusters)}
    scores = [min(max(0.5 + shift[c] + draw.gauss(0, 0.1), 0), 1) for c in clusters]
    groups = [int(c) for c in clusters]
    fit = OLS(scores, np.ones(140)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": True}, use_t=True
    )
    low, high = fit.conf_int(0.05)[0]
    found = inference.clustered_mean(scores, clusters, 0.0, 1.0)
    assert found.value == pytest.approx(fit.params[0])
    assert found.method == "clustered t, 20 clusters"
    assert found.interval.low == pytest.approx(low)
    assert found.interval.high == pytest.approx(high)


def test_few_clusters_say_nothing() -> None:
    found = inference.clustered_gain([1.0] * 40, [0.0] * 40, ["a", "b"] * 20, 0.0, 1.0)
    assert found.interval == Interval(-1.0, 1.0)


def test_clustered_intervals_cover_the_truth_where_others_do_not() -> None:
    draw, held, naive = Random(3), 0, 0
    for _ in range(500):
        scores: list[float] = []
        clusters: list[str] = []
        for at in range(30):
            centre = draw.betavariate(4, 4)
            scores += [float(draw.random() < centre) * 0.5 + 0.25 * centre for _ in range(8)]
            clusters += [str(at)] * 8
        interval = inference.clustered_mean(scores, clusters, 0.0, 1.0).interval
        held += interval.low <= 0.375 <= interval.high
        plain = estimate_mean(scores, 0.0, 1.0).interval
        naive += plain.low <= 0.375 <= plain.high
    assert 0.93 <= held / 500 <= 0.98
    assert naive < held


def test_a_shortfall_is_as_likely_as_its_test_says() -> None:
    ones = [1.0] * 12 + [0.0] * 28
    assert inference.p_short(ones, 0.5, 0.0, 1.0) == pytest.approx(
        scipy_stats.binomtest(12, 40, 0.5, alternative="less").pvalue
    )
    draw = Random(4)
    scores = [draw.betavariate(2, 2) for _ in range(50)]
    assert inference.p_short(scores, 0.6, 0.0, 1.0) == pytest.approx(
        scipy_stats.ttest_1samp(scores, 0.6, alternative="less").pvalue
    )
    pairs = [1.0] * 5 + [-1.0] * 14 + [0.0] * 60
    z = (5 - 14) / math.sqrt(19)  # McNemar's statistic is Tango's at no difference
    assert inference.p_short(pairs, 0.0, -1.0, 1.0) == pytest.approx(scipy_stats.norm.cdf(z))


def test_a_confidence_sequence_holds_at_every_look() -> None:
    draw, missed = Random(5), 0
    for _ in range(300):
        p = 0.3
        scores = [float(draw.random() < p) for _ in range(300)]
        interval = inference.anytime_mean(scores, 0.0, 1.0).interval  # it only ever narrows
        missed += not interval.low <= p <= interval.high
    assert missed / 300 <= 0.05


def test_a_confidence_sequence_narrows_with_what_it_sees() -> None:
    draw = Random(6)
    scores = [draw.betavariate(8, 2) for _ in range(2000)]
    short, long = (inference.anytime_mean(scores[:n], 0.0, 1.0).interval for n in (200, 2000))
    assert short.low <= long.low <= 0.8 <= long.high <= short.high
    assert long.high - long.low < 0.06


@pytest.mark.parametrize(("share", "labels"), [(0.85, 150), (0.6, 100), (0.95, 200)])
def test_a_corrected_share_covers_what_people_would_say(share: float, labels: int) -> None:
    draw, held = Random(7), 0
    sensitivity, specificity = 0.92, 0.85
    for _ in range(600):
        seen = sum(
            draw.random() < (sensitivity if draw.random() < share else 1 - specificity) for _ in range(300)
        )
        hits = sum(draw.random() < sensitivity for _ in range(labels))
        misses = sum(draw.random() < specificity for _ in range(labels))
        errors = JudgeErrors(hits / labels, labels, misses / labels, labels)
        interval = corrected(estimate_mean([1.0] * seen + [0.0] * (300 - seen), 0, 1), errors).interval
        held += interval.low <= share <= interval.high
    assert 0.93 <= held / 600 <= 0.99


def test_a_corrected_gain_covers_what_people_would_say() -> None:
    draw, held, labels = Random(8), 0, 120
    sensitivity, specificity, gain = 0.9, 0.85, 0.1
    for _ in range(500):
        first: list[float] = []
        second: list[float] = []
        for _ in range(250):
            good = draw.random() < 0.7
            better = draw.random() < gain / 0.3 if not good else True
            for side, truth in ((first, better), (second, good)):
                side.append(float(draw.random() < (sensitivity if truth else 1 - specificity)))
        hits = sum(draw.random() < sensitivity for _ in range(labels))
        misses = sum(draw.random() < specificity for _ in range(labels))
        errors = JudgeErrors(hits / labels, labels, misses / labels, labels)
        interval = corrected_gain(estimate_gain(first, second, 0.0, 1.0), errors).interval
        held += interval.low <= gain <= interval.high
    assert 0.93 <= held / 500 <= 0.985


def test_a_judge_near_a_coin_corrects_nothing() -> None:
    errors = JudgeErrors(0.55, 100, 0.5, 100)
    found = Estimate(0.7, Interval(0.6, 0.8), 100, "Wilson")
    assert corrected(found, errors).interval == Interval(0.0, 1.0)
    assert corrected_gain(found, errors).interval == Interval(-1.0, 1.0)


def test_slices_rarely_blame_a_release_that_is_as_good_everywhere() -> None:
    draw, blamed = Random(9), 0
    check = Check("chat", "exact", not_worse_than="baseline", margin=0.0)
    suite = EvalSuite("s", "r", DatasetSource(ref="rows:1"), (check,), slices=("expected",))
    for _ in range(400):
        own, theirs = Marks(), Marks()
        for _ in SAMPLES:
            base = draw.random() < 0.7
            own.add(exact, [float(base != (draw.random() < 0.15))], None)
            theirs.add(exact, [float(base != (draw.random() < 0.15))], None)
        blamed += bool(worse_slices(slices_of(suite, SAMPLES, [(check, exact, own, theirs)])))
    assert blamed / 400 <= 0.04


def test_a_slice_that_is_surely_worse_is_named() -> None:
    check = Check("chat", "exact", not_worse_than="baseline", margin=0.05)
    suite = EvalSuite("s", "r", DatasetSource(ref="rows:1"), (check,), slices=("expected",))
    own, theirs = Marks(), Marks()
    for sample in SAMPLES:
        own.add(exact, [float(sample.expected == "No")], None)
        theirs.add(exact, [1.0], None)
    found = slices_of(suite, SAMPLES, [(check, exact, own, theirs)])
    assert worse_slices(found) == ("expected=Yes (chat exact)",)
    assert {one.value: one.n for one in found} == {"No": 30, "Yes": 10}
    assert fmean(own.values) == 0.75
    assert compare(check, exact, own, theirs).worse == 10
