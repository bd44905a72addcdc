"""Users, approvals, evidence and broken glass from the command line, as four people use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from registry import policies
from registry.cli import application
from registry.entities import GatePolicy
from registry.errors import EvidenceSuperseded, Forbidden, PlatformError, PromotionRefused, Unauthorized
from registry.ids import digest
from registry.policies import PolicyFile
from registry.signing import key_id

from .conftest import NOW, House


class Desk:
    """A shell in which somebody else may sit down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.tokens: dict[str, str] = {}

    def sit(self, name: str) -> Desk:
        self._monkeypatch.setenv("SLUICEGATE_TOKEN", self.tokens[name])
        return self

    def run(self, *words: str) -> Any:
        done = CliRunner().invoke(application, [*words, "--json"])
        if isinstance(done.exception, PlatformError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture
def desk(house: House, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(house.workspace.settings.home))
    monkeypatch.setenv("SLUICEGATE_REGISTRY__DATABASE_URL", database_url)
    monkeypatch.delenv("SLUICEGATE_TOKEN", raising=False)
    made = Desk(monkeypatch)
    made.tokens["root"] = made.run("users", "add", "root", "admin")["token"]
    for name, role in (("ann", "promoter"), ("bob", "promoter"), ("eve", "viewer")):
        made.tokens[name] = made.sit("root").run("users", "add", name, role)["token"]
    return made


def test_a_release_is_approved_by_somebody_else_and_then_promoted(house: House, desk: Desk) -> None:
    with house.workspace.writing() as connection:
        file = PolicyFile(kind="gate", name="support", gate=GatePolicy(approvals=1))
        policies.push(connection, file, actor="root", now=NOW)
    house.now = NOW.replace(year=2126)
    house.release()
    with pytest.raises(Forbidden, match="cannot approve"):
        desk.sit("ann").run("approvals", "give", "support@candidate")
    with pytest.raises(Forbidden, match="takes the role promoter"):
        desk.sit("eve").run("approvals", "give", "support@candidate")
    given = desk.sit("bob").run("approvals", "give", "support@candidate", "--comment", "read 40 answers")
    listed = desk.sit("eve").run("approvals", "list", "support")["approvals"]
    assert [{"ok": True, "number": 1, **one} for one in listed] == [given]
    assert (given["approver"], given["alias"], given["comment"]) == ("bob", "production", "read 40 answers")
    desk.sit("bob").run("approvals", "withdraw", "support@candidate")
    assert desk.run("approvals", "list", "support") == {"approvals": []}


def test_the_glass_is_broken_by_an_admin_alone(house: House, desk: Desk) -> None:
    release = house.release()
    words = ("break-glass", "support@candidate", "--reason", "the old one tells secrets")
    with pytest.raises(Forbidden, match="takes the role admin"):
        desk.sit("ann").run(*words)
    moved = desk.sit("root").run(*words)
    assert (moved["action"], moved["to"], moved["actor"]) == ("break-glass", release.digest, "root")
    assert desk.run(*words) == {"ok": True, "moved": False}
    assert desk.run("verify") == {"ok": True, "problems": []}
    assert desk.run("audit", "verify")["ok"]


def test_evidence_is_filed_and_withdrawn(house: House, desk: Desk, tmp_path: Path) -> None:
    envelope = house.evidence(house.release(), file=False)
    (tmp_path / "e.json").write_text(json.dumps(envelope))
    with pytest.raises(Forbidden):
        desk.sit("eve").run("evidence", "file", str(tmp_path / "e.json"))
    filed = desk.sit("ann").run("evidence", "file", str(tmp_path / "e.json"))
    assert filed == {"ok": True, "digest": digest(envelope)}
    desk.run("evidence", "withdraw", filed["digest"], "--reason", "wrong data")
    with pytest.raises(PlatformError) as refused:
        desk.run("promote", "support@candidate", "--evidence", str(tmp_path / "e.json"))
    assert refused.value.code in {EvidenceSuperseded.code, "evidence_expired"}


def test_keys_are_retired_by_an_admin(house: House, desk: Desk) -> None:
    key = key_id(house.key.public_key())
    with pytest.raises(Forbidden):
        desk.sit("ann").run("keys", "retire", key)
    desk.sit("root").run("keys", "retire", key)
    (kept,) = desk.run("keys", "list")["keys"]
    assert kept["retired_at"]


def test_users_change_roles_get_new_tokens_and_leave(desk: Desk) -> None:
    desk.sit("root").run("users", "change", "eve", "editor")
    old, desk.tokens["eve"] = desk.tokens["eve"], desk.run("users", "token", "eve")["token"]
    assert old != desk.tokens["eve"]
    desk.run("users", "revoke", "bob")
    users = {user["name"]: user for user in desk.sit("eve").run("users", "list")["users"]}
    assert [(name, users[name]["role"], bool(users[name]["revoked_at"])) for name in sorted(users)] == [
        ("ann", "promoter", False),
        ("bob", "promoter", True),
        ("eve", "editor", False),
        ("root", "admin", False),
    ]
    with pytest.raises(Unauthorized):
        desk.sit("bob").run("users", "list")


def test_a_refusal_is_recorded_and_a_dry_one_is_not(house: House, desk: Desk) -> None:
    release = house.release()
    house.evidence(release, verdict="fail")
    for words in ((), ("--dry-run",)):
        with pytest.raises(PromotionRefused):
            desk.sit("bob").run("promote", "support@candidate", *words)
    records = desk.run("audit", "list", "--action", "gate.*")["records"]
    assert [(one["actor"], one["target"]) for one in records] == [("bob", "gate/support@production")]
    assert records[0]["body"]["release"] == release.digest
    assert desk.run("audit", "verify")["ok"] is True
