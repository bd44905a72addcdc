from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from evals.agreement.kappa import (
    Crosstab,
    Weights,
    ac1,
    alpha,
    base_rates,
    between_people,
    class_errors,
    cohen,
    crosstab,
    kappa_error,
    pabak,
)
from evals.stats import Interval, wilson
from registry.errors import BadInput

TABLE = ((20, 5, 1), (10, 15, 3), (2, 4, 9))


@st.composite
def tables(draw: st.DrawFn) -> Crosstab:
    size = draw(st.integers(2, 4))
    counts = tuple(
        tuple(draw(st.integers(0, 30)) + 6 * (i != j) + 1 for j in range(size)) for i in range(size)
    )
    return Crosstab(tuple("abcd"[:size]), counts)


@given(tables(), st.sampled_from(["none", "linear", "quadratic"]))
def test_kappa_its_error_and_interval_are_those_of_statsmodels(table: Crosstab, weights: Weights) -> None:
    theirs = cohens_kappa(np.array(table.counts), **({} if weights == "none" else {"wt": weights}))
    value, error = kappa_error(table, weights)
    assert (value, error) == pytest.approx((theirs.kappa, theirs.std_kappa), abs=1e-9)
    found = cohen(table, weights)
    low, high = max(theirs.kappa_low, -1), min(theirs.kappa_upp, 1)
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx((value, low, high))


def test_kappa_of_label_lists_is_that_of_sklearn() -> None:
    draw = random.Random(3)
    first = draw.choices("abc", k=200)
    second = [label if draw.random() < 0.7 else draw.choice("abc") for label in first]
    table = crosstab(first, second)
    assert cohen(table).value == pytest.approx(cohen_kappa_score(first, second))
    assert cohen(table, "quadratic").value == pytest.approx(
        cohen_kappa_score(first, second, weights="quadratic")
    )


def test_perfect_agreement_still_has_an_interval_with_width() -> None:
    found = cohen(Crosstab(("bad", "good"), ((10, 0), (0, 10))))
    assert (found.value, found.interval.high) == (1.0, 1.0)
    assert found.interval.low == pytest.approx((wilson(20, 20).low - 0.5) / 0.5)


def test_one_label_for_everything_shows_no_agreement_beyond_chance() -> None:
    found = cohen(Crosstab(("bad", "good"), ((0, 0), (0, 40))))
    assert (found.value, found.interval) == (0.0, Interval(-1.0, 1.0))


def test_kappas_interval_covers_the_true_kappa() -> None:
    shares = [0.35, 0.10, 0.15, 0.40]
    chance = 0.45 * 0.5 + 0.55 * 0.5
    truth = (0.75 - chance) / (1 - chance)
    draw = random.Random(11)
    covered = 0
    for _ in range(1500):
        drawn = draw.choices(range(4), shares, k=100)
        counts = [drawn.count(cell) for cell in range(4)]
        interval = cohen(Crosstab(("bad", "good"), ((counts[0], counts[1]), (counts[2], counts[3])))).interval
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / 1500 <= 0.97


def test_ac1_stays_high_where_kappa_collapses_under_a_rare_class() -> None:
    skewed = Crosstab(("bad", "good"), ((0, 3), (2, 95)))
    assert cohen(skewed).value < 0
    assert ac1(skewed) == pytest.approx((0.95 - 2 * 0.025 * 0.975) / (1 - 2 * 0.025 * 0.975))
    assert pabak(skewed) == pytest.approx(0.9)


def test_base_rates_and_class_errors_count_by_the_first_raters_label() -> None:
    table = Crosstab(("a", "b", "c"), TABLE)
    rates, errors = base_rates(table), class_errors(table)
    assert [rates[name].value for name in "abc"] == [26 / 69, 28 / 69, 15 / 69]
    assert [errors[name].value for name in "abc"] == [6 / 26, 13 / 28, 6 / 15]
    assert errors["b"].interval == wilson(13, 28)


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=3, max_size=3), min_size=2))
def test_alpha_is_one_minus_observed_over_expected_disagreement(cases: list[list[str | None]]) -> None:
    pairs: list[tuple[str, str, float]] = []
    for case in cases:
        kept = [label for label in case if label is not None]
        pairs += [
            (a, b, 1 / (len(kept) - 1)) for i, a in enumerate(kept) for j, b in enumerate(kept) if i != j
        ]
    n = sum(weight for *_, weight in pairs)
    totals = {label: sum(weight for a, _, weight in pairs if a == label) for label in "abc"}
    expected = sum(totals[a] * totals[b] for a in "abc" for b in "abc" if a != b)
    found = alpha(cases)
    if expected < 1e-9:
        assert np.isnan(found)
        return
    observed = sum(weight for a, b, weight in pairs if a != b)
    assert found == pytest.approx(1 - (n - 1) * observed / expected)


def test_people_are_compared_over_the_cases_both_labelled() -> None:
    cases = [{"ann": "good", "bob": "good"}, {"ann": "bad"}, {"bob": "bad", "ann": "bad"}, {"eve": "bad"}]
    found = between_people(cases, ("bad", "good"))
    assert {pair: (one.value, one.n) for pair, one in found.items()} == {"ann/bob": (1.0, 2)}


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [(["a"], [], "the second 0"), ([], [], "none of nothing"), (["a"], ["x"], "'x'")],
)
def test_malformed_labels_are_refused(first: list[str], second: list[str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        crosstab(first, second, ["a", "b"] if first else ())
