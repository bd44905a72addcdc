"""
Intervals that say how much a score may be luck.

Every function is pure; what resamples takes a seed and gives the same interval each time. A sample
that shows no spread still earns an interval with width: see `unseen_share`.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import TypeVar

from evals.distributions import binomial_at_most, normal_quantile, t_quantile

T = TypeVar("T", bound=Hashable)
MIN_SAMPLES = 10
"""Fewer samples than this decide nothing, whatever their scores."""
LARGE = 100
"""From here on the t interval stands alone; below it is joined with the BCa bootstrap.

By simulation t alone covers skewed scores, Beta(8, 0.4), in 91 % of samples of 30; joined 95 %.
"""
FEW = 5
"""With fewer scores than this unlike the commonest one, their spread is no guide to the error."""
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A range that holds the true value with the stated confidence."""

    low: float
    high: float

    def rounded(self, digits: int) -> tuple[float, float]:
        """Both ends, rounded."""
        return round(self.low, digits), round(self.high, digits)

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that covers both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))

    def clipped(self, low: float, high: float) -> Interval:
        """This interval, cut to the values that can occur."""
        return Interval(min(max(self.low, low), high), max(min(self.high, high), low))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its interval, from how many samples and by which method."""

    value: float
    interval: Interval
    n: int
    method: str


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """
    The Wilson score interval of a proportion; (0, 1) when n is 0.

        centre = (p + z²/2n) / (1 + z²/n),  half = z √(p(1-p)/n + z²/4n²) / (1 + z²/n)

    Source: Wilson 1927, JASA 22(158), 209-212. No continuity correction.

    >>> wilson(8, 10).rounded(2)
    (0.49, 0.94)
    """
    if n == 0:
        return Interval(0.0, 1.0)
    z2 = normal_quantile(0.5 + level / 2) ** 2
    p = successes / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, high).clipped(0.0, 1.0)


def unseen_share(n: int, level: float = 0.95) -> float:
    """
    The largest share of cases that *n* samples may plausibly all have missed.

        1 - ((1 - level)/2)^(1/n), about 3.7/n at 95 %

    This is the two-sided form of the rule of three: after n samples without a failure, failures may
    still make up this share.

    Source: Clopper and Pearson 1934, Biometrika 26, 404-413, with no successes; Hanley and
    Lippman-Hand 1983, JAMA 249, 1743-1745.

    >>> round(unseen_share(120), 3)
    0.03
    """
    return 1.0 if n < 1 else 1.0 - ((1 - level) / 2) ** (1 / n)


def mean_interval(
    scores: Sequence[float], low: float, high: float, level: float = 0.95, seed: int = 0
) -> Interval:
    """
    An interval for the mean of scores that can lie in [*low*, *high*].

    Zeros and ones get Wilson's interval. Otherwise Student's t, below 100 samples joined with the
    bias-corrected and accelerated bootstrap. Where all but a few scores are equal their spread says
    little, so the interval is widened to what unseen cases could do: a share `unseen_share` may lie
    beyond the worst and best score seen, at the ends of the range. Equal scores thus never give a
    width of zero.

    Returns:
        The whole range for fewer than two samples.

    >>> mean_interval([1.0] * 20, 0.0, 1.0).rounded(2)
    (0.84, 1.0)
    >>> mean_interval([0.5] * 120, 0.0, 1.0).rounded(3)
    (0.485, 0.515)
    """
    n = len(scores)
    if n < 2:
        return Interval(low, high)
    if (low, high) == (0.0, 1.0) and _is_binary(scores):
        return wilson(round(sum(scores)), n, level)
    mean, spread = fmean(scores), stdev(scores)
    half = t_quantile(0.5 + level / 2, n - 1) * spread / math.sqrt(n)
    result = Interval(mean - half, mean + half)
    if n < LARGE and spread > 0:
        result = result.hull(bca(scores, level, seed))
    commonest = Counter(round(score, 9) for score in scores).most_common(1)[0][1]
    if n - commonest < FEW:
        share = unseen_share(n, level)
        down, up = share * (min(scores) - low), share * (high - max(scores))
        result = result.hull(Interval(mean - down, mean + up))
    return result.clipped(low, high)


def bca(scores: Sequence[float], level: float = 0.95, seed: int = 0) -> Interval:
    """
    The bias-corrected and accelerated bootstrap interval of a mean, from 2,000 resamples.

    Source: Efron 1987, JASA 82(397), 171-185; acceleration by the jackknife, which for a mean is
    the sample's skewness over 6 √n. Ties with the sample's own mean count half.
    """
    n, mean = len(scores), fmean(scores)
    draw = random.Random(seed)
    means = sorted(sum(draw.choices(scores, k=n)) / n for _ in range(RESAMPLES))
    below = sum((value < mean) + 0.5 * (value == mean) for value in means)
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below / RESAMPLES, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    cubes = sum((score - mean) ** 3 for score in scores)
    scale = 6 * sum((score - mean) ** 2 for score in scores) ** 1.5
    skew = cubes / scale if scale > 0 else 0.0

    def end(p: float) -> float:
        z = bias + normal.inv_cdf(p)
        adjusted = normal.cdf(bias + z / max(1 - skew * z, 0.001))
        return means[min(int(adjusted * RESAMPLES), RESAMPLES - 1)]

    return Interval(end((1 - level) / 2), end((1 + level) / 2))


def tango(gained: int, lost: int, n: int, level: float = 0.95) -> Interval:
    """
    The score interval for the difference of two paired proportions; (-1, 1) when n is 0.

    It holds every difference that the score test does not reject:

        |gained - lost - nΔ| <= z √(n(2q + Δ(1-Δ))), q = the likeliest share of losses given Δ

    Args:
        gained: samples that only the first system has right.
        lost: samples that only the second has right.

    Source: Tango 1998, Statistics in Medicine 17(8), 891-908; roots by bisection.

    >>> tango(0, 0, 120).rounded(3)
    (-0.031, 0.031)
    """
    if n == 0:
        return Interval(-1.0, 1.0)
    z = normal_quantile(0.5 + level / 2)

    def excess(delta: float, sign: int) -> float:
        a, b = 2 * n, -gained - lost + (2 * n - gained + lost) * delta
        root = math.sqrt(max(b * b + 4 * a * lost * delta * (1 - delta), 0.0))
        q = (root - b) / (2 * a)
        variance = n * (2 * q + delta * (1 - delta))
        return gained - lost - n * delta - sign * z * math.sqrt(max(variance, 0.0))

    def crossing(low: float, high: float, sign: int) -> float:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle, sign) > 0 else (low, middle)
        return (low + high) / 2

    difference = (gained - lost) / n
    return Interval(crossing(-1.0, difference, 1), crossing(difference, 1.0, -1))


def mcnemar(gained: int, lost: int) -> float:
    """
    The exact two-sided p-value that two paired systems are equally often right.

    Source: McNemar 1947, Psychometrika 12, 153-157, in its binomial form.

    >>> mcnemar(8, 2)
    0.109375
    """
    tail = binomial_at_most(min(gained, lost), gained + lost, 0.5)
    return min(1.0, round(2 * tail, 12))


def quantile(values: Sequence[float], q: float) -> float:
    """
    The smallest value that at least a share *q* of *values* does not exceed; always one of them.

    >>> quantile([30.0, 10.0, 20.0, 40.0], 0.5)
    20.0
    """
    ranked = sorted(values)
    return ranked[max(math.ceil(q * len(ranked) - 1e-9) - 1, 0)]


def quantile_interval(values: Sequence[float], q: float, level: float = 0.95) -> Interval:
    """
    An interval for the *q* quantile between two of the *values*; no law of the values is assumed.

    An end is infinite where too few values lie beyond it: see `samples_for_quantile`.

    Source: David and Nagaraja 2003, Order Statistics, 3rd edition, section 7.1.

    >>> quantile_interval([float(i) for i in range(1, 101)], 0.5)
    Interval(low=40.0, high=61.0)
    """
    ranked, n, tail = sorted(values), len(values), (1 - level) / 2
    below = _largest(lambda r: binomial_at_most(r - 1, n, q) <= tail, n)
    above = _largest(lambda r: 1 - binomial_at_most(n - r, n, q) <= tail, n)
    return Interval(
        ranked[below - 1] if below else -math.inf,
        ranked[n - above] if above else math.inf,
    )


def _largest(holds: Callable[[int], bool], n: int) -> int:
    """The largest r in 1 to *n* for which *holds*, which fails from some r on; 0 when never."""
    low, high = 0, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def samples_for_quantile(q: float, level: float = 0.95) -> int:
    """
    How many samples the upper end of a *q* quantile's interval needs to exist.

    >>> samples_for_quantile(0.95)
    72
    """
    return math.ceil(math.log((1 - level) / 2) / math.log(q))


def bootstrap_interval(
    items: Sequence[T],
    compute: Callable[[Mapping[T, int]], float],
    level: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """
    The percentile bootstrap interval of a statistic of the whole sample, such as macro F1.

    Args:
        compute: takes how often each distinct item occurs.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    counts = Counter(items)
    kinds, weights = list(counts), list(counts.values())
    draw = random.Random(seed)
    found = sorted(compute(Counter(draw.choices(kinds, weights, k=len(items)))) for _ in range(resamples))
    return Interval(quantile(found, (1 - level) / 2), quantile(found, (1 + level) / 2))


