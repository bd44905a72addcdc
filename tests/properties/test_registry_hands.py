"""Each flaw and each hand in the database, at the moment when it would help most."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from registry import audit_verify
from registry.entities import Version
from registry.signing import key_id
from tests.properties import registry_hands as hands
from tests.properties.registry_stage import FLAWS, KEYS
from tests.properties.test_registry_machine import RegistryMachine


def paper(machine: RegistryMachine, target: Version, *, file: bool = True, verdict: str = "pass") -> None:
    """One about *target*, right in all but what happens to it."""
    made = machine.signed(target, "quality", verdict, None)
    if file:
        machine.file(made, None)


def only(machine: RegistryMachine, number: int) -> None:
    """Sign with this key from now on."""
    for place, key in enumerate(KEYS):
        known = machine.world.keys[key_id(key.public_key())]
        known.trusted = place == number


def with_loose_evidence(machine: RegistryMachine, target: Version) -> None:
    machine.agree(target, "production", "ann", back=False)
    paper(machine, target, file=False)


def with_a_strangers_evidence(machine: RegistryMachine, target: Version) -> None:
    machine.agree(target, "production", "ann", back=False)
    only(machine, 1)
    paper(machine, target)
    only(machine, 0)


def with_a_failure(machine: RegistryMachine, target: Version) -> None:
    machine.agree(target, "production", "ann", back=False)
    paper(machine, target)
    machine.wait(0.1)
    paper(machine, target, verdict="fail")


def without_approval(machine: RegistryMachine, target: Version) -> None:
    paper(machine, target)


def with_withdrawn_evidence(machine: RegistryMachine, target: Version) -> None:
    machine.agree(target, "production", "ann", back=False)
    paper(machine, target)
    machine.take_back(machine.made[-1])


def with_a_revoked_key(machine: RegistryMachine, target: Version) -> None:
    machine.agree(target, "production", "ann", back=False)
    machine.change_key(1, "trust")
    only(machine, 1)
    paper(machine, target)
    only(machine, 0)
    machine.world.keys[key_id(KEYS[1].public_key())].trusted = True
    machine.change_key(1, "revoke")


def with_a_retired_key(machine: RegistryMachine, target: Version) -> None:
    machine.agree(target, "production", "ann", back=False)
    machine.change_key(1, "trust")
    machine.change_key(1, "retire")
    machine.wait(0.1)
    own = machine.world.keys[key_id(KEYS[1].public_key())]
    own.retired, since = None, own.retired
    only(machine, 1)
    paper(machine, target)
    only(machine, 0)
    own.trusted, own.retired = True, since


def before_the_policy(machine: RegistryMachine, target: Version) -> None:
    """Nothing: `begin` has signed a paper while there was no policy yet."""


def with_spent_evidence(machine: RegistryMachine, target: Version) -> None:
    """Staging went to *target*, back, and on to another: only the rollback says that the paper is spent."""
    first, other, _ = machine.versions["release"]
    for release in (first, target, other):
        machine.agree(release, "staging", "bob", back=False)
        machine.agree(release, "staging", "ann", back=False)
        paper(machine, release)
        assert machine.promote_to(release, "staging") == "moved"
        if release is target:
            machine.rollback("staging", None)
    assert machine.promote_to(target, "staging") == "evidence_replayed"


BEFORE: dict[str, Callable[[RegistryMachine, Version], None]] = {
    "file evidence": with_loose_evidence,
    "trust a key": with_a_strangers_evidence,
    "forget a failure": with_a_failure,
    "approve": without_approval,
    "bring back what was withdrawn": with_withdrawn_evidence,
    "make revoked keys good": with_a_revoked_key,
    "make retired keys good": with_a_retired_key,
    "weaken the policy": without_approval,
    "remove the policy": before_the_policy,
    "change the author": without_approval,
    "move production": without_approval,
    "forget a rollback": with_spent_evidence,
    "cut the chain": with_withdrawn_evidence,
}


@pytest.fixture
def machine() -> Iterator[RegistryMachine]:
    made = RegistryMachine()
    yield made
    made.teardown()


@pytest.mark.parametrize("name", sorted(hands.ACTS))
def test_a_hand_in_the_database_is_found_and_moves_nothing(machine: RegistryMachine, name: str) -> None:
    machine.begin()
    first, _, target = machine.versions["release"]
    for release in (first, target):
        for suite in ("quality", "safety"):
            machine.file(machine.signed(release, suite, "pass", None), None)
        if release is first:
            assert machine.promote_to(first, "production") == "moved"
            machine.wait(0.1)
    machine.push_policy(("quality",), None, 1, False, 168.0)
    BEFORE[name](machine, target)
    assert machine.promote_to(target, "production") not in ("moved", "there")
    scene = hands.Scene(machine.world, machine.made, KEYS, target.digest)
    assert hands.write(machine.database, name, scene)
    machine.hostile = True
    with machine.workspace.reading() as connection:
        assert not audit_verify.verify(connection)["ok"]
    alias = "staging" if name == "forget a rollback" else "production"
    assert machine.promote_to(target, alias) in ("record_tampered", "audit_tampered")


CODES = {
    "key": "evidence_untrusted", "forged": "evidence_tampered", "old": "evidence_expired",
    "rather old": "evidence_expired", "future": "evidence_expired", "short": "evidence_expired",
    "few": "evidence_mismatch", "suite": "evidence_mismatch", "judge": "evidence_mismatch",
    "policy": "evidence_mismatch", "baseline": "evidence_mismatch", "verdict": "gate_not_passed",
    "unapproved": "approval_missing", "withdrawn": "evidence_superseded", "none": "evidence_mismatch",
    "dataset": "evidence_mismatch", "other evaluator": "evidence_untrusted",
}  # fmt: skip


@pytest.mark.parametrize("flaw", sorted(CODES))
def test_one_flaw_refuses_and_without_it_the_alias_moves(machine: RegistryMachine, flaw: str) -> None:
    machine.begin()
    first, second, target = machine.versions["release"]
    machine.push_judge(1)
    machine.push_suite("quality", 1)
    machine.push_policy(("quality",), 50, None, False, 2.0)
    for release in (first, second):
        paper(machine, release)
        assert machine.promote_to(release, "production") == "moved"
    if flaw == "other evaluator":
        machine.change_key(1, "trust")
    machine.push_policy(("quality",), 50, 1, True, 1.5)
    if flaw != "unapproved":
        machine.agree(target, "production", "ann", back=False)
    known = flaw if flaw in FLAWS else None
    if flaw == "other evaluator":
        only(machine, 1)
    made = machine.signed(target, "quality", "fail" if flaw == "verdict" else "pass", known, judged=True)
    if flaw == "other evaluator":
        only(machine, 0)
        machine.world.keys[key_id(KEYS[1].public_key())].trusted = True
    if flaw != "none":
        machine.file(made, None)
    if flaw == "withdrawn":
        machine.take_back(made)
    if flaw == "dataset":
        machine.push_dataset(1)
    if flaw == "short":
        machine.wait(1.1)
    given = [made] if flaw == "withdrawn" else None
    assert machine.promote_to(target, "production", given) == CODES[flaw]
    machine.wait(0.1)
    if flaw == "dataset":
        machine.push_suite("quality", 0)
    machine.agree(target, "production", "bob", back=False)
    right = machine.signed(target, "quality", "pass", None, judged=True)
    machine.file(right, None)
    for statement in range(1, 25):  # it may end at any of them, and nothing is torn
        machine.promote_to(target, "production", crash=statement)
        machine.aliases_are_where_the_model_says()
        if machine.world.at("production") == target.digest:
            break
    else:
        assert machine.promote_to(target, "production") == "moved"
    assert machine.promote_to(target, "production") == "there"
    machine.rollback("production", None)
    assert machine.world.at("production") == second.digest
    machine.break_glass_to(target, "production")
    assert machine.world.at("production") == target.digest
