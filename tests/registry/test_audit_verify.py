"""Every change behind the registry is found, and refused where a promotion rests on it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import (
    anchor,
    approvals,
    audit,
    audit_keep,
    audit_verify,
    evaluations,
    evidence,
    policies,
    signing,
)
from registry.entities import GatePolicy, Version
from registry.errors import AuditTampered, PlatformError, PromotionRefused, RecordTampered, VersionTampered
from registry.ids import digest
from registry.policies import PolicyFile
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace

from .conftest import NOW, House

LATER = NOW + timedelta(minutes=10)


@dataclass
class Crime:
    """A registry with a bit of everything in it, and a way to write into its database."""

    house: House
    first: Version
    second: Version

    @property
    def database(self) -> Path:
        return self.house.workspace.settings.home / "registry.db"

    def sql(self, statement: str, *values: Any) -> int:
        """Run one statement as somebody who has the database, and not the registry."""
        connection = sqlite3.connect(self.database)
        connection.execute("PRAGMA foreign_keys=OFF")
        try:
            changed = connection.execute(statement, values).rowcount
            connection.commit()
        finally:
            connection.close()
        return changed

    def look(self, statement: str, *values: Any) -> list[Any]:
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def found(self, **more: Any) -> list[tuple[str, str]]:
        answer = self.verify(**more)
        assert answer["ok"] == (not answer["problems"])
        return [(one["where"], one["problem"]) for one in answer["problems"]]

    def verify(self, **more: Any) -> dict[str, Any]:
        with self.house.workspace.reading() as connection:
            return audit_verify.verify(connection, **more)

    def promote(self) -> None:
        self.house.promote(now=LATER)

    def end(self) -> int:
        return int(self.look("SELECT max(seq) FROM audit")[0][0])


def gate(house: House, **terms: Any) -> None:
    file = PolicyFile(kind="gate", name="support", gate=GatePolicy(**terms))
    with house.workspace.writing() as connection:
        policies.push(connection, file, actor="ann", now=NOW)


@pytest.fixture(params=["sqlite"])
def database_url() -> str:
    """Intruders write with SQLite's own driver here."""
    return ""


@pytest.fixture
def crime(house: House) -> Crime:
    """`production` points at the first release; the second, a candidate, passed and could be promoted."""
    gate(house, max_age_hours=48.0)
    first = house.release("openai/one")
    house.evidence(first)
    house.promote()
    house.now = NOW + timedelta(minutes=5)
    second = house.release("openai/two")
    house.evidence(second, baseline=first)
    with house.workspace.writing() as connection:
        terms = GatePolicy()
        approvals.give(
            connection, second, "production", terms=terms, comment="fine", actor="bob", now=house.now
        )
        audit_keep.place(connection, "release/", reason="case 12", actor="ann", now=house.now)
    return Crime(house, first, second)


def test_an_honest_registry_verifies_and_says_what_it_holds(crime: Crime) -> None:
    answer = crime.verify(every_signature=True)
    key = signing.key_id(signing.FileSigner(crime.house.workspace.settings.audit_key).public_key())
    end = crime.end()
    hashed = crime.look("SELECT hash FROM audit WHERE seq = ?", end)[0][0]
    assert answer == {
        "ok": True,
        "records": end,
        "rows": answer["rows"],
        "without_body": 0,
        "signers": {key: crime.look("SELECT count(*) FROM audit WHERE signature IS NOT NULL")[0][0]},
        "anchors": 1,
        "head": {"seq": end, "hash": hashed},
        "problem_count": 0,
        "problems": [],
    }
    crime.promote()
    assert crime.found() == []


def test_an_empty_registry_verifies(workspace: Workspace) -> None:
    with workspace.reading() as connection:
        answer = audit_verify.verify(connection)
    assert (answer["ok"], answer["records"], answer["rows"], answer["anchors"]) == (True, 0, 0, 0)


def fail_later(crime: Crime) -> str:
    """File a later failure of the candidate, which outvotes its pass; its digest."""
    crime.house.now += timedelta(minutes=1)
    envelope = crime.house.evidence(crime.second, baseline=crime.first, verdict="fail")
    return digest(envelope)


def revoke(crime: Crime) -> None:
    with crime.house.workspace.writing() as connection:
        key = signing.key_id(crime.house.key.public_key())
        evidence.revoke(connection, key, actor="ann", now=crime.house.now)
    crime.sql("UPDATE trusted_keys SET revoked_at = NULL")


