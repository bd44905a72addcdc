"""Tests and intervals for pairs, clusters and repeated looks. Pure; what draws lots takes a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import fmean, stdev

from evals.distributions import binomial_at_most, normal_cdf, t_cdf, t_quantile
from evals.stats import Estimate, Interval, estimate_mean, unseen_share

EXACT = 12
"""Up to so many differences every sign is tried."""
ROUNDS = 2000
FEW_CLUSTERS = 10
"""Fewer clusters than this say nothing about each other: the interval is the whole range."""
_FIRST_GUESS = 0.25
"""The variance that a confidence sequence assumes of scores on [0, 1] before it has seen any."""


def permutation_p(differences: Sequence[float], seed: int = 0, rounds: int = ROUNDS) -> float:
    """
    The two-sided p-value that paired differences are as often above 0 as below, by flipping signs.

    Exact for up to 12 differences other than 0, else from *rounds* random flips, the sample itself counted.

    Source: Fisher 1935, The Design of Experiments, section 21; Phipson and Smyth 2010, Statistical
    Applications in Genetics and Molecular Biology 9(1), article 39, for the count.

    >>> permutation_p([1.0, 2.0, 3.0])
    0.25
    """
    moved = [difference for difference in differences if difference]
    n = len(moved)
    if not n:
        return 1.0
    limit = abs(math.fsum(moved)) * (1 - 1e-12)
    if n <= EXACT:
        hits = 0
        for signs in range(2**n):
            total = sum(-d if signs >> at & 1 else d for at, d in enumerate(moved))
            hits += abs(total) >= limit
        return float(hits / 2**n)
    draw = random.Random(seed)
    hits = 1
    whole = math.fsum(moved)
    for _ in range(rounds):
        bits = draw.getrandbits(n)
        flipped = sum(d for at, d in enumerate(moved) if bits >> at & 1)
        hits += abs(whole - 2 * flipped) >= limit
    return hits / (rounds + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """
    The p-values adjusted for their number: each may be held against one level for all of them.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2), 65-70.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[at]))
        adjusted[at] = running
    return adjusted


def p_short(values: Sequence[float], threshold: float, low: float, high: float) -> float:
    """
    The one-sided p-value that values in [*low*, *high*] fall this short of a mean of *threshold* by chance.

    Values at the two ends of the range alone get the exact binomial test; differences of such pairs (three
    values) the score test of Tango's interval, and others Student's t. Values without any spread count as if
    unseen ones could lie anywhere.

    Source: Clopper and Pearson 1934, Biometrika 26, 404-413; Tango 1998, Statistics in Medicine 17(8).

    >>> round(p_short([1.0] * 5 + [0.0] * 15, 0.5, 0.0, 1.0), 4)
    0.0207
    """
    n = len(values)
    if n < 2:
        return 1.0
    if (low, high) == (0.0, 1.0) and all(value in (0.0, 1.0) for value in values):
        return binomial_at_most(round(sum(values)), n, min(max(threshold, 0.0), 1.0))
    if (low, high) == (-1.0, 1.0) and all(value in (-1.0, 0.0, 1.0) for value in values):
        return normal_cdf(tango_z(values.count(1.0), values.count(-1.0), n, threshold))
    mean, spread = fmean(values), stdev(values)
    if spread == 0:
        reach = unseen_share(n) * (high - mean) if math.isfinite(high) else math.inf
        return 1.0 if mean + reach >= threshold else 0.025
    return t_cdf((mean - threshold) / (spread / math.sqrt(n)), n - 1)


def tango_z(gained: int, lost: int, n: int, delta: float) -> float:
    """
    How many standard errors a paired difference of proportions lies above *delta*, by its score test.

    Source: Tango 1998, Statistics in Medicine 17(8), 891-908.

    >>> round(tango_z(8, 2, 100, 0.0), 4)
    1.8974
    """
    if not -1 < delta < 1:
        return math.inf if delta <= -1 else -math.inf
    a, b = 2 * n, -gained - lost + (2 * n - gained + lost) * delta
    root = math.sqrt(max(b * b + 4 * a * lost * delta * (1 - delta), 0.0))
    q = (root - b) / (2 * a)
    variance = n * (2 * q + delta * (1 - delta))
    found = gained - lost - n * delta
    if variance <= 0:
        return 0.0 if found == 0 else math.copysign(math.inf, found)
    return found / math.sqrt(variance)


