from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from scipy import stats as scipy_stats

from evals.distributions import beta_cdf, binomial_at_most, normal_quantile, t_cdf, t_quantile

shares = st.floats(1e-6, 1 - 1e-6)


@given(shares)
def test_normal_quantile_is_scipys(p: float) -> None:
    assert normal_quantile(p) == pytest.approx(scipy_stats.norm.ppf(p), rel=1e-9, abs=1e-12)


@given(shares, st.integers(1, 5000))
def test_t_quantile_is_scipys(p: float, degrees: int) -> None:
    assert t_quantile(p, degrees) == pytest.approx(scipy_stats.t.ppf(p, degrees), rel=1e-7, abs=1e-9)


@given(st.floats(-50, 50), st.integers(1, 5000))
def test_t_cdf_is_scipys(t: float, degrees: int) -> None:
    assert t_cdf(t, degrees) == pytest.approx(scipy_stats.t.cdf(t, degrees), rel=1e-9, abs=1e-14)


@given(shares, st.floats(0.1, 5000), st.floats(0.1, 5000))
def test_beta_cdf_is_scipys(x: float, a: float, b: float) -> None:
    assert beta_cdf(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-7, abs=1e-12)


@given(st.integers(1, 3000), shares, st.data())
def test_binomial_tail_is_scipys(n: int, p: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(-1, n))
    assert binomial_at_most(k, n, p) == pytest.approx(scipy_stats.binom.cdf(k, n, p), rel=1e-7, abs=1e-11)


def test_a_hundred_thousand_trials_are_still_exact() -> None:
    expected = scipy_stats.binom.cdf(95_100, 100_000, 0.95)
    assert binomial_at_most(95_100, 100_000, 0.95) == pytest.approx(expected, rel=1e-6)
