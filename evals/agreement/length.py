"""Whether a judge likes long answers better than people do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from evals.distributions import normal_quantile
from evals.stats import Estimate, Interval


def rank_correlation(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Estimate | None:
    """
    Spearman's rank correlation in [-1, 1] with its interval; ties share their mean rank.

        tanh(artanh(r) ± z √((1 + r²/2) / (n - 3)))

    None for fewer than five pairs, or where either side never varies. For the interval |r| counts as at most
    1 - 1/n², so that a perfect order has a width too.

    Source: Spearman 1904, American Journal of Psychology 15(1), 72-101; interval: Bonett and Wright 2000,
    Psychometrika 65(1), 23-28.

    >>> found = rank_correlation([1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5])
    >>> round(found.value, 3), found.interval.rounded(2)
    (0.829, (-0.13, 0.99))
    """
    n = len(first)
    if n < 5 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    a, b = _ranks(first), _ranks(second)
    middle = fmean(a)
    shared = sum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True))
    own = math.sqrt(sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b))
    value = max(min(shared / own, 1.0), -1.0)
    most = 1 - 1 / (n * n)
    inner = max(min(value, most), -most)
    half = normal_quantile(0.5 + level / 2) * math.sqrt((1 + value * value / 2) / (n - 3))
    interval = Interval(math.tanh(math.atanh(inner) - half), math.tanh(math.atanh(inner) + half))
    interval = interval.hull(Interval(value, value))
    return Estimate(value, interval.clipped(-1.0, 1.0), n, "Spearman")


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda at: values[at])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for at in order[start:stop]:
            ranks[at] = (start + stop - 1) / 2 + 1
        start = stop
    return ranks
