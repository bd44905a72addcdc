"""Who is let in when there is no room for all."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.admission import Admission
from gateway.errors import Overloaded


def entered(admission: Admission, tenants: str) -> str:
    """The tenants that were let in, in order."""
    inside = ""
    for tenant in tenants:
        try:
            admission.enter(tenant)
        except Overloaded:
            continue
        inside += tenant
    return inside


def within_a_loop(check: object) -> None:
    async def run() -> None:
        check()  # type: ignore[operator]

    asyncio.run(run())


def test_no_more_than_the_bound_are_in_flight() -> None:
    def check() -> None:
        admission = Admission(3, 1.0)
        assert entered(admission, "aaaaa") == "aaa"
        assert admission.refused == 2
        admission.leave("a")
        assert entered(admission, "aa") == "a"
        assert admission.in_flight == 3

    within_a_loop(check)


def test_a_tenant_below_half_its_share_is_let_in_when_it_is_full() -> None:
    def check() -> None:
        admission = Admission(8, 1.0)
        assert entered(admission, "a" * 20) == "a" * 8
        assert entered(admission, "bbbbbb") == "bbb"
        assert entered(admission, "c") == "c"
        assert entered(admission, "a") == ""

    within_a_loop(check)


def test_even_new_tenants_are_bounded() -> None:
    def check() -> None:
        admission = Admission(4, 1.0)
        tenants = "abcdefghijklmnop"
        assert len(entered(admission, tenants * 4)) <= 8

    within_a_loop(check)


def measure(admission: Admission, turns: list[tuple[float, int]], every_s: float = 0.01) -> None:
    for number, (lag_s, arrivals) in enumerate(turns):
        admission.measured(lag_s, arrivals, 100 + number * every_s)


def test_a_burst_is_no_overload() -> None:
    def check() -> None:
        admission = Admission(1000, 0.01)
        for _ in range(3):
            entered(admission, "a" * 256)
            measure(admission, [(0.04, 100)] * 5)
            assert not admission.overloaded
            measure(admission, [(0.001, 3)])
            for _ in range(256):
                admission.leave("a")

    within_a_loop(check)


def test_long_turns_that_arrivals_cause_lower_the_limit_in_proportion() -> None:
    def check() -> None:
        admission = Admission(1000, 0.01)
        entered(admission, "a" * 400)
        measure(admission, [(0.02, 100)])
        assert admission.limit == 200
        measure(admission, [(0.02, 100)] * 20)
        assert admission.limit == 8
        with pytest.raises(Overloaded):
            admission.enter("a")

    within_a_loop(check)


def test_long_turns_with_few_arrivals_refuse_nobody_until_they_are_far_too_long() -> None:
    def check() -> None:
        admission = Admission(1000, 0.01)
        entered(admission, "a" * 300)
        measure(admission, [(0.05, 2)] * 50)
        assert not admission.overloaded
        entered(admission, "a" * 300)
        measure(admission, [(0.2, 2)])
        assert admission.overloaded

    within_a_loop(check)


def test_the_limit_rises_again_when_turns_are_short() -> None:
    def check() -> None:
        admission = Admission(1000, 0.01)
        entered(admission, "a" * 300)
        measure(admission, [(0.05, 100)] * 5)
        low = admission.limit
        assert low < 40
        measure(admission, [(0.001, 100)])
        assert admission.limit == low * 1.05 + 1
        for _ in range(300):
            admission.leave("a")
        admission.measured(0.001, 1, 1000)
        assert admission.limit == 2 * (low * 1.05 + 1)
        for second in range(10):
            admission.measured(0.001, 1, 1001 + second)
        assert not admission.overloaded

    within_a_loop(check)


def test_turns_of_the_loop_are_measured() -> None:
    async def check() -> None:
        admission = Admission(10, 1.0)
        admission.enter("a")
        for _ in range(4):
            await asyncio.sleep(0)
        assert 0 < admission.lag_s < 1

    asyncio.run(check())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.integers(1, 6))
def test_what_enters_and_leaves_is_counted(moves: list[tuple[str, bool]], bound: int) -> None:
    def check() -> None:
        admission = Admission(bound, 1.0)
        inside: list[str] = []
        for tenant, enters in moves:
            if enters:
                inside += entered(admission, tenant)
            elif tenant in inside:
                inside.remove(tenant)
                admission.leave(tenant)
            assert admission.in_flight == len(inside) <= 2 * bound
        for tenant in inside:
            admission.leave(tenant)
        assert admission.in_flight == 0

    within_a_loop(check)


def test_bursts_with_a_pause_between_are_not_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("gateway.dataplane.admission.monotonic", lambda: now[0])

    async def check() -> None:
        admission = Admission(1000, 0.003)
        for _ in range(5):
            entered(admission, "a" * 200)
            await asyncio.sleep(0)
            now[0] += 0.05  # one long turn
            await asyncio.sleep(0)
            assert (admission.lag_s > 0.04, admission.overloaded) == (True, False)
            for _ in range(200):
                admission.leave("a")
            now[0] += 0.6

    asyncio.run(check())
