from __future__ import annotations

import base64
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import update

from registry import evidence, history, policies, promotion, releases, snapshot, suites, tables
from registry.entities import GatePolicy, Version
from registry.errors import (
    AliasMoved,
    BadInput,
    EvidenceExpired,
    EvidenceMismatch,
    EvidenceMissing,
    EvidenceTampered,
    EvidenceUntrusted,
    GateNotPassed,
    NothingToRollBack,
    PromotionRefused,
    VersionTampered,
)
from registry.ids import digest
from registry.policies import PolicyFile
from registry.refs import parse_ref
from registry.signing import key_id

from .conftest import NOW, House


def test_without_evidence_the_alias_does_not_move(house: House) -> None:
    house.release()
    with pytest.raises(EvidenceMissing):
        house.promote()
    assert house.production() is None


def test_passing_evidence_moves_the_alias_and_history_says_who_when_and_why(house: House) -> None:
    release = house.release()
    envelope = house.evidence(release)
    move = house.promote()
    assert move is not None
    assert (move.from_digest, move.to_digest, move.actor, move.reason, move.evidence) == (
        None,
        release.digest,
        "ann",
        "test",
        (digest(envelope),),
    )
    assert house.production() == release.digest
    assert house.problems() == []


def test_promoting_again_changes_nothing(house: House) -> None:
    house.evidence(house.release())
    house.promote()
    with house.workspace.reading() as connection:
        before = snapshot.read(connection)
    assert house.promote() is None
    with house.workspace.reading() as connection:
        assert snapshot.read(connection) == before


def test_evidence_for_another_digest_is_refused(house: House) -> None:
    house.evidence(house.release("openai/one"))
    house.release("openai/two")
    with pytest.raises(EvidenceMismatch, match="not for"):
        house.promote()


@pytest.mark.parametrize("field", ["samples", "verdict", "validUntil"])
def test_edited_evidence_is_refused(house: House, field: str) -> None:
    envelope = house.evidence(house.release(), verdict="fail", file=False)
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["predicate"][field] = {
        "samples": 10**6,
        "verdict": "pass",
        "validUntil": "2099-01-01T00:00:00Z",
    }[field]
    edited = {**envelope, "payload": base64.b64encode(json.dumps(statement).encode()).decode()}
    with pytest.raises(EvidenceTampered):
        house.promote(envelopes=[(digest(edited), edited)])
    assert house.production() is None


def test_an_envelope_edited_in_the_database_is_refused(house: House) -> None:
    house.evidence(house.release())
    with house.workspace.writing() as connection:
        table = tables.evidence
        text = connection.execute(table.select()).mappings().one()["envelope"]
        envelope = json.loads(text)
        envelope["signatures"].append({"keyid": "sha256:other", "sig": ""})
        connection.execute(update(table).values(envelope=json.dumps(envelope)))
    with pytest.raises(EvidenceTampered):
        house.promote()


@pytest.mark.parametrize(
    "envelope",
    [
        {},
        {"payloadType": "x", "payload": "", "signatures": [1]},
        {"payloadType": evidence.PAYLOAD_TYPE, "signatures": [{}]},
    ],
)
def test_what_is_no_envelope_is_refused(house: House, envelope: dict[str, Any]) -> None:
    house.release()
    with pytest.raises(EvidenceTampered):
        house.promote(envelopes=[(digest(envelope), envelope)])


def test_foreign_evidence_is_refused(house: House) -> None:
    house.evidence(house.release(), key=Ed25519PrivateKey.generate())
    with pytest.raises(EvidenceUntrusted, match="not trusted"):
        house.promote()


def test_evidence_of_a_revoked_key_is_refused(house: House) -> None:
    house.evidence(house.release())
    with house.workspace.writing() as connection:
        evidence.revoke(connection, key_id(house.key.public_key()), actor="ann", now=NOW)
    with pytest.raises(EvidenceUntrusted, match="revoked"):
        house.promote()


@pytest.mark.parametrize("at", [timedelta(hours=24), timedelta(days=400), timedelta(seconds=-1)])
def test_evidence_outside_its_window_is_refused(house: House, at: timedelta) -> None:
    house.evidence(house.release(), valid_hours=24)
    with pytest.raises(EvidenceExpired):
        house.promote(now=NOW + at)


def test_evidence_older_than_the_gate_policy_allows_is_refused(house: House) -> None:
    file = PolicyFile(kind="gate", name="support", gate=GatePolicy(max_age_hours=1.0))
    with house.workspace.writing() as connection:
        policies.push(connection, file, actor="ann", now=NOW)
    house.evidence(house.release())
    house.promote(now=NOW + timedelta(minutes=59))
    house.evidence(house.release("openai/two"), baseline=house.release("openai/one"))
    house.release("openai/two")
    with pytest.raises(EvidenceExpired):
        house.promote(now=NOW + timedelta(minutes=61))


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_a_verdict_that_is_not_pass_is_refused(house: House, verdict: Any) -> None:
    house.evidence(house.release(), verdict=verdict)
    with pytest.raises(GateNotPassed, match=verdict):
        house.promote()


def test_a_later_failure_is_not_outvoted_by_an_earlier_pass(house: House) -> None:
    release = house.release()
    house.evidence(release, verdict="pass")
    house.now += timedelta(seconds=1)
    house.evidence(release, verdict="fail")
    with pytest.raises(GateNotPassed):
        house.promote()


