from __future__ import annotations

import pytest
from sqlalchemy import update

from registry import accounts, limits, prices, snapshot, tables
from registry.entities import LimitRule, Limits, Price
from registry.errors import RecordTampered
from registry.workspace import Workspace

from .conftest import NOW, House


def test_a_snapshot_holds_keys_limits_and_prices_of_one_revision(workspace: Workspace) -> None:
    rule, price = LimitRule("team", "web", Limits(rpm=5)), Price("openai/x", NOW, 1, 2, 0)
    with workspace.writing() as connection:
        key, _ = accounts.create_key(connection, "app", team="web", limits=Limits(tpm=9), now=NOW)
        limits.set_rule(connection, rule)
        prices.set_price(connection, price, actor="ann", now=NOW)
    with workspace.reading() as connection:
        read = snapshot.read(connection)
    assert (read.keys, read.limits, read.prices, read.revision) == ((key,), (rule,), (price,), 4)


def test_an_alias_that_was_moved_behind_the_registry_is_not_followed(house: House) -> None:
    first = house.release("openai/one")
    house.evidence(first)
    house.promote()
    second = house.release("openai/two")
    with house.workspace.writing() as connection:
        where = tables.aliases.c.alias == "production"
        connection.execute(update(tables.aliases).where(where).values(digest=second.digest))
    with house.workspace.reading() as connection, pytest.raises(RecordTampered, match="support@production"):
        snapshot.read(connection)
