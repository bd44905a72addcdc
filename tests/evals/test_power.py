from __future__ import annotations

import math
from random import Random
from statistics import fmean

import pytest

from evals import power
from evals.checks import Check
from evals.distributions import t_quantile
from evals.gate import judge
from evals.metrics.text import exact, token_f1
from evals.score import Measured
from evals.stats import Estimate, Interval, estimate_gain, estimate_mean, tango, wilson

LEVEL = 0.95


def first_enough(chance: object, guess: int) -> int:
    """The least n, by bisection around *guess*, whose chance of a decision is 80 %."""
    low, high = max(guess // 3, 10), guess * 3
    while high - low > max(1, guess // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= 0.8 else (middle, high)  # type: ignore[operator]
    return high


def binomial_pmf(k: int, n: int, p: float) -> float:
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))


@pytest.mark.parametrize(
    ("p", "threshold"), [(0.85, 0.8), (0.6, 0.5), (0.93, 0.9), (0.7, 0.75), (0.3, 0.4), (0.97, 0.93)]
)
def test_advice_for_a_share_is_what_wilsons_interval_needs(p: float, threshold: float) -> None:
    def chance(n: int) -> float:
        found = 0.0
        for k in range(n + 1):
            interval = wilson(k, n, LEVEL)
            if (interval.low > threshold) if p > threshold else (interval.high < threshold):
                found += binomial_pmf(k, n, p)
        return found

    advised = power.needed_share(p, threshold, LEVEL)
    assert advised is not None
    assert advised == pytest.approx(first_enough(chance, advised), rel=0.25)


@pytest.mark.parametrize(
    ("gained", "lost", "margin"),
    [(0.12, 0.06, 0.0), (0.10, 0.02, 0.0), (0.05, 0.05, -0.03), (0.08, 0.1, -0.06), (0.03, 0.12, -0.02)],
)
def test_advice_for_pairs_is_what_tangos_interval_needs(gained: float, lost: float, margin: float) -> None:
    draw = Random(5)

    def chance(n: int) -> float:
        hits = 0
        for _ in range(500):
            better = worse = 0
            for _ in range(n):
                u = draw.random()
                better += u < gained
                worse += gained <= u < gained + lost
            interval = tango(better, worse, n, LEVEL)
            hits += interval.low > margin if gained - lost > margin else interval.high < margin
        return hits / 500

    advised = power.needed_paired(gained, lost, margin, LEVEL)
    assert advised is not None
    assert chance(math.ceil(advised * 1.25)) >= 0.8
    assert chance(math.floor(advised / 1.25)) < 0.8


@pytest.mark.parametrize("shape", [(2.0, 2.0), (8.0, 1.5)])
def test_advice_for_a_mean_is_what_its_interval_needs(shape: tuple[float, float]) -> None:
    a, b = shape
    mean = a / (a + b)
    spread = math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    threshold = mean - spread / 6
    draw = Random(7)

    def chance(n: int) -> float:
        half = t_quantile(0.5 + LEVEL / 2, n - 1)
        hits = 0
        for _ in range(600):
            scores = [draw.betavariate(a, b) for _ in range(n)]
            centre = fmean(scores)
            deviation = math.sqrt(math.fsum((x - centre) ** 2 for x in scores) / (n - 1))
            hits += centre - half * deviation / math.sqrt(n) > threshold
        return hits / 600

    advised = power.needed_mean(spread, mean - threshold, LEVEL)
    assert advised is not None
    assert chance(math.ceil(advised * 1.25)) >= 0.8
    assert chance(math.floor(advised / 1.25)) < 0.8


def test_the_gate_advises_by_the_interval_it_used() -> None:
    def more(check: Check, measured: Measured, metric: object = exact) -> int | None:
        return judge(check, metric, measured).more  # type: ignore[arg-type]

    share = estimate_mean([1.0] * 85 + [0.0] * 15, 0.0, 1.0)
    assert more(Check("chat", "exact", at_least=0.8), Measured(share)) == 471 - 100
    first, second = [1.0] * 92 + [0.0] * 8, [1.0] * 80 + [0.0] * 12 + [1.0] * 6 + [0.0] * 2
    gain = estimate_gain(first, second, 0.0, 1.0)
    against = Check("chat", "exact", better_than="baseline")
    found = more(against, Measured(share, 0.8, gain, better=12, worse=6))
    needed = power.needed_paired(0.12, 0.06)
    assert needed is not None
    assert found == needed - 100
    flat = Estimate(0.5, Interval(0.4, 0.6), 100, "Student t")
    assert more(Check("chat", "token_f1", at_least=0.5), Measured(flat), token_f1) is None


@pytest.mark.parametrize("n", [60, 391, 5000])
def test_what_can_be_detected_is_what_is_needed_turned_round(n: int) -> None:
    gap = power.detectable_share(n, 0.8)
    assert power.needed_share(0.8, 0.8 - gap) in range(n - 1, n + 1)
    paired = power.detectable_paired(n, 0.2)
    assert power.needed_paired((0.2 + paired) / 2, (0.2 - paired) / 2) in range(n - 1, n + 1)
    spread = power.detectable_mean(n, 0.3)
    assert power.needed_mean(0.3, spread) in range(n - 1, n + 1)
