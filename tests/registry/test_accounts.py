from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from registry import accounts, db
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
