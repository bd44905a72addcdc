"""What the registry does is what webhooks are told, in the same transaction."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from registry import approvals, evaluations, promotion, tables, webhooks
from registry.entities import GatePolicy
from registry.errors import PromotionRefused
from registry.ids import digest
from registry.refs import parse_ref

from .conftest import NOW, House


@pytest.fixture
def told(house: House) -> Any:
    """Reads what was put in the outbox since the last look, as (event, data)."""
    with house.workspace.writing() as connection:
        webhooks.add(connection, "https://ci.example/hook", ["*"], actor="ann", now=NOW)
    seen: set[str] = set()

    def look() -> dict[str, Any]:
        table = tables.webhook_deliveries
        with house.workspace.reading() as connection:
            rows = connection.execute(select(table.c.id, table.c.event, table.c.body)).all()
        fresh = [row for row in rows if row[0] not in seen]
        seen.update(row[0] for row in fresh)
        assert len({row[1] for row in fresh}) == len(fresh)
        return {row[1]: json.loads(row[2])["data"] for row in fresh}

    return look


def test_every_event_is_told_with_its_digests(house: House, told: Any) -> None:
    release = house.release()
    version = {"name": "support", "number": 1}
    first = told()
    assert first["version.push"] == {**version, "kind": "release", "digest": release.digest, "by": "ann"}
    move = {
        **version, "alias": "candidate", "generation": 1, "action": "create", "by": "ann", "from": None,
        "to": release.digest, "reason": "created", "evidence": [],
    }  # fmt: skip
    assert first["alias.create"] == move
    envelope = house.evidence(release)
    proof = {
        "evidence": digest(envelope), "release_name": "support", "release": release.digest,
        "suite": "quality", "dataset": "q", "verdict": "pass", "samples": 40, "by": "ci",
    }  # fmt: skip
    assert told() == {"evidence.file": proof}
    with house.workspace.writing() as connection:
        approvals.give(
            connection, release, "production", terms=GatePolicy(), comment="private", actor="bob", now=NOW
        )
    approval = {"name": "support", "release": release.digest, "alias": "production", "by": "bob"}
    assert told() == {"approval.give": approval}
    house.promote()
    promoted = {
        **move, "alias": "production", "action": "promote", "reason": "test", "evidence": [digest(envelope)],
    }  # fmt: skip
    assert told() == {"alias.promote": promoted}
    with house.workspace.writing() as connection:
        evaluations.withdraw(connection, digest(envelope), reason="wrong data", actor="eve", now=NOW)
        approvals.withdraw(connection, release, "production", actor="bob", now=NOW)
    assert told() == {
        "evidence.withdraw": {**proof, "by": "eve", "reason": "wrong data"},
        "approval.withdraw": approval,
    }


def test_rollback_and_broken_glass_are_told_apart(house: House, told: Any) -> None:
    house.evidence(house.release("openai/one"))
    house.promote()
    house.release("openai/two")
    with house.workspace.writing() as connection:
        promotion.break_glass(
            connection,
            house.workspace.artifacts,
            parse_ref("support@candidate"),
            "production",
            actor="root",
            reason="the old one tells secrets",
            now=NOW + timedelta(minutes=2),
        )
    house.rollback()
    with house.workspace.reading() as connection:
        events = [one["event"] for one in webhooks.deliveries(connection)]
    assert (events.count("alias.break-glass"), events.count("alias.rollback")) == (1, 1)


def test_what_is_refused_or_was_there_before_is_not_told(house: House, told: Any) -> None:
    release = house.release()
    told()
    with pytest.raises(PromotionRefused):
        house.promote()
    assert house.release() == release
    assert told() == {}
