"""The area under a ROC curve with its interval, and the difference of two on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evals.distributions import normal_quantile
from evals.stats import Estimate, Interval, unseen_share

Item = tuple[bool, float]
"""Whether the row is positive, and its score."""


def auc_estimate(items: Sequence[Item], level: float = 0.95) -> Estimate:
    """
    The area under the ROC curve with DeLong's variance, its interval on the scale of logits.

    Where every positive row outranks every negative one the variance is 0; then what unseen rows of the rarer
    class could do gives the interval its width. The whole range with fewer than two rows of a class.

    Source: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44(3), 837-845; Sun and Xu 2014, IEEE Signal
    Processing Letters 21(11), 1389-1393, for the way to count; Pepe 2003, The Statistical Evaluation of
    Medical Tests, section 5.2, for the logits.

    >>> auc_estimate([(True, 0.9), (True, 0.4), (False, 0.5), (False, 0.1)]).value
    0.75
    """
    positives, negatives = _split(items)
    n = len(items)
    if min(len(positives), len(negatives)) < 2:
        return Estimate(_value(positives, negatives), Interval(0.0, 1.0), n, "DeLong, too few of a class")
    area, over, under = _placements(positives, negatives)
    variance = _variance(over) / len(over) + _variance(under) / len(under)
    if variance <= 0 or not 0 < area < 1:
        share = unseen_share(min(len(positives), len(negatives)), level)
        return Estimate(area, Interval(area * (1 - share), area + share * (1 - area)), n, "DeLong, no spread")
    z = normal_quantile(0.5 + level / 2)
    logit, half = math.log(area / (1 - area)), z * math.sqrt(variance) / (area * (1 - area))
    ends = [1 / (1 + math.exp(-(logit + sign * half))) for sign in (-1, 1)]
    return Estimate(area, Interval(*ends), n, "DeLong")


def auc_gain(first: Sequence[Item], second: Sequence[Item], level: float = 0.95) -> Estimate:
    """
    By how much the first area exceeds the second, on the same rows in the same order.

    Source: DeLong et al. 1988, as above, with the covariance of both. Without any spread, what unseen rows of
    the rarer class could do gives the width.

    >>> rows = [(True, 0.9), (True, 0.4), (False, 0.5), (False, 0.1)]
    >>> auc_gain(rows, rows).value
    0.0
    """
    n = len(first)
    one, two = _split(first), _split(second)
    if min(len(one[0]), len(one[1])) < 2 or [len(part) for part in one] != [len(part) for part in two]:
        return Estimate(_value(*one) - _value(*two), Interval(-1.0, 1.0), n, "DeLong, too few of a class")
    area_1, over_1, under_1 = _placements(*one)
    area_2, over_2, under_2 = _placements(*two)
    over = [a - b for a, b in zip(over_1, over_2, strict=True)]
    under = [a - b for a, b in zip(under_1, under_2, strict=True)]
    variance = _variance(over) / len(over) + _variance(under) / len(under)
    value = area_1 - area_2
    if variance <= 0:
        share = unseen_share(min(len(over), len(under)), level)
        interval = Interval(value - share * (1 + value), value + share * (1 - value))
        return Estimate(value, interval, n, "DeLong, no spread")
    half = normal_quantile(0.5 + level / 2) * math.sqrt(variance)
    return Estimate(value, Interval(value - half, value + half).clipped(-1.0, 1.0), n, "DeLong")


def _split(items: Sequence[Item]) -> tuple[list[float], list[float]]:
    return [score for truth, score in items if truth], [score for truth, score in items if not truth]


def _value(positives: list[float], negatives: list[float]) -> float:
    return _placements(positives, negatives)[0] if positives and negatives else 0.5


def _placements(positives: list[float], negatives: list[float]) -> tuple[float, list[float], list[float]]:
    """The area, the share of negatives below each positive, and of positives above each negative."""
    of_positives, of_negatives, of_all = (
        _ranks(positives),
        _ranks(negatives),
        _ranks([*positives, *negatives]),
    )
    m, n = len(positives), len(negatives)
    over = [(of_all[at] - of_positives[at]) / n for at in range(m)]
    under = [1 - (of_all[m + at] - of_negatives[at]) / m for at in range(n)]
    return math.fsum(over) / m, over, under


def _ranks(values: list[float]) -> list[float]:
    """The rank of each value from 1; equal ones share their mean rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for at in order[start:stop]:
            ranks[at] = (start + stop + 1) / 2
        start = stop
    return ranks


def _variance(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
