"""Users, roles and tokens: every verb against every role."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from registry import access, audit, tables
from registry.access import ROLES, VERBS
from registry.entities import UserRole
from registry.errors import BadInput, Conflict, Forbidden, NotFound, RecordTampered, Unauthorized
from registry.workspace import Workspace

from .conftest import NOW


def add(workspace: Workspace, name: str, role: UserRole, token: str | None = None) -> str:
    with workspace.acting("users.add", token) as (connection, who):
        return access.add_user(connection, name, role, actor=who, now=NOW)[1]


def head(workspace: Workspace) -> int:
    with workspace.reading() as connection:
        found = audit.head(connection)
    return found.seq if found else 0


@pytest.fixture
def tokens(workspace: Workspace) -> dict[str, str]:
    """A token for each role."""
    made = {"admin": add(workspace, "root", "admin")}
    for role in ROLES[:3]:
        made[role] = add(workspace, f"{role}-1", role, made["admin"])
    return made


def test_every_verb_is_open_to_its_role_and_those_above_and_to_nobody_below(
    workspace: Workspace, tokens: dict[str, str]
) -> None:
    for verb, least in VERBS.items():
        for role in ROLES:
            allowed = ROLES.index(role) >= ROLES.index(least)
            before = head(workspace)
            try:
                with workspace.acting(verb, tokens[role], remote=True) as (_, who):
                    assert who.startswith("root" if role == "admin" else role)
            except Forbidden as error:
                assert not allowed, (verb, role)
                assert least in error.message
            else:
                assert allowed, (verb, role)
            with workspace.reading() if not allowed else workspace.viewing(verb, tokens[role], remote=True):
                assert head(workspace) == before


@pytest.mark.parametrize("token", [None, "", "sgr-unknown"])
def test_a_caller_from_afar_always_needs_a_token(workspace: Workspace, token: str | None) -> None:
    with pytest.raises(Unauthorized), workspace.viewing("versions.list", token, remote=True):
        pass
    with pytest.raises(Unauthorized), workspace.acting("prompts.push", token, remote=True):
        pass


def test_without_users_whoever_opens_the_registry_is_admin_under_his_own_name(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICEGATE_ACTOR", "ann")
    with workspace.acting("users.add") as (_, who):
        assert who == "ann"


def test_the_first_user_ends_that(
    workspace: Workspace, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unauthorized), workspace.viewing("versions.list"):
        pass
    monkeypatch.setenv("SLUICEGATE_TOKEN", tokens["editor"])
    with workspace.acting("prompts.push") as (_, who):
        assert who == "editor-1"


def test_the_first_user_is_an_admin_and_the_last_admin_stays(workspace: Workspace) -> None:
    with pytest.raises(BadInput, match="first user"):
        add(workspace, "ann", "viewer")
    root = add(workspace, "root", "admin")
    with workspace.acting("users.change", root) as (connection, who):
        with pytest.raises(BadInput, match="last admin"):
            access.change_role(connection, "root", "viewer", actor=who, now=NOW)
        with pytest.raises(BadInput, match="last admin"):
            access.revoke_user(connection, "root", actor=who, now=NOW)
        with pytest.raises(Conflict):
            access.add_user(connection, "root", "viewer", actor=who, now=NOW)
        with pytest.raises(NotFound):
            access.change_role(connection, "nobody", "viewer", actor=who, now=NOW)


def test_a_changed_role_and_a_new_token_count_at_once(workspace: Workspace, tokens: dict[str, str]) -> None:
    with workspace.acting("users.change", tokens["admin"]) as (connection, who):
        access.change_role(connection, "viewer-1", "promoter", actor=who, now=NOW)
        _, fresh = access.new_token(connection, "editor-1", actor=who, now=NOW)
    with workspace.acting("aliases.promote", tokens["viewer"]) as (_, name):
        assert name == "viewer-1"
    with pytest.raises(Unauthorized), workspace.viewing("versions.list", tokens["editor"]):
        pass
    with workspace.viewing("versions.list", fresh):
        pass


def test_a_revoked_user_is_out_and_the_name_is_spent(workspace: Workspace, tokens: dict[str, str]) -> None:
    with workspace.acting("users.revoke", tokens["admin"]) as (connection, who):
        first = access.revoke_user(connection, "editor-1", actor=who, now=NOW)
        assert access.revoke_user(connection, "editor-1", actor=who, now=NOW) == first
    with pytest.raises(Unauthorized), workspace.viewing("versions.list", tokens["editor"]):
        pass
    with pytest.raises(Conflict):
        add(workspace, "editor-1", "editor", tokens["admin"])


def test_a_role_raised_in_the_database_is_refused(workspace: Workspace, tokens: dict[str, str]) -> None:
    with workspace.writing() as connection:
        where = tables.users.c.name == "viewer-1"
        connection.execute(update(tables.users).where(where).values(role="admin"))
    with pytest.raises(RecordTampered), workspace.acting("users.add", tokens["viewer"]):
        pass


def test_tokens_are_kept_as_hashes_alone(workspace: Workspace, tokens: dict[str, str]) -> None:
    with workspace.reading() as connection:
        kept = repr(connection.execute(tables.users.select()).all())
        chain = repr(connection.execute(tables.audit.select()).all())
    assert all(token not in kept and token not in chain for token in tokens.values())
