from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.cost import ASSUMED_COMPLETION_TOKENS, Purse, cost_pico, price_of
from evals.errors import CostCapReached
from registry.entities import Price

NOW = datetime(2026, 5, 1, tzinfo=UTC)
PRICE = Price("openai/*", NOW, 10**6, 2 * 10**6)
"""A millionth of a dollar a prompt token, two a completion token."""


def price(model: str, cost: int, *, withdrawn: bool = False) -> Price:
    return Price(model, NOW, cost, cost, withdrawn=withdrawn)


def known(*prices: Price) -> dict[str, Price]:
    return {one.model: one for one in prices}


def test_a_models_own_price_stands_above_patterns_and_longer_ones_above_shorter() -> None:
    prices = known(price("openai/*", 1), price("openai/gpt-*", 2), price("openai/gpt-5", 3), price("*", 4))
    names = ("openai/gpt-5", "openai/gpt-5-mini", "openai/o3", "ollama/x")
    found = [price_of(name, prices) for name in names]
    assert [one.input_picousd for one in found if one] == [3, 2, 1, 4]
    assert price_of("openai/gpt-5", {}) is None


def test_a_price_that_was_withdrawn_leaves_the_next() -> None:
    prices = known(price("openai/*", 1), price("openai/gpt-5", 0, withdrawn=True))
    found = price_of("openai/gpt-5", prices)
    assert found is not None
    assert found.input_picousd == 1


def test_a_call_costs_its_tokens_and_nothing_where_no_price_is_known() -> None:
    assert cost_pico(PRICE, 100, 10) == 120 * 10**6
    assert cost_pico(None, 100, 10) == 0


def test_what_was_spent_is_what_was_settled_and_a_failed_call_is_free() -> None:
    purse = Purse(known(PRICE))

    async def failed() -> None:
        async with purse.hold("openai/gpt-5", 300, None):
            assert purse.held == cost_pico(PRICE, 101, ASSUMED_COMPLETION_TOKENS)
            raise TimeoutError

    async def go() -> None:
        async with purse.hold("openai/gpt-5", 300, 50) as hold:
            assert purse.held == cost_pico(PRICE, 101, 50)
            hold.settle(90, 5)
        with pytest.raises(TimeoutError):
            await failed()
        async with purse.hold("unknown/model", 300, 50) as hold:
            hold.settle(90, 5)

    asyncio.run(go())
    assert (purse.spent, purse.held, purse.unpriced) == (100 * 10**6, 0, 1)
    assert purse.spent_usd == pytest.approx(0.0001)


@given(
    st.integers(1, 60),
    st.integers(1, 12),
    st.floats(0.0001, 0.005),
    st.lists(st.integers(0, 100), min_size=60, max_size=60),
)
def test_the_cap_holds_whatever_the_calls_cost_and_none_that_fits_is_refused(
    calls: int, at_once: int, cap_usd: float, tokens: list[int]
) -> None:
    """Each holds 100 + 100 tokens at most and uses some of them."""
    purse = Purse(known(PRICE), cap_usd)
    most = cost_pico(PRICE, 100, 100)
    refused = 0

    async def call(at: int, slots: asyncio.Semaphore) -> None:
        nonlocal refused
        async with slots:
            try:
                async with purse.hold("openai/gpt-5", 297, 100) as hold:
                    assert purse.spent + purse.held <= cap_usd * 10**12
                    await asyncio.sleep(0)
                    hold.settle(tokens[at], tokens[at])
            except CostCapReached:
                refused += 1
                assert purse.spent + most > cap_usd * 10**12

    async def go() -> None:
        slots = asyncio.Semaphore(at_once)
        await asyncio.gather(*(call(at, slots) for at in range(calls)))

    asyncio.run(go())
    assert purse.held == 0
    assert purse.spent <= cap_usd * 10**12
    if calls * most <= cap_usd * 10**12:
        assert refused == 0


def test_a_call_that_is_cancelled_while_it_waits_holds_nothing() -> None:
    purse = Purse(known(PRICE), 0.0004)

    async def go() -> None:
        async with purse.hold("openai/gpt-5", 297, 100) as hold:
            waiting = asyncio.ensure_future(_spend(purse))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            hold.settle(1, 1)
        await _spend(purse)

    asyncio.run(go())
    assert (purse.held, purse.spent) == (0, 6 * 10**6)


def test_the_cap_is_told_with_what_was_spent_and_what_to_do() -> None:
    with pytest.raises(CostCapReached, match=r"\$0\.0000 of at most \$0\.0001.*raise --max-cost"):
        asyncio.run(_spend(Purse(known(PRICE), 0.0001)))


async def _spend(purse: Purse) -> None:
    async with purse.hold("openai/gpt-5", 297, 100) as hold:
        hold.settle(1, 1)
