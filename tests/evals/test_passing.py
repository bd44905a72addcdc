from __future__ import annotations

from itertools import combinations
from math import isclose
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.checks import Check
from evals.errors import ScoreFailed
from evals.passing import pass_all_k, pass_at_k, value_of

tries = st.lists(st.booleans(), min_size=1, max_size=9)


@given(tries, st.data())
def test_both_are_the_share_of_all_ways_to_choose_the_tries(right: list[bool], data: st.DataObject) -> None:
    n, k = len(right), data.draw(st.integers(1, len(right)))
    ways = list(combinations(right, k))
    assert isclose(pass_at_k(n, sum(right), k), fmean(any(way) for way in ways), abs_tol=1e-12)
    assert isclose(pass_all_k(n, sum(right), k), fmean(all(way) for way in ways), abs_tol=1e-12)


@given(tries)
def test_with_one_try_both_are_the_mean(right: list[bool]) -> None:
    n, c = len(right), sum(right)
    assert pass_at_k(n, c, 1) == pytest.approx(c / n)
    assert pass_all_k(n, c, 1) == pytest.approx(c / n)


def test_both_are_unbiased() -> None:
    draw, p, k = Random(1), 0.3, 3
    right = [sum(draw.random() < p for _ in range(6)) for _ in range(20_000)]
    assert fmean(pass_at_k(6, c, k) for c in right) == pytest.approx(1 - (1 - p) ** k, abs=0.01)
    assert fmean(pass_all_k(6, c, k) for c in right) == pytest.approx(p**k, abs=0.01)


def test_a_check_says_which_of_them_it_is() -> None:
    scores = [1.0, 0.0, 0.0, 1.0]
    assert value_of(Check("chat", "exact", at_least=0.5), scores) == 0.5
    assert value_of(Check("chat", "exact", at_least=0.5, any_of=2), scores) == pytest.approx(5 / 6)
    assert value_of(Check("chat", "exact", at_least=0.5, all_of=2), scores) == pytest.approx(1 / 6)


def test_what_is_neither_right_nor_wrong_passes_nothing() -> None:
    with pytest.raises(ScoreFailed, match="not_binary"):
        value_of(Check("chat", "token_f1", at_least=0.5, any_of=2), [0.4, 1.0])