def remove_failure(crime: Crime) -> None:
    failed = fail_later(crime)
    crime.sql("DELETE FROM eval_runs WHERE evidence = ?", failed)
    crime.sql("DELETE FROM evidence WHERE digest = ?", failed)


def damage_failure(crime: Crime) -> None:
    crime.sql("UPDATE evidence SET envelope = '{}' WHERE digest = ?", fail_later(crime))


def age_failure(crime: Crime) -> None:
    crime.sql(
        "UPDATE evidence SET valid_from = '2020-01-01T00:00:00.000000Z' WHERE digest = ?", fail_later(crime)
    )


def withdraw_failure(crime: Crime) -> None:
    crime.sql("UPDATE evidence SET withdrawn_at = valid_from WHERE digest = ?", fail_later(crime))


def move_failure(crime: Crime) -> None:
    failed = fail_later(crime)
    crime.sql("UPDATE evidence SET release_digest = ? WHERE digest = ?", crime.first.digest, failed)


def bring_back(crime: Crime) -> None:
    with crime.house.workspace.writing() as connection:
        filed = evaluations.envelopes(connection, "support", digest_of=crime.second.digest)
        evaluations.withdraw(connection, filed[0][0], reason="wrong set", actor="ann", now=crime.house.now)
    crime.sql("UPDATE evidence SET withdrawn_at = NULL")


def weaken(crime: Crime) -> None:
    """Delete the newest gate policy, the strict one."""
    gate(crime.house, max_age_hours=48.0, min_samples=10_000)
    assert crime.sql("DELETE FROM versions WHERE kind = 'gate-policy' AND number = 2") == 1


def no_gate(crime: Crime) -> None:
    crime.sql("DELETE FROM versions WHERE kind = 'gate-policy'")


def promote_by_sql(crime: Crime) -> None:
    changed = crime.sql(
        "UPDATE aliases SET digest = ?, generation = 2 WHERE alias = 'production'", crime.second.digest
    )
    assert changed == 1


def promote_with_history(crime: Crime) -> None:
    promote_by_sql(crime)
    crime.sql(
        "INSERT INTO alias_moves (id, name, alias, generation, from_digest, to_digest, action, actor, reason,"
        " evidence, at, audit_seq) SELECT 'mov_zz', name, alias, 2, to_digest, ?, action, actor, reason,"
        " evidence, at, audit_seq FROM alias_moves WHERE alias = 'production'",
        crime.second.digest,
    )


def add_version(crime: Crime) -> None:
    crime.sql(
        "INSERT INTO versions SELECT 'ver_zz', kind, name, number + 1, 'sha256:' || hex(zeroblob(32)), "
        "content, meta, created_at, created_by FROM versions WHERE kind = 'gate-policy'"
    )


def trust_by_sql(crime: Crime) -> None:
    key = Ed25519PrivateKey.generate()
    crime.sql(
        "INSERT INTO trusted_keys (key_id, public_key, added_at, added_by) VALUES (?, ?, ?, 'x')",
        signing.key_id(key.public_key()),
        signing.pem(key.public_key()),
        "2026-01-01T00:00:00.000000Z",
    )
    crime.house.evidence(crime.second, baseline=crime.first, key=key)
    crime.sql("DELETE FROM trusted_keys WHERE added_by = 'ann'")


def approve_by_sql(crime: Crime) -> None:
    gate(crime.house, max_age_hours=48.0, approvals=2)
    crime.house.evidence(crime.second, baseline=crime.first)
    crime.sql("INSERT INTO approvals SELECT name, digest, alias, 'eve', comment, at FROM approvals")


