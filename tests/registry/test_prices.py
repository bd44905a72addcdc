from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from registry import db, prices
from registry.entities import Price
from registry.errors import BadInput
from registry.workspace import Workspace

from .conftest import NOW

DAY = timedelta(days=1)


def price(model: str, at: datetime, amount: int = 1, **more: Any) -> Price:
    return Price(model, at, amount, amount, **more)


@given(st.integers(0, 10_000 * 10**6))
def test_every_price_that_can_be_kept_is_kept_exactly(picousd: int) -> None:
    assert prices.picousd(prices.per_million(picousd), "input") == picousd
    assert Decimal(prices.dollars(picousd)) == Decimal(picousd) / 10**6


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "cheap",
        "-1",
        "10000.000001",
        "0.0000001",
        "nan",
        "inf",
        "1e-7",
        "0.15" + "0" * 60 + "1",
        "1e-9999999",
    ],
)
def test_an_amount_that_cannot_be_kept_is_refused(wrong: str) -> None:
    with pytest.raises(BadInput, match=r"^--input: "):
        prices.picousd(wrong, "--input")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**9))
def test_cost_is_rounded_up_and_never_more_than_a_micro_dollar_off(
    prompt: int, completion: int, cached: int, picousd: int
) -> None:
    cached = min(cached, prompt)
    one = Price("openai/x", NOW, picousd, 2 * picousd, picousd // 2)
    exact = ((prompt - cached) * picousd + cached * (picousd // 2) + 2 * completion * picousd) / Decimal(
        10**6
    )
    assert 0 <= one.cost_microusd(prompt, completion, cached) - exact < 1


def test_a_price_is_superseded_and_never_changed(workspace: Workspace) -> None:
    first, second = price("openai/x", NOW, 1), price("openai/x", NOW, 2)
    later = price("openai/x", NOW + DAY, 3)
    with workspace.writing() as connection:
        before = db.revision(connection)
        order = (first, first, later, second, second)
        stored = [prices.set_price(connection, one, actor="ann", now=NOW) for one in order]
        assert stored == [True, False, True, True, False]
        assert prices.list_prices(connection) == [first, second, later]
        assert db.revision(connection) == before + 3
        rows = connection.execute(text("SELECT created_by, created_at FROM prices")).all()
        assert {tuple(row) for row in rows} == {("ann", "2026-03-01T12:00:00.000000Z")}


def test_the_price_of_a_moment_is_the_last_one_before_it(workspace: Workspace) -> None:
    old, new = price("openai/x", NOW - DAY, 1), price("openai/x", NOW, 2)
    pattern, gone = price("ollama/*", NOW, 0), Price("ollama/*", NOW + DAY, 0, 0, withdrawn=True)
    with workspace.writing() as connection:
        for one in (new, old, gone, pattern):
            prices.set_price(connection, one, actor="ann", now=NOW)
        found = prices.list_prices(connection)
    moments = (NOW - 2 * DAY, NOW - DAY, NOW, NOW + DAY)
    assert [prices.current(found, at) for at in moments] == [[], [old], [pattern, new], [new]]


@pytest.mark.parametrize("model", ["gpt-4o", "openai/", "/gpt-4o", "*", "open*/x", "openai/" + "x" * 200])
def test_a_price_is_for_a_model_of_a_provider(workspace: Workspace, model: str) -> None:
    with pytest.raises(BadInput, match="is not provider/model"), workspace.writing() as connection:
        prices.set_price(connection, price(model, NOW), actor="ann", now=NOW)


@pytest.mark.parametrize("wrong", [{"amount": -1}, {"cached_input_picousd": -1}, {"withdrawn": True}])
def test_a_price_that_means_nothing_cannot_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        price("openai/x", NOW, **wrong)
