"""Who may share an alias's traffic, on what evidence, and what ends it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from registry import audit, audit_verify, collect, snapshot, splits, tables
from registry.entities import Arm, Shadow, Split, Version
from registry.entities.splits import percent, share_of
from registry.errors import BadInput, EvidenceMissing, NotFound, PromotionRefused, RecordTampered
from registry.refs import parse_ref

from .conftest import NOW, House

LATER = NOW + timedelta(minutes=2)


@pytest.fixture
def base(house: House) -> Version:
    """A release in production."""
    version = house.release("openai/one")
    house.evidence(version)
    house.promote()
    return version


def put(house: House, *arms: tuple[str, int], alias: str = "production", **more: Any) -> Split:
    with house.workspace.writing() as connection:
        return splits.put(
            connection, house.workspace.artifacts, "support", alias,
            arms=[(parse_ref(ref), share) for ref, share in arms], actor="ann", reason="canary", now=LATER,
            **more,
        )  # fmt: skip


def proven(house: House, base: Version, model: str = "openai/two") -> Version:
    version = house.release(model)
    house.evidence(version, baseline=base)
    return version


def in_snapshot(house: House) -> tuple[Split, ...]:
    with house.workspace.reading() as connection:
        return snapshot.read(connection).splits


def test_an_arm_needs_what_a_promotion_needs(house: House, base: Version) -> None:
    second = house.release("openai/two")
    with pytest.raises(PromotionRefused):
        put(house, ("support@candidate", 1000))
    assert in_snapshot(house) == ()
    envelope = house.evidence(second, baseline=base)
    split = put(house, ("support@candidate", 1000))
    assert split.arms == (Arm("candidate", second.digest, 1000),)
    assert (split.base, split.rest, len(split.evidence)) == (base.digest, 9000, 1)
    assert envelope
    assert in_snapshot(house) == (split,)


def test_a_failed_verdict_lets_no_arm_in(house: House, base: Version) -> None:
    second = house.release("openai/two")
    house.evidence(second, baseline=base, verdict="fail")
    with pytest.raises(PromotionRefused):
        put(house, ("support@candidate", 1))


def test_a_shadow_answers_nobody_and_needs_no_evidence(house: House, base: Version) -> None:
    second = house.release("openai/two")
    split = put(house, shadow=(parse_ref("support@candidate"), 2500, 5_000_000))
    assert split.shadow == Shadow(second.digest, 2500, 5_000_000)
    assert (split.arms, split.evidence, split.base) == ((), (), base.digest)
    with house.workspace.reading() as connection:
        read = snapshot.read(connection)
    assert {release.version.digest for release in read.releases} == {base.digest, second.digest}


@pytest.mark.parametrize("move", ["promote", "rollback"])
def test_every_move_of_the_alias_ends_its_split(house: House, base: Version, move: str) -> None:
    second = proven(house, base)
    house.promote()
    third = house.release("openai/three")
    house.evidence(third, baseline=second)
    put(house, ("support@candidate", 500))
    if move == "promote":
        house.promote()
    else:
        house.rollback()
    assert in_snapshot(house) == ()
    with house.workspace.reading() as connection:
        record = audit.newest(connection, "split/support@production")
    assert record is not None
    assert record["action"] == "split.end"
    assert f"the alias moved: {move}" in record["body"]
    assert house.problems() == []


def test_a_split_replaces_the_one_before_and_can_be_ended_once(house: House, base: Version) -> None:
    proven(house, base)
    put(house, ("support@candidate", 500))
    second = put(house, ("support@candidate", 2500), sticky="session")
    assert in_snapshot(house) == (second,)
    with house.workspace.writing() as connection:
        assert (
            splits.end(connection, "support", "production", actor="bob", reason="slow", now=LATER) == second
        )
        assert splits.end(connection, "support", "production", actor="bob", reason="slow", now=LATER) is None
    assert in_snapshot(house) == ()
    with house.workspace.reading() as connection:
        assert audit_verify.verify(connection)["ok"]


def test_a_split_changed_behind_the_registry_is_not_followed(house: House, base: Version) -> None:
    proven(house, base)
    put(house, ("support@candidate", 500))
    with house.workspace.writing() as connection:
        row = connection.execute(tables.splits.select()).mappings().one()
        grown = row["content"].replace(",500]", ",9500]")
        assert grown != row["content"]
        connection.execute(update(tables.splits).values(content=grown))
    with house.workspace.reading() as connection:
        with pytest.raises(RecordTampered, match="split/support@production"):
            snapshot.read(connection)
        report = audit_verify.verify(connection)
    assert [one["where"] for one in report["problems"]] == ["split/support@production"]


def test_collection_keeps_what_shares_traffic(house: House, base: Version) -> None:
    second = house.release("openai/two")
    put(house, shadow=(parse_ref("support@candidate"), 10_000, None))
    for number in range(3):
        house.release(f"openai/later-{number}")
    workspace = house.workspace
    collect.collect(
        workspace.reading, lambda: _acting(house), workspace.artifacts, now=NOW + timedelta(days=99),
        keep_days=1, keep_newest=1,
    )  # fmt: skip
    with workspace.reading() as connection:
        read = snapshot.read(connection)
    assert read.broken == {}
    assert {second.digest, base.digest} <= {release.version.digest for release in read.releases}


def _acting(house: House) -> Any:
    return house.workspace.acting("registry.collect")


@pytest.mark.parametrize(
    ("arms", "more", "says"),
    [
        ((), {}, "at least one arm or a shadow"),
        ((("support:1", 100),), {}, "not different releases"),
        ((("support@candidate", 10_000),), {}, "percent is not 0.01 to 99.99"),
        ((("support@candidate", 0),), {}, "percent is not 0.01"),
        ((("support@candidate", 5000), ("support:2", 100)), {}, "not different releases"),
        ((("other:1", 100),), {}, "another release"),
    ],
)
def test_what_is_no_split_is_refused(
    house: House, base: Version, arms: tuple[tuple[str, int], ...], more: dict[str, Any], says: str
) -> None:
    proven(house, base)
    with pytest.raises(BadInput, match=says):
        put(house, *arms, **more)
    assert in_snapshot(house) == ()


def test_arms_leave_something_to_the_alias(house: House, base: Version) -> None:
    proven(house, base)
    third = house.release("openai/three")
    house.evidence(third, baseline=base)
    with pytest.raises(BadInput, match="leave some to the alias"):
        put(house, ("support:2", 6000), ("support:3", 4000))


def test_what_points_nowhere_cannot_be_shared(house: House) -> None:
    house.release("openai/one")
    with pytest.raises(NotFound, match="points at no release yet"):
        put(house, ("support@candidate", 100))
    with pytest.raises(BadInput, match="moves when a release is created"):
        put(house, ("support:1", 100), alias="candidate")


def test_evidence_for_other_bytes_is_none(house: House, base: Version) -> None:
    proven(house, base)
    house.release("openai/three")
    with pytest.raises((EvidenceMissing, PromotionRefused)):
        put(house, ("support@candidate", 100))


@given(st.integers(1, 10_000))
def test_shares_survive_being_written_as_percent(share: int) -> None:
    assert share_of(percent(share), "arm") == share


@pytest.mark.parametrize("text", ["", "ten", "-1", "1.234", "1e1", "0x1", "١"])
def test_what_is_no_percent_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is not a number of percent"):
        share_of(text, "arm")