Attack = Callable[[Crime], object]
REFUSED: list[tuple[Attack, type[PlatformError], str, str]] = [
    (lambda c: c.sql("UPDATE versions SET content = '{}' WHERE digest = ?", c.second.digest),
     VersionTampered, "", ""),
    (lambda c: c.sql("UPDATE versions SET created_by = 'eve' WHERE digest = ?", c.second.digest),
     RecordTampered, "release/support:2", "is not what record"),
    (weaken, RecordTampered, "gate-policy/support:2", "a row that is gone"),
    (no_gate, RecordTampered, "gate-policy/support:1", "a row that is gone"),
    (add_version, VersionTampered, "gate-policy/support:2", "no record tells of it"),
    (promote_by_sql, RecordTampered, "release/support@production", "does not point where"),
    (promote_with_history, RecordTampered, "release/support@production", "is not what record"),
    (lambda c: c.sql("DELETE FROM aliases WHERE alias = 'production'"),
     RecordTampered, "release/support@production", "the alias is gone"),
    (lambda c: c.sql("DELETE FROM alias_moves WHERE alias = 'production'"),
     RecordTampered, "release/support@production", "is gone"),
    (lambda c: c.sql("UPDATE alias_moves SET reason = 'better' WHERE alias = 'production'"),
     RecordTampered, "release/support@production", "is not what record"),
    (lambda c: c.sql("UPDATE alias_moves SET evidence = '[]' WHERE alias = 'production'"),
     RecordTampered, "release/support@production", "is not what record"),
    (revoke, RecordTampered, "evidence-key/", "is not what record"),
    (trust_by_sql, RecordTampered, "evidence-key/", "no record tells of it"),
    (remove_failure, RecordTampered, "evidence/", "a row that is gone"),
    (damage_failure, PromotionRefused, "evidence/", "the envelope was changed"),
    (age_failure, PromotionRefused, "evidence/", "the columns beside the envelope"),
    (withdraw_failure, RecordTampered, "evidence/", "is withdrawn or damaged"),
    (move_failure, RecordTampered, "evidence/", "no record tells of it"),
    (bring_back, RecordTampered, "evidence/", "is not what record"),
    (approve_by_sql, RecordTampered, "approval/", "no record tells of it"),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "refusal", "where", "problem"), REFUSED)
def test_rows_changed_behind_the_registry_are_refused_and_found(
    crime: Crime, attack: Attack, refusal: type[PlatformError], where: str, problem: str
) -> None:
    attack(crime)
    before = crime.look("SELECT name, alias, digest, generation FROM aliases")
    with pytest.raises(refusal):
        crime.promote()
    assert crime.look("SELECT name, alias, digest, generation FROM aliases") == before
    found = crime.found()
    if problem:
        assert any(one.startswith(where) and problem in said for one, said in found), found


FOUND: list[tuple[str, str, str]] = [
    ("DELETE FROM approvals", "approval/", "a row that is gone"),
    ("UPDATE approvals SET comment = 'no'", "approval/", "is not what record"),
    ("UPDATE versions SET meta = '{\"a\":1}' WHERE kind = 'suite'", "suite/quality:1", "is not what record"),
    ("DELETE FROM versions WHERE kind = 'dataset'", "dataset/q:1", "a row that is gone"),
    ("UPDATE legal_holds SET released_at = placed_at", "hold/", "is not what record"),
    ("DELETE FROM legal_holds", "hold/", "a row that is gone"),
    ("DELETE FROM audit_keys", "audit-key/", "a row that is gone"),
    ("UPDATE audit_keys SET public_key = 'x'", "audit-key/", "cannot be read as a public key"),
    ("UPDATE evidence SET release_name = 'other'", "evidence/", "the columns beside the envelope"),
    ("UPDATE alias_moves SET at = 'x'", "rows (moves)", "cannot be read"),
    ("DELETE FROM trusted_keys", "evidence-key/", "a row that is gone"),
]


@pytest.mark.parametrize(("statement", "where", "problem"), FOUND)
def test_other_rows_changed_behind_the_registry_are_found(
    crime: Crime, statement: str, where: str, problem: str
) -> None:
    assert crime.sql(statement) > 0
    found = crime.found()
    assert any(one.startswith(where) and problem in said for one, said in found), found


