from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from registry import accounts, db
from registry.entities import Limits
from registry.errors import BadInput, NotFound
from registry.workspace import Workspace

from .conftest import NOW


def test_a_key_is_kept_only_as_its_hash(workspace: Workspace) -> None:
    with workspace.writing() as connection:
        before = db.revision(connection)
        key, secret = accounts.create_key(connection, "app", models=["support"], now=NOW)
        assert accounts.list_keys(connection) == [key]
        assert db.revision(connection) == before + 1
        stored = str(connection.execute(text("SELECT * FROM api_keys")).all())
    assert secret.startswith(key.prefix)
    assert secret not in stored


def test_revoking_is_idempotent_and_seen_by_the_gateway(workspace: Workspace) -> None:
    with workspace.writing() as connection:
        key, _ = accounts.create_key(connection, "app", now=NOW)
        first = accounts.revoke_key(connection, key.id, now=NOW + timedelta(hours=1))
        assert accounts.revoke_key(connection, key.id, now=NOW + timedelta(hours=2)) == first
        with pytest.raises(NotFound):
            accounts.revoke_key(connection, "key_none", now=NOW)


@pytest.mark.parametrize(
    "wrong", [{"name": "Not A Name"}, {"models": []}, {"expires_at": NOW - timedelta(seconds=1)}]
)
def test_a_wrong_key_is_refused(workspace: Workspace, wrong: dict[str, object]) -> None:
    arguments = {"name": "app", "now": NOW, **wrong}
    with pytest.raises(BadInput), workspace.writing() as connection:
        accounts.create_key(connection, **arguments)  # type: ignore[arg-type]


def test_a_key_keeps_what_it_may_do(workspace: Workspace) -> None:
    limits = Limits(rpm=5, budget_microusd=7, budget_period="day")
    with workspace.writing() as connection:
        key, _ = accounts.create_key(
            connection, "app", models=["support"], routes=["/v1/*"], team="web", limits=limits, now=NOW
        )
        assert accounts.get_key(connection, key.id) == key
    assert (key.routes, key.team, key.limits, key.account) == (("/v1/*",), "web", limits, key.id)


def test_an_update_changes_what_is_named_and_nothing_else(workspace: Workspace) -> None:
    until = NOW + timedelta(days=1)
    with workspace.writing() as connection:
        key, _ = accounts.create_key(connection, "app", models=["a"], now=NOW)
        other, _ = accounts.create_key(connection, "other", now=NOW)
        before = db.revision(connection)
        changed = accounts.update_key(connection, key.id, limits=Limits(rpm=1), expires_at=until, now=NOW)
        assert changed == replace(key, limits=Limits(rpm=1), expires_at=until)
        assert db.revision(connection) == before + 1
        changed = accounts.update_key(
            connection, key.id, team="web", models=["b"], expires_at="never", now=NOW
        )
        assert changed == replace(key, limits=Limits(rpm=1), team="web", models=("b",))
        assert accounts.get_key(connection, other.id) == other


@pytest.mark.parametrize(
    "wrong", [{"models": []}, {"routes": ["v1"]}, {"team": "Not A Name"}, {"expires_at": NOW}]
)
def test_a_wrong_update_changes_nothing(workspace: Workspace, wrong: dict[str, Any]) -> None:
    with workspace.writing() as connection:
        key, _ = accounts.create_key(connection, "app", now=NOW)
    with pytest.raises(BadInput), workspace.writing() as connection:
        accounts.update_key(connection, key.id, limits=Limits(rpm=1), **wrong, now=NOW)
    with workspace.writing() as connection:
        assert accounts.list_keys(connection) == [key]
        accounts.revoke_key(connection, key.id, now=NOW)
        with pytest.raises(BadInput, match="is revoked"):
            accounts.update_key(connection, key.id, now=NOW)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.timedeltas(timedelta(0), timedelta(days=300)),
    st.none() | st.timedeltas(timedelta(minutes=2), timedelta(days=300)),
)
def test_both_keys_work_during_the_overlap_and_neither_outlives_its_expiry(
    workspace: Workspace, overlap: timedelta, life: timedelta | None
) -> None:
    expires = None if life is None else NOW + life
    later = NOW + timedelta(minutes=1)
    with workspace.writing() as connection:
        old, secret = accounts.create_key(
            connection, "app", models=["a"], routes=["/v1/*"], team="web", limits=Limits(rpm=3),
            expires_at=expires, now=NOW,
        )  # fmt: skip
        new, other = accounts.rotate_key(connection, old.id, overlap=overlap, now=later)
        before, after = (key for key in accounts.list_keys(connection) if key.account == old.account)
    ends = later + overlap if expires is None else min(expires, later + overlap)
    assert before == replace(old, expires_at=ends)
    assert after == new == replace(
        old, id=new.id, prefix=new.prefix, digest=new.digest, created_at=later
    )  # fmt: skip
    assert secret != other
    assert accounts.successor(before, [before, after], later) == after


def test_only_the_newest_key_of_a_chain_can_be_rotated_and_its_limits_are_theirs(
    workspace: Workspace,
) -> None:
    hour = timedelta(hours=1)
    with workspace.writing() as connection:
        first, _ = accounts.create_key(connection, "app", now=NOW)
        second, _ = accounts.rotate_key(connection, first.id, overlap=4 * hour, now=NOW + hour)
        with pytest.raises(BadInput, match=f"rotate the key that followed it, {second.id}"):
            accounts.rotate_key(connection, first.id, overlap=hour, now=NOW + 2 * hour)
        third, _ = accounts.rotate_key(connection, second.id, overlap=hour, now=NOW + 2 * hour)
        assert third.account == second.account == first.id
        accounts.update_key(connection, third.id, limits=Limits(rpm=2), now=NOW + 2 * hour)
        assert [key.limits for key in accounts.list_keys(connection)] == [Limits(rpm=2)] * 3
        accounts.revoke_key(connection, third.id, now=NOW + 2 * hour)
        for wrong in ({"key_id": third.id, "overlap": hour}, {"key_id": second.id, "overlap": -hour}):
            with pytest.raises(BadInput):
                accounts.rotate_key(connection, **wrong, now=NOW + 2 * hour)  # type: ignore[arg-type]