def _is_binary(scores: Sequence[float]) -> bool:
    return all(score in (0.0, 1.0) for score in scores)


def estimate_mean(
    scores: Sequence[float], low: float, high: float, level: float = 0.95, seed: int = 0
) -> Estimate:
    """The mean of at least one score in [*low*, *high*], with `mean_interval`."""
    binary = (low, high) == (0.0, 1.0) and _is_binary(scores)
    method = "Wilson" if binary else "Student t" if len(scores) >= LARGE else "Student t and BCa bootstrap"
    return Estimate(fmean(scores), mean_interval(scores, low, high, level, seed), len(scores), method)


def estimate_gain(
    first: Sequence[float], second: Sequence[float], low: float, high: float, level: float = 0.95
) -> Estimate:
    """
    By how much paired scores in [*low*, *high*] of the first system exceed the second's, on average.

    Zeros and ones get Tango's interval; others `mean_interval` over the differences.

    >>> estimate_gain([1.0] * 30 + [0.0] * 10, [1.0] * 20 + [0.0] * 20, 0.0, 1.0).interval.rounded(2)
    (0.14, 0.4)
    """
    pairs = list(zip(first, second, strict=True))
    if (low, high) == (0.0, 1.0) and _is_binary(first) and _is_binary(second):
        gained = sum(a > b for a, b in pairs)
        lost = sum(a < b for a, b in pairs)
        return Estimate(
            (gained - lost) / len(pairs), tango(gained, lost, len(pairs), level), len(pairs), "Tango"
        )
    spread = high - low
    found = estimate_mean([a - b for a, b in pairs], -spread, spread, level)
    return Estimate(found.value, found.interval, found.n, "paired " + found.method)
