"""Users, keys and limits of the gateway, and labels, are vouched for by the audit chain like all else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from registry import access, accounts, labels, limits, versions
from registry.entities import LimitRule, Limits
from registry.errors import RecordTampered
from registry.refs import Ref

from .conftest import NOW
from .test_audit_verify import Crime, crime

__all__ = ["crime"]


@pytest.fixture(params=["sqlite"])
def database_url() -> str:
    """Intruders write with SQLite's own driver here."""
    return ""


@pytest.fixture
def keyed(crime: Crime) -> Crime:
    """With keys of the gateway, limits and a label too."""
    with crime.house.workspace.writing() as connection:
        key, _ = accounts.create_key(connection, name="app", models=["*"], now=NOW)
        accounts.rotate_key(connection, key.id, overlap=timedelta(hours=1), now=NOW)
        accounts.update_key(connection, key.id, team="red", now=NOW)
        ended, _ = accounts.create_key(connection, name="old", models=["*"], now=NOW)
        accounts.revoke_key(connection, ended.id, now=NOW)
        prompt = versions.get(connection, "prompt", Ref("support"))
        labels.move(connection, prompt, "staging", actor="ann", now=NOW)
        labels.move(connection, prompt, "draft", actor="ann", now=NOW)
        labels.remove(connection, "support", "draft", actor="ann", now=NOW)
        rule = LimitRule("team", "red", Limits(rpm=10))
        limits.set_rule(connection, rule, actor="ann", now=NOW)
        limits.set_rule(connection, LimitRule("user", "x", Limits(rpm=1)), actor="ann", now=NOW)
        limits.remove_rule(connection, "user", "x", actor="ann", now=NOW)
    return crime


def test_keys_and_limits_of_the_gateway_are_vouched_for(keyed: Crime) -> None:
    assert keyed.found() == []


@pytest.mark.parametrize(
    ("statement", "where", "problem"),
    [
        ("UPDATE api_keys SET revoked_at = NULL", "api-key/", "is not what record"),
        ("UPDATE api_keys SET expires_at = NULL WHERE team = 'red'", "api-key/", "is not what record"),
        ("UPDATE api_keys SET digest = 'x' WHERE name = 'old'", "api-key/", "is not what record"),
        ("DELETE FROM api_keys WHERE name = 'old'", "api-key/", "a row that is gone"),
        ("UPDATE limits SET limits = '{\"rpm\": 99}'", "limit/team/red", "is not what record"),
        ("UPDATE labels SET digest = 'x'", "prompt/support@staging", "is not what record"),
        ("DELETE FROM labels", "prompt/support@staging", "a row that is gone"),
        ("UPDATE labels SET label = 'draft'", "prompt/support@draft", "no record tells of it"),
        ("DELETE FROM limits", "limit/team/red", "a row that is gone"),
        ("INSERT INTO limits VALUES ('user', 'x', '{\"rpm\": 9}')", "limit/user/x", "no record tells of it"),
    ],
)
def test_keys_and_limits_changed_behind_the_registry_are_found(
    keyed: Crime, statement: str, where: str, problem: str
) -> None:
    assert keyed.sql(statement) > 0
    found = keyed.found()
    assert any(one.startswith(where) and problem in said for one, said in found), found


def test_a_role_raised_by_sql_is_refused_and_found(crime: Crime) -> None:
    workspace = crime.house.workspace
    with workspace.writing() as connection:
        access.add_user(connection, "root", "admin", actor="ann", now=NOW)
        _, token = access.add_user(connection, "eve", "viewer", actor="root", now=NOW)
    assert crime.found() == []
    crime.sql("UPDATE users SET role = 'admin' WHERE name = 'eve'")
    with pytest.raises(RecordTampered), workspace.acting("aliases.promote", token):
        pass
    ((where, problem),) = crime.found()
    assert (where, problem[:18]) == ("user/eve", "is not what record")


def test_a_registry_emptied_of_its_users_is_refused_and_found(crime: Crime) -> None:
    workspace = crime.house.workspace
    with workspace.writing() as connection:
        access.add_user(connection, "root", "admin", actor="ann", now=NOW)
    crime.sql("DELETE FROM users")
    with pytest.raises(RecordTampered), workspace.acting("aliases.promote"):
        pass
    found = crime.found()
    assert ("users", "the registry had users, and all of them are gone") in found
    assert any(where == "user/root" for where, _ in found)
