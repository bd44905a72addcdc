from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import spearmanr

from evals.agreement.length import rank_correlation
from evals.agreement.ranking import Match, bradley_terry, position, ranking, win_rate
from registry.errors import BadInput

NAMES = "abcd"


def played(draw: random.Random, n: int, strengths: dict[str, float]) -> list[Match]:
    found = []
    for at in range(n):
        first, second = draw.sample(sorted(strengths), 2)
        chance = 1 / (1 + math.exp(strengths[second] - strengths[first]))
        value = 0.5 if draw.random() < 0.15 else float(draw.random() < chance)
        found.append(Match(str(at), first, second, value))
    return found


@given(st.integers(0, 50))
def test_strengths_are_the_most_likely_ones(seed: int) -> None:
    matches = played(random.Random(seed), 120, {"a": 0.8, "b": 0.2, "c": 0.0, "d": -0.6})

    def loss(free: np.ndarray) -> float:
        strengths = dict(zip(NAMES, [0.0, *free], strict=True))
        gaps = [(m.value, strengths[m.first] - strengths[m.second]) for m in matches]
        return float(sum(np.logaddexp(0, -gap) * v + np.logaddexp(0, gap) * (1 - v) for v, gap in gaps))

    best = minimize(loss, np.zeros(3), method="BFGS").x
    theirs = np.array([0.0, *best])
    found = bradley_terry(matches)
    assert [found[name] for name in NAMES] == pytest.approx(list(theirs - theirs.mean()), abs=2e-3)


def test_who_never_lost_has_no_most_likely_strength_and_a_prior_gives_one() -> None:
    matches = [Match(str(i), "a", "b", 1.0) for i in range(5)]
    with pytest.raises(BadInput, match="never lost"):
        bradley_terry(matches)
    found = bradley_terry(matches, prior=1.0)
    assert found["a"] - found["b"] == pytest.approx(math.log(5.5 / 0.5))


def test_the_ranking_holds_the_true_strengths() -> None:
    truth = {"a": 0.7, "b": 0.0, "c": -0.7}
    held, rounds = 0, 40
    for seed in range(rounds):
        found = ranking(played(random.Random(seed), 150, truth), resamples=100, seed=seed)
        best = next(one for one in found if one.name == "a")
        shrunk = 0.7 * 0.85  # ties at random pull strengths together by their share
        held += best.interval.low <= shrunk <= best.interval.high
    assert held >= 0.85 * rounds


def test_the_ranking_is_ordered_counts_ties_half_and_repeats_itself() -> None:
    matches = [Match("1", "a", "b", 1), Match("2", "b", "a", 0.5), Match("3", "a", "b", 1)]
    found = ranking(matches, resamples=50)
    assert [(one.name, one.wins, one.matches) for one in found] == [("a", 2.5, 3), ("b", 0.5, 3)]
    assert found == ranking(matches, resamples=50)


def test_a_win_rate_counts_cases_not_matches() -> None:
    matches = [Match("1", "a", "b", 1.0)] * 9 + [Match("2", "b", "a", 1.0)]
    assert (win_rate(matches, "a").value, win_rate(matches, "a").n) == (0.5, 2)
    with pytest.raises(BadInput, match="no match"):
        win_rate(matches, "z")


def test_position_tells_consistency_and_who_gains_from_the_order() -> None:
    found = position([("first", "first")] * 6 + [("first", "second")] * 3 + [("second", "first")])
    assert (found.consistent.value, found.consistent.n) == (0.6, 10)
    assert (found.favours_first.value, found.favours_first.n) == (0.75, 4)


@given(
    st.lists(
        st.tuples(st.integers(-2, 2), st.integers(0, 9)),
        min_size=5,
        max_size=60,
    )
)
def test_rank_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    first, second = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    found = rank_correlation(first, second)
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert found is None
        return
    assert found is not None
    assert found.value == pytest.approx(spearmanr(first, second).statistic)
    assert -1 <= found.interval.low <= found.value <= found.interval.high <= 1


def test_a_match_needs_two_systems_and_a_value_in_range() -> None:
    with pytest.raises(BadInput, match="itself"):
        Match("1", "a", "a", 1.0)
    with pytest.raises(BadInput, match="0 to 1"):
        Match("1", "a", "b", 1.5)
