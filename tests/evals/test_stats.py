from __future__ import annotations

import math
import random
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as scipy_stats

from evals import stats
from evals.distributions import normal_quantile
from evals.stats import Interval

levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])
unit_scores = st.lists(st.floats(0, 1), min_size=2, max_size=60)
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200)


@given(st.integers(1, 3000), st.data(), levels)
def test_wilson_is_scipys(n: int, data: st.DataObject, level: float) -> None:
    k = data.draw(st.integers(0, n))
    expected = scipy_stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert stats.wilson(k, n, level).rounded(9) == (round(expected.low, 9), round(expected.high, 9))


@given(st.integers(1, 500), st.data(), levels)
def test_wilson_mirrors_when_success_and_failure_swap(n: int, data: st.DataObject, level: float) -> None:
    k = data.draw(st.integers(0, n))
    there, back = stats.wilson(k, n, level), stats.wilson(n - k, n, level)
    assert there.low == pytest.approx(1 - back.high, abs=1e-12)


@given(st.integers(1, 500), st.data())
def test_more_confidence_never_narrows_wilson(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    narrow, wide = stats.wilson(k, n, 0.8), stats.wilson(k, n, 0.99)
    assert wide.hull(narrow) == wide


@given(unit_scores, levels)
def test_a_mean_lies_in_its_interval_and_the_interval_in_the_range(scores: list[float], level: float) -> None:
    found = stats.mean_interval(scores, 0.0, 1.0, level)
    assert 0.0 <= found.low <= math.fsum(scores) / len(scores) + 1e-12
    assert math.fsum(scores) / len(scores) - 1e-12 <= found.high <= 1.0


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=100, max_size=120, unique_by=lambda x: round(x, 9)))
def test_a_spread_sample_of_a_hundred_gets_scipys_t_interval(scores: list[float]) -> None:
    mean, half = np.mean(scores), scipy_stats.sem(scores) * scipy_stats.t.ppf(0.975, len(scores) - 1)
    expected = Interval(mean - half, mean + half).clipped(0.0, 1.0)
    found = stats.mean_interval(scores, 0.0, 1.0)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.floats(0, 1), st.integers(2, 500))
def test_equal_scores_still_have_an_interval_with_width(score: float, n: int) -> None:
    found = stats.mean_interval([score] * n, 0.0, 1.0)
    assert found.high - found.low > 1 / n


def test_equal_scores_without_a_limit_have_no_upper_bound() -> None:
    assert stats.mean_interval([5.0] * 50, 0.0, math.inf).high == math.inf


def test_one_score_says_nothing() -> None:
    assert stats.mean_interval([0.4], 0.0, 1.0) == Interval(0.0, 1.0)


@given(unit_scores, st.integers())
def test_bca_depends_on_the_seed_alone(scores: list[float], seed: int) -> None:
    if len(scores) < 12:
        assert stats.bca(scores, seed=seed) == stats.bca(scores, seed=seed)


def test_bca_is_near_scipys() -> None:
    scores = [random.Random(i).betavariate(2, 5) for i in range(25)]
    result = scipy_stats.bootstrap(
        (scores,), np.mean, method="BCa", n_resamples=20_000, rng=np.random.default_rng(0)
    ).confidence_interval
    found = stats.bca(scores)
    assert found.low == pytest.approx(result.low, abs=0.006)
    assert found.high == pytest.approx(result.high, abs=0.006)


@given(pairs, levels)
def test_tango_mirrors_when_the_systems_swap(outcomes: list[tuple[bool, bool]], level: float) -> None:
    gained, lost = sum(a > b for a, b in outcomes), sum(a < b for a, b in outcomes)
    there = stats.tango(gained, lost, len(outcomes), level)
    back = stats.tango(lost, gained, len(outcomes), level)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


@given(pairs, levels)
def test_tango_holds_the_observed_difference(outcomes: list[tuple[bool, bool]], level: float) -> None:
    gained, lost = sum(a > b for a, b in outcomes), sum(a < b for a, b in outcomes)
    found = stats.tango(gained, lost, len(outcomes), level)
    difference = (gained - lost) / len(outcomes)
    assert -1 - 1e-9 <= found.low <= difference + 1e-9
    assert difference - 1e-9 <= found.high <= 1 + 1e-9


@pytest.mark.parametrize(("gained", "lost", "n"), [(12, 3, 40), (1, 0, 25), (7, 7, 20), (30, 20, 120)])
def test_at_tangos_ends_the_score_test_just_rejects(gained: int, lost: int, n: int) -> None:
    """The nuisance parameter is found here by maximising the likelihood itself."""
    z = normal_quantile(0.975)
    for delta in (stats.tango(gained, lost, n).low, stats.tango(gained, lost, n).high):

        def against(q: float, delta: float = delta) -> float:
            same = 1 - 2 * q - delta
            terms = ((gained, q + delta), (lost, q), (n - gained - lost, same))
            return -sum(count * math.log(max(share, 1e-300)) for count, share in terms if count)

        bounds = (max(0.0, -delta), (1 - delta) / 2)
        q = optimize.minimize_scalar(against, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        spread = math.sqrt(n * (2 * q + delta * (1 - delta)))
        assert abs(gained - lost - n * delta) / spread == pytest.approx(z, rel=1e-4)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_scipys_exact_binomial_test(gained: int, lost: int) -> None:
    n = gained + lost
    expected = scipy_stats.binomtest(gained, n, 0.5).pvalue if n else 1.0
    assert stats.mcnemar(gained, lost) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_quantile_is_numpys_inverted_cdf(values: list[float], q: float) -> None:
    assert stats.quantile(values, q) == np.quantile(values, q, method="inverted_cdf")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=150), st.sampled_from([0.5, 0.95]), levels)
