"""Rights and prices, as the registry's nouns become a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.controlplane.compile import _grant, _prices
from gateway.dataplane.table import Grant, RouteTable, Subject
from registry.entities import ApiKey, Limits, Price

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MINE, TEAM, EACH = Limits(rpm=1), Limits(rpm=2), Limits(rpm=3)


def key(**more: Any) -> ApiKey:
    return ApiKey(
        "key_2", "app", "sk-sg-x", "d", ("support",), NOW, routes=("/v1/*",), account="key_1", **more
    )


@pytest.mark.parametrize(
    ("given", "subjects"),
    [
        (key(), ()),
        (key(limits=MINE), (Subject("key", "key_1", MINE),)),
        (key(team="web"), (Subject("team", "web", TEAM),)),
        (key(team="other", limits=MINE), (Subject("key", "key_1", MINE), Subject("team", "other", EACH))),
    ],
)
def test_a_grant_is_counted_for_its_account_and_its_team(
    given: ApiKey, subjects: tuple[Subject, ...]
) -> None:
    rules = {("team", "web"): TEAM, ("team", "*"): EACH, ("user", "web"): MINE}
    expected = Grant("key_2", ("support",), None, ("/v1/*",), "key_1", given.team, subjects)
    assert _grant(given, rules) == expected


def test_a_team_without_a_rule_is_not_counted() -> None:
    assert _grant(key(team="web"), {}).subjects == ()


def table(*prices: Price) -> RouteTable:
    return RouteTable(prices=_prices(prices))


def price(model: str, at: datetime, amount: int = 1, *, withdrawn: bool = False) -> Price:
    return Price(model, at, amount, amount, withdrawn=withdrawn)


def test_a_model_costs_what_was_set_last_before_the_moment() -> None:
    old, new, corrected = price("a/x", NOW - DAY, 1), price("a/x", NOW, 2), price("a/x", NOW, 3)
    found = table(old, new, corrected)
    moments = (NOW - 2 * DAY, NOW - DAY, NOW - timedelta(microseconds=1), NOW, NOW + DAY)
    assert [found.prices.of("a/x", at) for at in moments] == [None, old, old, corrected, corrected]


def test_its_own_price_wins_and_then_the_longest_pattern() -> None:
    own, short, long = price("a/x", NOW), price("a/*", NOW - DAY, 2), price("a/x*", NOW + DAY, 3)
    found = table(short, own, long)
    later = NOW + DAY
    assert [found.prices.of(model, later) for model in ("a/x", "a/x2", "a/y", "b/x")] == [
        own,
        long,
        short,
        None,
    ]
    assert [found.prices.of(model, NOW) for model in ("a/x", "a/x2")] == [own, short]
    assert found.prices.of("a/x", NOW - DAY) == short


def test_a_withdrawn_price_leaves_the_model_to_its_pattern() -> None:
    gone, pattern = price("a/x", NOW, 0, withdrawn=True), price("a/*", NOW - DAY, 2)
    found = table(price("a/x", NOW - DAY, 1), gone, pattern, price("b/*", NOW, 0, withdrawn=True))
    assert [found.prices.of(model, NOW) for model in ("a/x", "b/x")] == [pattern, None]


def test_what_runs_on_this_machine_is_free_until_a_price_is_set() -> None:
    free = table()
    for model in ("llamacpp/smollm2", "extractive/best-sentence", "minilm/x", "hashing/x"):
        found = free.prices.of(model, NOW)
        assert found is not None
        assert found.cost_microusd(1000, 1000) == 0
    assert [free.prices.of(model, NOW) for model in ("ollama/x", "vllm/x", "openai/x")] == [None, None, None]
    own = price("llamacpp/*", NOW, 5)
    assert table(own).prices.of("llamacpp/x", NOW) == own
