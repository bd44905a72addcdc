from __future__ import annotations

from registry import accounts, limits, prices, snapshot
from registry.entities import LimitRule, Limits, Price
from registry.workspace import Workspace

from .conftest import NOW


def test_a_snapshot_holds_keys_limits_and_prices_of_one_revision(workspace: Workspace) -> None:
    rule, price = LimitRule("team", "web", Limits(rpm=5)), Price("openai/x", NOW, 1, 2, 0)
    with workspace.writing() as connection:
        key, _ = accounts.create_key(connection, "app", team="web", limits=Limits(tpm=9), now=NOW)
        limits.set_rule(connection, rule)
        prices.set_price(connection, price, actor="ann", now=NOW)
    with workspace.reading() as connection:
        read = snapshot.read(connection)
    assert (read.keys, read.limits, read.prices, read.revision) == ((key,), (rule,), (price,), 4)
