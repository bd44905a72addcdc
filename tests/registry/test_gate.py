"""What a gate policy asks for beyond a passing verdict, and which evidence no longer counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import (
    approvals,
    audit,
    datasets,
    evaluations,
    evidence,
    gate,
    judges,
    policies,
    promotion,
    releases,
)
from registry.clock import to_text
from registry.entities import GatePolicy, GateTier, JudgeContent, Version
from registry.errors import (
    ApprovalMissing,
    BadInput,
    EvidenceMismatch,
    EvidenceMissing,
    EvidenceReplayed,
    EvidenceSuperseded,
    EvidenceUntrusted,
    Forbidden,
    GateNotPassed,
    NotFound,
    RecordTampered,
)
from registry.ids import digest
from registry.policies import PolicyFile
from registry.refs import parse_ref
from registry.signing import key_id

from .conftest import NOW, House

LATER = timedelta(minutes=1)


def ask_for(house: House, **terms: Any) -> None:
    with house.workspace.writing() as connection:
        file = PolicyFile(kind="gate", name="support", gate=GatePolicy(**terms))
        policies.push(connection, file, actor="root", now=NOW)


def sign(house: House, release: Version, **more: Any) -> dict[str, Any]:
    """Filed evidence with anything about it changed."""
    with house.workspace.writing() as connection:
        policy, _ = policies.gate_for(connection, release.name)
        said: dict[str, Any] = {
            "release": release, "suite": house.suite, "dataset": house.dataset, "baseline": None,
            "gate_policy": policy, "verdict": "pass", "checks": [], "samples": 40, "started": house.now,
            "now": house.now, "valid_hours": 24.0, "evaluator": {"name": "tests"},
        }  # fmt: skip
        envelope = evidence.sign(evidence.statement(**(said | more)), house.key)
        evaluations.submit(connection, envelope, actor="ci", now=house.now)
    return envelope


def approve(house: House, who: str, release: Version, alias: str = "production") -> None:
    with house.workspace.writing() as connection:
        _, terms = gate.terms_for(connection, release.name, alias)
        approvals.give(connection, release, alias, terms=terms, comment="", actor=who, now=NOW)


def test_evidence_that_moved_the_alias_is_spent_by_a_rollback(house: House) -> None:
    first = house.release("openai/one")
    house.evidence(first)
    house.promote()
    second = house.release("openai/two")
    used = house.evidence(second, baseline=first)
    house.promote()
    house.now += LATER
    house.rollback()
    for handed_in in (None, [(digest(used), used)]):
        with pytest.raises(EvidenceReplayed):
            house.promote(now=house.now + LATER, envelopes=handed_in)
    house.evidence(second, baseline=first)
    assert house.promote(now=house.now + LATER) is not None


def test_an_older_pass_left_on_file_is_spent_by_a_rollback_too(house: House) -> None:
    first = house.release("openai/one")
    house.evidence(first)
    house.promote()
    second = house.release("openai/two")
    house.evidence(second, baseline=first)
    house.now += LATER
    house.evidence(second, baseline=first)
    move = house.promote(now=house.now)
    assert move is not None and len(move.evidence) == 1
    house.now += LATER
    house.rollback()
    with pytest.raises(EvidenceReplayed):
        house.promote(now=house.now + LATER)


def test_superseded_evidence_counts_no_more(house: House) -> None:
    release = house.release()
    old = house.evidence(release)
    house.now += LATER
    sign(house, release, verdict="inconclusive", supersedes=[digest(old)])
    with pytest.raises(GateNotPassed):
        house.promote(now=house.now + LATER)
    with pytest.raises(EvidenceSuperseded):
        house.promote(envelopes=[(digest(old), old)], now=house.now + LATER)


def test_words_of_an_untrusted_key_supersede_nothing(house: House) -> None:
    release = house.release()
    old = house.evidence(release)
    house.now += LATER
    sign(replace(house, key=Ed25519PrivateKey.generate()), release, verdict="fail", supersedes=[digest(old)])
    assert house.promote(now=house.now + LATER) is not None


def test_withdrawn_evidence_counts_no_more(house: House) -> None:
    release = house.release()
    envelope = house.evidence(release)
    with house.workspace.writing() as connection:
        evaluations.withdraw(connection, digest(envelope), reason="wrong data", actor="ann", now=NOW)
        evaluations.withdraw(connection, digest(envelope), reason="again", actor="ann", now=NOW)
    with pytest.raises(EvidenceMissing):
        house.promote()
    with pytest.raises(EvidenceSuperseded):
        house.promote(envelopes=[(digest(envelope), envelope)])


def test_an_older_pass_that_is_handed_in_is_outvoted_by_a_newer_failure_on_file(house: House) -> None:
    release = house.release()
    passed = house.evidence(release, file=False)
    house.now += LATER
    house.evidence(release, verdict="fail")
    with pytest.raises(GateNotPassed):
        house.promote(envelopes=[(digest(passed), passed)], now=house.now + LATER)


def test_a_newer_version_of_the_dataset_voids_evidence(house: House) -> None:
    house.evidence(house.release())
    with house.workspace.writing() as connection:
        rows = b'{"id":"1"}\n{"id":"3"}\n'
        datasets.push(connection, house.workspace.artifacts, "q", rows, actor="ann", now=NOW)
    with pytest.raises(EvidenceMismatch, match="dataset q changed"):
        house.promote()


def calibrated(rubric: str, **record: object) -> JudgeContent:
    content = JudgeContent("openai/x", rubric)
    expires = to_text(NOW + timedelta(days=90))
    held = {"of": judges.subject_of(content), "calibrated": True, "expires": expires, **record}
    return replace(content, calibration=held)


def push_judge(house: House, content: JudgeContent) -> Version:
    with house.workspace.writing() as connection:
        return judges.push(connection, "strict", content, actor="a", now=NOW)


def test_a_newer_version_of_a_judge_voids_evidence(house: House) -> None:
    release = house.release()
    sign(house, release, judges=[push_judge(house, calibrated("Is it right?"))])
    push_judge(house, calibrated("Is it nice?"))
    with pytest.raises(EvidenceMismatch, match="judge strict changed"):
        house.promote()


def test_evidence_of_a_calibrated_judge_opens_the_gate(house: House) -> None:
    sign(house, house.release(), judges=[push_judge(house, calibrated("Is it right?"))])
    house.promote()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (JudgeContent("openai/x", "Is it right?"), "was never calibrated"),
        (calibrated("Is it right?", calibrated=False), "failed its calibration"),
        (calibrated("Is it right?", of="sha256:" + "0" * 64), "with another rubric, model or parameters"),
        (calibrated("Is it right?", expires=to_text(NOW - timedelta(seconds=1))), "was calibrated until"),
        (calibrated("Is it right?", expires="soon"), "malformed calibration"),
    ],
)
def test_evidence_of_a_judge_that_is_not_calibrated_opens_nothing(
    house: House, content: JudgeContent, why: str
) -> None:
    sign(house, house.release(), judges=[push_judge(house, content)])
    with pytest.raises(EvidenceMismatch, match=why):
        house.promote()


def test_too_few_samples_are_refused(house: House) -> None:
    ask_for(house, min_samples=41)
    release = house.release()
    sign(house, release)
    with pytest.raises(EvidenceMismatch, match="40 samples"):
        house.promote()
    house.now += LATER
    sign(house, release, samples=41)
    assert house.promote(now=house.now + LATER) is not None


def test_only_named_evaluators_count(house: House) -> None:
    ask_for(house, evaluators=("sha256:" + "0" * 64,))
    house.evidence(house.release())
    with pytest.raises(EvidenceUntrusted, match="none of the gate policy's evaluators"):
        house.promote()
    ask_for(house, evaluators=(key_id(house.key.public_key()),))
    house.now += LATER
    house.evidence(house.release())
    assert house.promote(now=house.now + LATER) is not None


def test_a_retired_key_keeps_what_it_signed_before(house: House) -> None:
    release = house.release()
    house.evidence(release)
    with house.workspace.writing() as connection:
        evidence.retire(connection, key_id(house.key.public_key()), actor="root", now=NOW + LATER)
    assert house.promote(to="staging", now=NOW + 2 * LATER) is not None
    house.now = NOW + 3 * LATER
    house.evidence(release)
    with pytest.raises(EvidenceUntrusted, match="retired"):
        house.promote(
            "support@candidate", to="production", now=NOW + 4 * LATER, envelopes=_newest(house, release)
        )


def _newest(house: House, release: Version) -> list[tuple[str, Any]]:
    with house.workspace.reading() as connection:
        return evaluations.envelopes(connection, "support", 1, digest_of=release.digest)


def test_a_revoked_key_is_never_trusted_again(house: House) -> None:
    public = house.key.public_key()
    with house.workspace.writing() as connection:
        evidence.revoke(connection, key_id(public), actor="root", now=NOW)
        with pytest.raises(BadInput, match="was revoked"):
            evidence.trust(connection, public, actor="root", now=NOW)
        with pytest.raises(NotFound):
            evidence.retire(connection, key_id(public), actor="root", now=NOW)


def test_an_alias_may_ask_for_less_than_production(house: House) -> None:
    tiers = {"staging": GateTier(suites=(), approvals=0)}
    ask_for(house, suites=("quality", "safety"), approvals=1, tiers=tiers)
    house.evidence(house.release())
    assert house.promote(to="staging") is not None
    with pytest.raises(EvidenceMissing, match="safety"):
        house.promote()


def test_the_author_alone_cannot_approve(house: House) -> None:
    ask_for(house, approvals=1)
    release = house.release()
    house.evidence(release)
    with pytest.raises(ApprovalMissing, match="0 of 1 approvals"):
        house.promote()
    with pytest.raises(Forbidden, match="made"):
        approve(house, "ann", release)
    approve(house, "bob", release)
    approve(house, "bob", release)
    assert house.promote() is not None


def test_approvals_are_for_one_release_and_one_alias_and_can_be_withdrawn(house: House) -> None:
    ask_for(house, approvals=2, approvers=("bob", "carol", "dan"))
    release = house.release()
    house.evidence(release)
    with pytest.raises(Forbidden, match="not among the approvers"):
        approve(house, "eve", release)
    approve(house, "bob", release)
    approve(house, "carol", release, "staging")
    with pytest.raises(ApprovalMissing, match="1 of 2"):
        house.promote()
    approve(house, "carol", release)
    with house.workspace.writing() as connection:
        approvals.withdraw(connection, release, "production", actor="bob", now=NOW)
        with pytest.raises(NotFound):
            approvals.withdraw(connection, release, "production", actor="bob", now=NOW)
    with pytest.raises(ApprovalMissing, match="1 of 2"):
        house.promote()
    approve(house, "dan", release)
    assert house.promote() is not None
    other = house.release("openai/two")
    house.evidence(other, baseline=release)
    with pytest.raises(ApprovalMissing, match="0 of 2"):
        house.promote()


def test_breaking_the_glass_takes_a_reason_and_is_told_apart(house: House) -> None:
    release = house.release()

    def smash(reason: str) -> Any:
        with house.workspace.writing() as connection:
            return promotion.break_glass(
                connection, house.workspace.artifacts, parse_ref("support@candidate"), "production",
                actor="root", reason=reason, now=NOW,
            )  # fmt: skip

    with pytest.raises(BadInput, match="at least 10 characters"):
        smash("now")
    move = smash("the key leaked through the prompt")
    assert (move.action, move.evidence, move.to_digest) == ("break-glass", (), release.digest)
    assert smash("the key leaked through the prompt") is None
    with house.workspace.reading() as connection:
        state = releases.alias_state(connection, "support", "production")
    assert state is not None
    assert house.problems() == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: GatePolicy(approvals=2, approvers=("ann",)),
        lambda: GatePolicy(min_samples=0),
        lambda: GatePolicy(evaluators=()),
        lambda: GatePolicy(evaluators=("key",)),
        lambda: GatePolicy(tiers={"Staging": GateTier()}),
        lambda: GatePolicy(tiers={"staging": GateTier(max_age_hours=0)}),
        lambda: GatePolicy(approvers=("ann", "bob"), tiers={"staging": GateTier(approvals=3)}),
    ],
)
def test_a_policy_that_could_never_or_always_be_met_is_refused(make: Callable[[], GatePolicy]) -> None:
    with pytest.raises(BadInput):
        make()


@pytest.mark.parametrize("number", [1, 3])
def test_terms_cannot_be_had_away_by_removing_the_policy(house: House, number: int) -> None:
    with house.workspace.writing() as connection:  # what is left of a policy once its row is gone
        target = f"gate-policy/support:{number}"
        audit.append(connection, "version.push", target, {"digest": "sha256:…"}, actor="ann", now=NOW)
    with house.workspace.reading() as connection, pytest.raises(RecordTampered, match="removed"):
        gate.terms_for(connection, "support", "production")


def test_a_failure_cannot_be_buried_under_other_evidence(house: House) -> None:
    release = house.release()
    passed = house.evidence(release)
    house.now += LATER
    house.evidence(release, verdict="fail")
    stranger = Ed25519PrivateKey.generate()
    for _ in range(250):
        house.now += timedelta(seconds=1)
        house.evidence(release, key=stranger)
    house.now += LATER
    with pytest.raises(GateNotPassed):
        house.promote(envelopes=[(digest(passed), passed)])
    assert house.production() is None


def test_more_evidence_than_can_be_judged_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST_ENVELOPES", 2)
    release = house.release()
    for _ in range(3):
        house.now += LATER
        house.evidence(release)
    with pytest.raises(EvidenceMismatch, match="more than 2"):
        house.promote()