CHAIN: list[tuple[str, str, str]] = [
    ("UPDATE audit SET actor = 'eve' WHERE seq = 5", "record 5", "its hash does not fit"),
    (
        "UPDATE audit SET at = '2020-01-01T00:00:00.000000Z' WHERE seq = 5",
        "record 5",
        "its hash does not fit",
    ),
    ("UPDATE audit SET target = 'x' WHERE seq = 5", "record 5", "its hash does not fit"),
    ("UPDATE audit SET subject = 'x' WHERE seq = 5", "record 5", "its hash does not fit"),
    ("UPDATE audit SET kind = 'decision' WHERE seq = 5", "record 5", "its hash does not fit"),
    ("UPDATE audit SET body_digest = 'x' WHERE seq = 5", "record 5", "its hash does not fit"),
    ("UPDATE audit SET body = '{}' WHERE seq = 5", "record 5", "its body was changed"),
    ("UPDATE audit SET body = NULL WHERE seq = 5", "record 5", "no prune record says so"),
    ("UPDATE audit SET body = x'ff' WHERE seq = 5", "record 5", "cannot be read"),
    ("UPDATE audit SET previous = 'x' WHERE seq = 5", "record 5", "does not follow"),
    ("UPDATE audit SET hash = 'x' WHERE seq = 5", "record 6", "does not follow"),
    ("DELETE FROM audit WHERE seq = 5", "record 6", "record 5 is missing before it"),
    ("DELETE FROM audit WHERE seq IN (5, 6, 7)", "record 8", "records 5 to 7 are missing before it"),
    ("DELETE FROM audit WHERE seq = 1", "record 2", "record 1 is missing before it"),
]


@pytest.mark.parametrize(("statement", "where", "problem"), CHAIN)
def test_a_record_changed_in_the_chain_is_found(
    crime: Crime, statement: str, where: str, problem: str
) -> None:
    assert crime.sql(statement) > 0
    assert any((one, True) == (where, problem in said) for one, said in crime.found())


def test_a_signature_inside_of_the_chain_is_checked_on_demand(crime: Crime) -> None:
    crime.sql("UPDATE audit SET signature = (SELECT signature FROM audit WHERE seq = 6) WHERE seq = 5")
    assert crime.found() == []
    assert crime.found(every_signature=True) == [("record 5", "the signature of audit record 5 does not fit")]


def test_two_records_that_changed_places_are_found(crime: Crime) -> None:
    for old, new in ((5, -1), (6, 5), (-1, 6)):
        crime.sql("UPDATE audit SET seq = ? WHERE seq = ?", new, old)
    found = {where for where, _ in crime.found()}
    assert {"record 5", "record 6", "record 7"} <= found


def test_a_chain_without_its_tail_takes_no_promotion_and_is_found(crime: Crime) -> None:
    end = crime.end()
    crime.sql("DELETE FROM audit WHERE seq = ?", end)
    with pytest.raises(AuditTampered, match="does not hold record"):
        crime.promote()
    assert any("the chain ends at" in problem for _, problem in crime.found())


def test_a_tail_cut_off_and_written_anew_with_the_real_key_meets_the_anchor(crime: Crime) -> None:
    """Somebody who has the key as well, on a machine that has another anchor."""
    end = crime.end()
    crime.sql("DELETE FROM audit WHERE seq = ?", end)
    settings = crime.house.workspace.settings
    elsewhere = crime.house.workspace.settings.home.parent / "elsewhere"
    shutil.copytree(settings.home / "keys", elsewhere / "keys")
    forged = RegistrySettings(home=elsewhere, database_url=settings.url)
    with open_workspace(forged) as workspace, workspace.writing() as connection:
        for number in range(5):
            audit.append(connection, "forged", f"x/{number}", {}, actor="eve", now=NOW)
    assert crime.end() == end + 4
    with pytest.raises(AuditTampered, match="does not hold record"):
        crime.promote()
    assert any("another record there" in problem for _, problem in crime.found())


def test_a_whole_database_replaced_by_an_older_copy_is_refused_and_found(crime: Crime) -> None:
    copy = crime.database.with_name("old.db")
    crime.sql("VACUUM INTO ?", str(copy))
    crime.promote()
    crime.house.workspace.engine.dispose()
    for path in crime.database.parent.glob("registry.db*"):
        path.unlink()
    shutil.move(copy, crime.database)
    with pytest.raises(AuditTampered, match="cut, replaced or restored"):
        crime.promote()
    assert any("older copy" in problem for _, problem in crime.found())