def test_a_quantile_lies_in_its_interval(values: list[float], q: float, level: float) -> None:
    found = stats.quantile_interval(values, q, level)
    assert found.low <= stats.quantile(values, q) <= found.high


@pytest.mark.parametrize("n", [1, 71, 72, 200])
def test_a_p95_has_an_upper_bound_from_72_samples_on(n: int) -> None:
    found = stats.quantile_interval([float(i) for i in range(n)], 0.95)
    assert (found.high < math.inf) == (n >= stats.samples_for_quantile(0.95) == 72)


def test_a_failed_request_can_be_the_worst_latency() -> None:
    assert stats.quantile_interval([1.0] * 199 + [math.inf], 0.95) == Interval(1.0, 1.0)


def test_the_bootstrap_of_a_mean_is_near_its_t_interval() -> None:
    draw = random.Random(5)
    scores = [round(draw.gauss(10, 2), 3) for _ in range(300)]

    def mean(counts: Mapping[float, int]) -> float:
        return sum(value * times for value, times in counts.items()) / sum(counts.values())

    found = stats.bootstrap_interval(scores, mean)
    expected = stats.mean_interval(scores, -math.inf, math.inf)
    assert found.low == pytest.approx(expected.low, abs=0.03)
    assert found.high == pytest.approx(expected.high, abs=0.03)


def coverage(intervals: list[Interval], truth: float) -> float:
    return sum(found.low <= truth <= found.high for found in intervals) / len(intervals)


@pytest.mark.parametrize(("n", "p"), [(20, 0.9), (120, 0.3), (120, 0.98)])
def test_wilson_covers_the_truth_about_as_often_as_it_says(n: int, p: float) -> None:
    draw = random.Random(1)
    found = [stats.wilson(sum(draw.random() < p for _ in range(n)), n) for _ in range(1500)]
    assert 0.93 <= coverage(found, p) <= 0.99


@pytest.mark.parametrize(("n", "a", "b"), [(12, 2.0, 5.0), (20, 5.0, 1.0), (120, 0.5, 2.0), (60, 8.0, 0.4)])
def test_mean_intervals_cover_the_truth_of_skewed_scores(n: int, a: float, b: float) -> None:
    draw = random.Random(2)
    repeats = 100 if n < stats.LARGE else 800
    found = [
        stats.mean_interval([draw.betavariate(a, b) for _ in range(n)], 0.0, 1.0) for _ in range(repeats)
    ]
    assert coverage(found, a / (a + b)) >= 0.93


def test_near_perfect_scores_do_not_hide_what_was_not_seen() -> None:
    """One score in fifty is 0: many samples of 40 never see one."""
    draw = random.Random(3)
    found = [
        stats.mean_interval([0.999 if draw.random() > 0.02 else 0.0 for _ in range(40)], 0.0, 1.0)
        for _ in range(120)
    ]
    assert coverage(found, 0.999 * 0.98) >= 0.94


@pytest.mark.parametrize(("n", "gain", "loss"), [(25, 0.2, 0.1), (120, 0.1, 0.02), (120, 0.02, 0.02)])
def test_tango_covers_the_true_difference(n: int, gain: float, loss: float) -> None:
    draw = random.Random(4)
    found = []
    for _ in range(1000):
        rolls = [draw.random() for _ in range(n)]
        gained = sum(roll < gain for roll in rolls)
        lost = sum(gain <= roll < gain + loss for roll in rolls)
        found.append(stats.tango(gained, lost, n))
    assert 0.93 <= coverage(found, gain - loss) <= 0.995


@pytest.mark.parametrize(("n", "q"), [(30, 0.5), (120, 0.95), (400, 0.95)])
def test_quantile_intervals_cover_the_true_quantile(n: int, q: float) -> None:
    draw = random.Random(6)
    truth = -math.log(1 - q)
    found = [stats.quantile_interval([draw.expovariate(1) for _ in range(n)], q) for _ in range(800)]
    assert coverage(found, truth) >= 0.94


def test_paired_gains_use_the_pairs() -> None:
    """A small steady gain that unpaired intervals could not see."""
    draw = random.Random(7)
    second = [draw.uniform(0.1, 0.8) for _ in range(120)]
    first = [score + draw.uniform(0.02, 0.08) for score in second]
    found = stats.estimate_gain(first, second, 0.0, 1.0)
    assert found.method == "paired Student t"
    assert found.value == pytest.approx(0.05, abs=0.01)
    assert found.interval.low > 0.02
