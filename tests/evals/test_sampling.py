from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.curate.sampling import Stratum, allocate, choose
from registry.errors import BadInput

SIZES = st.dictionaries(st.sampled_from("abcdefgh").map(lambda c: (c,)), st.integers(1, 500), min_size=1)


@given(SIZES, st.integers(1, 3000))
def test_the_allocation_adds_up_and_takes_no_more_than_there_is(sizes: dict[Stratum, int], n: int) -> None:
    given_ = allocate(sizes, n)
    assert sum(given_.values()) == min(n, sum(sizes.values()))
    assert all(0 <= given_[name] <= size for name, size in sizes.items())
    assert n < len(sizes) or all(given_.values())


@given(SIZES, st.integers(1, 3000))
def test_each_share_is_within_one_of_exact_but_for_the_smallest(sizes: dict[Stratum, int], n: int) -> None:
    total = sum(sizes.values())
    if all(n * size >= total for size in sizes.values()) and n <= total:
        for name, count in allocate(sizes, n).items():
            assert abs(count - n * sizes[name] / total) < 1


@given(st.permutations(list(range(60))), st.integers(1, 80))
def test_the_choice_does_not_depend_on_the_order_of_rows(order: list[int], n: int) -> None:
    def chosen(rows: list[int]) -> set[int]:
        strata: list[Stratum] = [(str(row % 3),) for row in rows]
        return {rows[place] for place in choose([f"r{row}" for row in rows], strata, n)}

    assert chosen(list(range(60))) == chosen(order)


def test_a_larger_sample_of_one_stratum_holds_the_smaller() -> None:
    ids = [f"r{n}" for n in range(100)]
    strata: list[Stratum] = [()] * 100
    assert set(choose(ids, strata, 10)) < set(choose(ids, strata, 30))
    assert choose(ids, strata, 10) != choose(ids, strata, 10, seed="other")
    assert choose(ids, strata, 100) == list(range(100))


def test_strata_keep_their_shares() -> None:
    shares = {"de": 600, "en": 390, "fr": 10}
    strata: list[Stratum] = [(name,) for name, count in shares.items() for _ in range(count)]
    places = choose([f"r{n}" for n in range(1000)], strata, 50)
    assert Counter(strata[place] for place in places) == {("de",): 29, ("en",): 20, ("fr",): 1}


def test_every_row_is_as_likely_as_any_other() -> None:
    strata: list[Stratum] = [()] * 50
    ids = [f"r{n}" for n in range(50)]
    drawn = Counter(place for seed in range(400) for place in choose(ids, strata, 10, seed=str(seed)))
    chi2 = sum((drawn[place] - 80) ** 2 / 80 for place in range(50)) / (1 - 10 / 50)
    assert 23 < chi2 < 85  # chi-square with 49 degrees of freedom: 0.05 % and 99.9 %


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="1 or more"):
        choose(["a"], [()], 0)