def test_a_suite_that_the_gate_policy_requires_must_have_passed(house: House) -> None:
    file = PolicyFile(kind="gate", name="support", gate=GatePolicy(suites=("quality", "safety")))
    with house.workspace.writing() as connection:
        policies.push(connection, file, actor="ann", now=NOW)
    house.evidence(house.release())
    with pytest.raises(EvidenceMissing, match="safety"):
        house.promote()


def test_a_gate_policy_changed_after_the_run_voids_its_evidence(house: House) -> None:
    house.evidence(house.release())
    file = PolicyFile(kind="gate", name="support", gate=GatePolicy(suites=("quality",)))
    with house.workspace.writing() as connection:
        policies.push(connection, file, actor="ann", now=NOW)
    with pytest.raises(EvidenceMismatch, match="gate policy"):
        house.promote()


def test_a_suite_changed_after_the_run_voids_its_evidence(house: House) -> None:
    house.evidence(house.release())
    changed = {"dataset": house.dataset.digest, "checks": ["stricter"]}
    with house.workspace.writing() as connection:
        suites.push(connection, "quality", changed, actor="ann", now=NOW)
    with pytest.raises(EvidenceMismatch, match="suite quality"):
        house.promote()


def test_evidence_must_be_measured_against_the_present_production(house: House) -> None:
    first = house.release("openai/one")
    house.evidence(first)
    house.promote()
    second = house.release("openai/two")
    house.evidence(second)
    with pytest.raises(EvidenceMismatch, match="present production"):
        house.promote()
    house.now += timedelta(seconds=1)
    house.evidence(second, baseline=first)
    assert house.promote() is not None


def test_a_release_edited_behind_the_api_is_refused(house: House) -> None:
    house.evidence(house.release())
    table = tables.versions
    with house.workspace.writing() as connection:
        row = connection.execute(table.select().where(table.c.kind == "release")).mappings().one()
        text = row["content"].replace("openai/one", "openai/two")
        connection.execute(update(table).where(table.c.kind == "release").values(content=text))
    with pytest.raises(VersionTampered):
        house.promote()
    assert any("release support:1" in problem for problem in house.problems())


def test_candidate_is_not_promoted_to(house: House) -> None:
    house.evidence(house.release())
    with pytest.raises(BadInput):
        house.promote(to="candidate")


def test_rollback_returns_step_by_step_and_then_refuses(house: House) -> None:
    versions: list[Version] = []
    for number in range(3):
        house.now += timedelta(minutes=2)
        release = house.release(f"openai/{number}")
        house.evidence(release, baseline=versions[-1] if versions else None)
        house.promote()
        versions.append(release)
    assert house.rollback().to_digest == versions[1].digest
    with house.workspace.reading() as connection:
        assert history.previous(connection) == {("support", versions[0].digest)}
    assert house.rollback().to_digest == versions[0].digest
    with pytest.raises(NothingToRollBack):
        house.rollback()
    assert house.production() == versions[0].digest
    assert house.problems() == []


def test_of_many_promotions_at_once_each_sees_the_whole_state(house: House) -> None:
    first = house.release("openai/one")
    house.evidence(first)
    house.promote()
    seconds = [house.release(f"openai/{number}") for number in range(2, 6)]
    for second in seconds:
        house.evidence(second, baseline=first)
    outcomes: list[str] = []

    def race(ref: str) -> None:
        try:
            house.promote(ref)
            outcomes.append("moved")
        except PromotionRefused as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=race, args=(f"support@{second.digest}",)) for second in seconds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["evidence_mismatch"] * 3 + ["moved"]
    assert house.problems() == []


def test_a_stale_compare_and_swap_is_refused(house: House) -> None:
    from registry import promotion

    release = house.release()
    house.evidence(release)
    house.promote()
    with house.workspace.reading() as connection:
        state = releases.alias_state(connection, "support", "production")
    assert state is not None
    stale = type(state)(state.name, state.alias, state.digest, state.generation - 1)
    with pytest.raises(AliasMoved), house.workspace.writing() as connection:
        promotion._swap(
            connection, release, "production", stale, "promote", (), actor="a", reason="", now=NOW
        )


def test_one_broken_release_does_not_take_the_others_from_the_snapshot(house: House) -> None:
    house.evidence(house.release())
    house.promote()
    other = house.release("openai/other", name="other")
    table = tables.versions
    with house.workspace.writing() as connection:
        connection.execute(update(table).where(table.c.digest == other.digest).values(content="{}"))
    with house.workspace.reading() as connection:
        read = snapshot.read(connection)
    assert [served.version.name for served in read.releases] == ["support"]
    assert list(read.broken) == [other.digest]


def test_a_transaction_that_was_rolled_back_is_not_anchored(house: House) -> None:
    house.evidence(house.release())
    with house.workspace.acting("aliases.promote") as (connection, who):
        ref = parse_ref("support@candidate")
        artifacts = house.workspace.artifacts
        promotion.promote(connection, artifacts, ref, "production", actor=who, reason="", now=NOW)
        connection.rollback()
    assert house.production() is None
    assert house.promote() is not None