def forge(crime: Crime, key: Ed25519PrivateKey) -> None:
    """Append a record as the registry would, with another key."""
    import base64

    (row,) = crime.look("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
    record: dict[str, Any] = {
        "seq": row[0] + 1, "at": "2026-03-01T12:30:00.000000Z", "kind": "admin", "action": "alias.promote",
        "actor": "ann", "target": "release/other@production", "subject": None, "body": "{}",
        "body_digest": audit.digest_of({}), "previous": row[1],
    }  # fmt: skip
    record["hash"] = audit.hash_of(record)
    record["key_id"] = signing.key_id(key.public_key())
    said = f"sluicegate-audit-v1:{record['seq']}:{record['hash']}".encode()
    record["signature"] = base64.b64encode(key.sign(said)).decode()
    marks = ", ".join("?" * len(record))
    crime.sql(f"INSERT INTO audit ({', '.join(record)}) VALUES ({marks})", *record.values())  # noqa: S608


def test_a_record_forged_with_a_foreign_key_is_refused_and_found(crime: Crime) -> None:
    forge(crime, Ed25519PrivateKey.generate())
    with pytest.raises(AuditTampered, match="not signed by a key that counts"):
        crime.promote()
    assert any("not signed by a key that counts" in problem for _, problem in crime.found())


@pytest.fixture
def pinned(crime: Crime) -> Iterator[Workspace]:
    """The same registry, opened by somebody whose settings say which key counts."""
    settings = crime.house.workspace.settings
    own = signing.key_id(signing.FileSigner(settings.audit_key).public_key())
    with open_workspace(RegistrySettings(home=settings.home, audit_keys=(own,))) as workspace:
        yield workspace


def test_a_key_written_into_the_table_is_found_and_does_not_count_where_keys_are_pinned(
    crime: Crime, pinned: Workspace
) -> None:
    key = Ed25519PrivateKey.generate()
    identity = signing.key_id(key.public_key())
    crime.sql("INSERT INTO audit_keys VALUES (?, ?, 'x')", identity, signing.pem(key.public_key()))
    forge(crime, key)
    assert (
        f"audit-key/{identity}",
        "was written behind the registry: no record tells of it",
    ) in crime.found()
    with pinned.reading() as connection:
        found = audit_verify.verify(connection)["problems"]
    assert any("not signed by a key that counts" in one["problem"] for one in found)
    with pytest.raises(AuditTampered), pinned.writing() as connection:
        audit.append(connection, "a", "b", {}, actor="ann", now=NOW)


def test_failing_evidence_removed_together_with_its_record_is_found(crime: Crime) -> None:
    remove_failure(crime)
    crime.house.release("openai/three", name="other")
    seq = crime.look("SELECT max(seq) FROM audit WHERE action = 'evidence.file'")[0][0]
    crime.sql("DELETE FROM audit WHERE seq = ?", seq)
    assert crime.found() == [(f"record {seq + 1}", f"record {seq} is missing before it")]


def test_heads_kept_elsewhere_are_met_or_missed(crime: Crime, tmp_path: Path) -> None:
    with crime.house.workspace.reading() as connection:
        head = audit.head(connection)
    assert head is not None
    crime.promote()
    assert crime.verify(heads=[("elsewhere", head)])["anchors"] == 2
    other = head._replace(hash="0" * 64)
    problems = crime.found(heads=[("elsewhere", other)])
    assert [where for where, _ in problems] == [f"head {head.seq} in elsewhere"] * 2
    ahead = head._replace(seq=10_000)
    assert any("the chain ends at" in problem for _, problem in crime.found(heads=[("x", ahead)]))


def test_a_damaged_anchor_file_is_a_problem(crime: Crime) -> None:
    crime.house.workspace.settings.audit_anchor.write_text("{}")
    assert [problem for _, problem in crime.found()] == [
        f"{crime.house.workspace.settings.audit_anchor}: holds no head of an audit chain"
    ]


def test_problems_past_the_bound_are_counted(crime: Crime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_verify, "MOST_PROBLEMS", 3)
    crime.sql("UPDATE audit SET actor = 'eve'")
    answer = crime.verify()
    assert (len(answer["problems"]), answer["problem_count"]) == (3, crime.end())


def test_an_approval_taken_back_and_a_version_collected_leave_no_row_behind(crime: Crime) -> None:
    with crime.house.workspace.writing() as connection:
        approvals.withdraw(connection, crime.second, "production", actor="bob", now=NOW)
        connection.exec_driver_sql("DELETE FROM versions WHERE kind = 'prompt'")
        body = {"collected": ["prompt/support:1"]}
        audit.append(connection, "registry.collect", "registry", body, actor="ann", now=NOW)
    assert crime.found() == []


def test_an_anchor_is_part_of_json(crime: Crime) -> None:
    with crime.house.workspace.reading() as connection:
        head = audit.head(connection)
    assert head == anchor.parse(json.dumps(head._asdict() if head else {}).encode(), "test")