def clustered_mean(
    scores: Sequence[float], clusters: Sequence[str], low: float, high: float, level: float = 0.95
) -> Estimate:
    """
    The mean of scores in [*low*, *high*] that depend on each other within clusters.

    Student's t with one degree less than there are G clusters, on the standard error that sums residuals by
    cluster, with the small-sample factor G/(G-1). It is never narrower than the interval that takes the
    samples for independent. Fewer than 10 clusters are refused: the interval is the whole range.

    Source: Liang and Zeger 1986, Biometrika 73(1), 13-22; Cameron and Miller 2015, The Journal of Human
    Resources 50(2), 317-372.

    >>> clustered_mean([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"], 0.0, 1.0).method
    'clustered, too few clusters'
    """
    n = len(scores)
    mean, error, count = _clustered(scores, clusters)
    if count < FEW_CLUSTERS:
        return Estimate(mean, Interval(low, high), n, "clustered, too few clusters")
    half = t_quantile(0.5 + level / 2, count - 1) * error
    alone = estimate_mean(scores, low, high, level).interval
    interval = Interval(mean - half, mean + half).clipped(low, high).hull(alone)
    return Estimate(mean, interval, n, f"clustered t, {count} clusters")


def clustered_gain(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[str],
    low: float,
    high: float,
    level: float = 0.95,
) -> Estimate:
    """By how much paired scores in [*low*, *high*] of the first exceed the second's: see `clustered_mean`."""
    spread = high - low
    differences = [a - b for a, b in zip(first, second, strict=True)]
    found = clustered_mean(differences, clusters, -spread, spread, level)
    return Estimate(found.value, found.interval, found.n, "paired " + found.method)


def clustered_short(
    scores: Sequence[float], clusters: Sequence[str], threshold: float, low: float, high: float
) -> float:
    """
    The one-sided p-value that scores within clusters fall this short of a mean of *threshold* by chance.

    Of the same t as `clustered_mean`, and never below `p_short` of samples that stand alone; 1 for fewer than
    10 clusters.

    >>> clustered_short([1.0, 0.0, 0.0, 0.0] * 5, ["a"] * 20, 0.5, 0.0, 1.0)
    1.0
    """
    mean, error, count = _clustered(scores, clusters)
    if count < FEW_CLUSTERS:
        return 1.0
    alone = p_short(scores, threshold, low, high)
    return max(alone, t_cdf((mean - threshold) / error, count - 1)) if error else alone


def _clustered(scores: Sequence[float], clusters: Sequence[str]) -> tuple[float, float, int]:
    """The mean, its standard error where samples depend on each other within clusters, and their number."""
    mean, sums = fmean(scores), dict[str, float]()
    for score, cluster in zip(scores, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + score - mean
    count = len(sums)
    factor = count / (count - 1) if count > 1 else 1.0
    return mean, math.sqrt(factor * math.fsum(total * total for total in sums.values())) / len(scores), count


def anytime_mean(scores: Sequence[float], low: float, high: float, level: float = 0.95) -> Estimate:
    """
    The mean of scores in [*low*, *high*], with an interval that holds however often one looks.

    The predictable plug-in empirical Bernstein confidence sequence: after every sample it may be looked at,
    and the chance that it ever fails to hold the mean is at most 1 - level.

    Source: Waudby-Smith and Ramdas 2024, Journal of the Royal Statistical Society B 86(1), 1-27, theorem 2.

    >>> anytime_mean([0.0, 1.0] * 200, 0.0, 1.0).interval.rounded(2)
    (0.41, 0.59)
    """
    log = math.log(2 / (1 - level))
    span = high - low
    total = weighted = weights = radius = squares = 0.0
    lowest, highest = 0.0, 1.0
    for count, score in enumerate(scores, 1):
        x = min(max((score - low) / span, 0.0), 1.0)
        before = (0.5 + total) / count
        variance = (_FIRST_GUESS + squares) / count
        bet = min(math.sqrt(2 * log / (variance * count * math.log(1 + count))), 0.5)
        weighted += bet * x
        weights += bet
        radius += 4 * (x - before) ** 2 * (-math.log1p(-bet) - bet) / 4
        total += x
        squares += (x - (0.5 + total) / (count + 1)) ** 2
        centre, half = weighted / weights, (log + radius) / weights
        lowest, highest = max(lowest, centre - half), min(highest, centre + half)
    if lowest > highest:  # it failed, which it does once in 1 / (1 - level) runs
        lowest = highest = (lowest + highest) / 2
    interval = Interval(low + span * lowest, low + span * highest)
    return Estimate(fmean(scores), interval, len(scores), "confidence sequence")
