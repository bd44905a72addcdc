"""Quantiles and tails of the normal, Student t and binomial laws, without SciPy."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_TINY = 1e-300
_STEPS = 100_000


def normal_quantile(p: float) -> float:
    """
    The z below which a standard normal falls with probability *p* in (0, 1).

    >>> round(normal_quantile(0.975), 6)
    1.959964
    """
    return NormalDist().inv_cdf(p)


def normal_cdf(z: float) -> float:
    """
    P(Z <= z) for a standard normal Z.

    >>> round(normal_cdf(1.959964), 6)
    0.975
    """
    return NormalDist().cdf(z) if math.isfinite(z) else float(z > 0)


def beta_cdf(x: float, a: float, b: float) -> float:
    """
    The regularised incomplete beta function I_x(a, b), for a, b > 0; x is clipped to [0, 1].

    Source: DLMF 8.17.22 (continued fraction), evaluated by Lentz's method as in Press et al.,
    Numerical Recipes, 3rd edition, section 6.4. Relative error about 1e-12.

    >>> round(beta_cdf(0.5, 2, 3), 6)
    0.6875
    """
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - beta_cdf(1.0 - x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(scale) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1.0 / (_away_from_zero(1.0 - (a + b) * x / (a + 1.0)))
    result = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            result *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return result


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def t_cdf(t: float, degrees: float) -> float:
    """
    P(T <= t) for Student's t with *degrees* > 0 degrees of freedom.

    Source: Abramowitz and Stegun 26.7.1.

    >>> round(t_cdf(2.228139, 10), 6)
    0.975
    """
    if t * t < degrees:
        return 0.5 + math.copysign(0.5, t) * beta_cdf(t * t / (degrees + t * t), 0.5, degrees / 2)
    tail = 0.5 * beta_cdf(degrees / (degrees + t * t), degrees / 2, 0.5)
    return 1.0 - tail if t > 0 else tail


@lru_cache(maxsize=256)
def t_quantile(p: float, degrees: float) -> float:
    """
    The t below which Student's t falls with probability *p* in (0, 1); by bisection on its tail.

    >>> round(t_quantile(0.975, 10), 6)
    2.228139
    """
    if p == 0.5:
        return 0.0
    if p > 0.5:
        return -t_quantile(1.0 - p, degrees)
    low = -1.0
    while t_cdf(low, degrees) > p:
        low *= 2.0
    high = 0.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if t_cdf(middle, degrees) < p else (low, middle)
    return (low + high) / 2


def binomial_at_most(k: int, n: int, p: float) -> float:
    """
    P(X <= k) for X binomial with *n* trials of probability *p*.

    Source: Abramowitz and Stegun 26.5.24.

    >>> round(binomial_at_most(2, 5, 0.5), 6)
    0.5
    """
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    return beta_cdf(1.0 - p, n - k, k + 1)
