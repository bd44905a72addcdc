"""What a judge's known errors make of what it counted: estimates corrected, and wider."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evals.distributions import normal_quantile
from evals.stats import Estimate, Interval

LEAST_YOUDEN = 0.2
"""A judge whose sensitivity and specificity add up to less than 1.2 tells too little to correct anything."""


@dataclass(frozen=True, slots=True)
class JudgeErrors:
    """How often a judge agreed with people, on what they called good and on what they called bad."""

    sensitivity: float
    """Share of the good that it calls good."""
    positives: int
    """How many good ones it was shown."""
    specificity: float
    """Share of the bad that it calls bad."""
    negatives: int

    @property
    def youden(self) -> float:
        """Sensitivity + specificity - 1: 0 for a coin, 1 for a perfect judge."""
        return self.sensitivity + self.specificity - 1


def corrected(found: Estimate, errors: JudgeErrors, level: float = 0.95) -> Estimate:
    """
    The share that people would call good, from the share *found* that the judge calls good.

        p = (q + specificity - 1) / (sensitivity + specificity - 1)

    The interval adds what the judge's two rates may be off by: each rate is counted as if one more hit and
    one more miss had been seen. Where all of it lies beyond 0 or 1 the judge contradicts its calibration, and
    the interval reaches back over what the judge itself counted. The whole range where it is too near a coin.

    Source: Rogan and Gladen 1978, American Journal of Epidemiology 107(1), 71-76; Lang and Reiczigel 2014,
    Preventive Veterinary Medicine 113(1), 13-22, for the interval.

    >>> est = Estimate(0.8, Interval(0.75, 0.84), 300, "Wilson")
    >>> corrected(est, JudgeErrors(0.9, 200, 0.85, 200)).interval.rounded(2)
    (0.79, 0.94)
    """
    if errors.youden < LEAST_YOUDEN:
        return Estimate(found.value, Interval(0.0, 1.0), found.n, "Rogan-Gladen, judge too near a coin")
    z = normal_quantile(0.5 + level / 2)
    n = found.n + z * z
    q = (found.value * found.n + z * z / 2) / n
    se, m = _with_two(errors.sensitivity, errors.positives)
    sp, k = _with_two(errors.specificity, errors.negatives)
    j = se + sp - 1
    if j < LEAST_YOUDEN:
        return Estimate(found.value, Interval(0.0, 1.0), found.n, "Rogan-Gladen, judge too near a coin")
    p = (q + sp - 1) / j
    spread = math.sqrt(
        max(_variance(found, q, n, z) + (1 - p) ** 2 * sp * (1 - sp) / k + p * p * se * (1 - se) / m, 0.0)
    )
    centre = p
    half = z * spread / j
    value = (found.value + errors.specificity - 1) / errors.youden
    interval = _within(centre - half, centre + half, 0.0, found.interval)
    return Estimate(min(max(value, 0.0), 1.0), interval, found.n, f"Rogan-Gladen of {found.method}")


def corrected_gain(found: Estimate, errors: JudgeErrors, level: float = 0.95) -> Estimate:
    """
    By how much people would call the first better, from the gain that one judge sees between two releases.

    A judge that errs alike on both shrinks every gain by sensitivity + specificity - 1; the interval adds
    what those may be off by (delta method).

    Source: Rogan and Gladen 1978, as above, for a difference of two shares.

    >>> est = Estimate(0.1, Interval(0.04, 0.16), 300, "Tango")
    >>> corrected_gain(est, JudgeErrors(0.9, 200, 0.85, 200)).interval.rounded(2)
    (0.05, 0.21)
    """
    if errors.youden < LEAST_YOUDEN:
        return Estimate(found.value, Interval(-1.0, 1.0), found.n, "Rogan-Gladen, judge too near a coin")
    z = normal_quantile(0.5 + level / 2)
    se, m = _with_two(errors.sensitivity, errors.positives)
    sp, k = _with_two(errors.specificity, errors.negatives)
    j = max(se + sp - 1, LEAST_YOUDEN)
    of_judge = (found.value / j) ** 2 * (se * (1 - se) / m + sp * (1 - sp) / k)
    value = found.value / errors.youden

    def reach(edge: float) -> float:
        own = ((edge - found.value) / z) ** 2
        return z * math.sqrt(own + of_judge) / j

    low, high = value - reach(found.interval.low), value + reach(found.interval.high)
    interval = _within(low, high, -1.0, found.interval)
    return Estimate(min(max(value, -1.0), 1.0), interval, found.n, f"Rogan-Gladen of {found.method}")


def _within(low: float, high: float, least: float, own: Interval) -> Interval:
    """From *low* to *high* within [*least*, 1], never a point: beyond it, the judge's *own* too."""
    clipped = Interval(low, high).clipped(least, 1.0)
    return clipped if low < 1.0 and high > least else clipped.hull(own)


def _with_two(rate: float, n: int) -> tuple[float, float]:
    """The rate with one more hit and one more miss, and how many that makes."""
    return (rate * n + 1) / (n + 2), n + 2.0


def _variance(found: Estimate, q: float, n: float, z: float) -> float:
    """The variance of the judge's own share: that of a proportion, or of what widened the interval."""
    wide = (found.interval.high - found.interval.low) / (2 * z)
    return max(q * (1 - q) / n, wide * wide)
