"""What repetitions of one sample say of several tries: pass@k and pass^k."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from evals.checks import Check
from evals.errors import ScoreFailed


def pass_at_k(n: int, c: int, k: int) -> float:
    """
    The chance that at least one of *k* tries is right, when *c* of *n* were; unbiased, in [0, 1].

        1 - C(n-c, k) / C(n, k)

    Source: Chen et al. 2021, arXiv 2107.03374, section 2.1.

    >>> round(pass_at_k(5, 2, 2), 2)
    0.7
    """
    return 1.0 - comb(n - c, k) / comb(n, k)


def pass_all_k(n: int, c: int, k: int) -> float:
    """
    The chance that all of *k* tries are right, when *c* of *n* were; unbiased, in [0, 1].

        C(c, k) / C(n, k)

    Source: Yao et al. 2024, arXiv 2406.12045, section 3 (pass^k).

    >>> round(pass_all_k(5, 3, 2), 2)
    0.3
    """
    return comb(c, k) / comb(n, k)


def value_of(check: Check, scores: Sequence[float]) -> float:
    """
    What a sample's repetitions are worth to *check*: their mean, pass@k or pass^k.

    Raises:
        ScoreFailed: a score is neither 0 nor 1, so that no try is right or wrong.
    """
    k = check.any_of or check.all_of
    if k is None:
        return sum(scores) / len(scores)
    if any(score not in (0.0, 1.0) for score in scores):
        raise ScoreFailed("not_binary")
    right = round(sum(scores))
    return pass_at_k(len(scores), right, k) if check.any_of else pass_all_k(len(scores), right, k)
