"""
How many samples a check needs to be decided, and how small a difference so many can show.

All answers are for the intervals that checks really use: Wilson's for shares, Tango's for paired shares,
Student's t for means. They count samples in all, and hold when the value found is the true one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from evals.distributions import normal_quantile

POWER = 0.8
"""The chance that a check is decided with the advised number of samples."""
MOST = 10_000_000
"""More samples than this are no advice."""


def needed_share(p: float, threshold: float, level: float = 0.95, power: float = POWER) -> int | None:
    """
    Samples until Wilson's interval of a share *p* excludes *threshold* with chance *power*.

        n = ((z √(t(1-t)) + y √(p(1-p))) / (p - t))², z and y the normal quantiles of level and power

    None where no number would do: the share is the threshold.

    Source: Fleiss, Levin and Paik 2003, Statistical Methods for Rates and Proportions, 3rd edition, 2.5.

    >>> needed_share(0.85, 0.8)
    471
    """
    z, y = _quantiles(level, power)
    null = threshold * (1 - threshold)
    return _least(z * math.sqrt(null) + y * math.sqrt(p * (1 - p)), abs(p - threshold))


def needed_paired(
    gained: float, lost: float, margin: float = 0.0, level: float = 0.95, power: float = POWER
) -> int | None:
    """
    Pairs until Tango's interval of a paired difference of shares excludes *margin* with chance *power*.

    Args:
        gained: share of samples that only the first system has right.
        lost: share that only the second has right.
        margin: what the difference gained - lost is held against.

    Source: the variances of Tango 1998, Statistics in Medicine 17(8), 891-908, under both hypotheses; for a
    margin of 0 that is Connor 1987, Biometrics 43(1), 207-211.

    >>> needed_paired(0.12, 0.06)
    391
    """
    z, y = _quantiles(level, power)
    difference = gained - lost
    if not -1 < margin < 1:
        return None
    b = -gained - lost + (2 - difference) * margin
    q = (math.sqrt(max(b * b + 8 * lost * margin * (1 - margin), 0.0)) - b) / 4
    null = max(2 * q + margin * (1 - margin), 0.0)
    real = max(gained + lost - difference * difference, 0.0)
    return _least(z * math.sqrt(null) + y * math.sqrt(real), abs(difference - margin))


def needed_mean(spread: float, gap: float, level: float = 0.95, power: float = POWER) -> int | None:
    """
    Samples until Student's interval of a mean excludes a threshold *gap* away with chance *power*.

    Args:
        spread: standard deviation of the scores, or of their paired differences.

    Source: Guenther 1981, Sankhya B 43(2), 1-10: the normal answer and z²/2 more for the unknown spread.

    >>> needed_mean(0.3, 0.05)
    285
    """
    z, y = _quantiles(level, power)
    found = _least((z + y) * spread, abs(gap))
    return None if found is None else found + math.ceil(z * z / 2)


def needed_by_width(n: int, half: float, gap: float, level: float = 0.95, power: float = POWER) -> int | None:
    """
    Samples for any interval that narrows as 1/√n: it is *half* wide on the side of the threshold at *n*.

    >>> needed_by_width(100, 0.2, 0.1)
    818
    """
    z, y = _quantiles(level, power)
    if not math.isfinite(half) or half <= 0:
        return None
    return _least(math.sqrt(n) * half * (1 + y / z), abs(gap))


def detectable_share(n: int, p: float, level: float = 0.95, power: float = POWER) -> float:
    """
    How far below a share *p* a threshold must lie for *n* samples to show it with chance *power*.

    >>> round(detectable_share(470, 0.85), 3)
    0.05
    """
    return _bisect(lambda gap: needed_share(p, p - gap, level, power), n, p)


def detectable_paired(
    n: int, discordant: float, margin: float = 0.0, level: float = 0.95, power: float = POWER
) -> float:
    """
    The least gain that *n* pairs show with chance *power*, when a share *discordant* of them differ.

    >>> round(detectable_paired(390, 0.18), 3)
    0.06
    """

    def needed(gap: float) -> int | None:
        difference = margin + gap
        shares = (discordant + difference) / 2, (discordant - difference) / 2
        return needed_paired(max(shares[0], 0.0), max(shares[1], 0.0), margin, level, power)

    return _bisect(needed, n, max(discordant - margin, 0.0))


def detectable_mean(n: int, spread: float, level: float = 0.95, power: float = POWER) -> float:
    """
    The least distance from the threshold that *n* scores of this *spread* show with chance *power*.

    >>> round(detectable_mean(285, 0.3), 3)
    0.05
    """
    return _bisect(lambda gap: needed_mean(spread, gap, level, power), n, 20 * spread)


def _bisect(needed: Callable[[float], int | None], n: int, most: float) -> float:
    """The least gap for which *n* suffice."""
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        found = needed(middle)
        low, high = (low, middle) if found is not None and found <= n else (middle, high)
    return high


def _quantiles(level: float, power: float) -> tuple[float, float]:
    return normal_quantile(0.5 + level / 2), normal_quantile(power)


def _least(scale: float, gap: float) -> int | None:
    if gap <= 0 or scale / gap > math.sqrt(MOST):
        return None
    return max(math.ceil((scale / gap) ** 2 - 1e-9), 1)
