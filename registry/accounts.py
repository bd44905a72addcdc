"""Virtual API keys: shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, RowMapping, insert, select, update

from registry import tables
from registry.clock import from_text, to_text
from registry.db import bump_revision
from registry.entities import ApiKey
from registry.errors import BadInput, NotFound
from registry.ids import sortable_id
from registry.refs import check_name

_TABLE = tables.api_keys
KEY_PREFIX = "sk-sg-"


def create_key(
    connection: Connection,
    name: str,
    *,
    models: Sequence[str] = ("*",),
    expires_at: datetime | None = None,
    now: datetime,
) -> tuple[ApiKey, str]:
    """
    Make a key; returns what is kept of it and the key itself, which is never shown again.

    Args:
        models: release names or patterns such as `openai/*`; `*` is all.
        expires_at: aware UTC, in the future; None never expires.

    Raises:
        BadInput: a malformed name, no models, or an expiry that has passed.
    """
    check_name(name, "key name")
    if not models or not all(models):
        message = "models: name at least one release or pattern; '*' allows all"
        raise BadInput(message)
    if expires_at is not None and expires_at <= now:
        message = f"expires_at {to_text(expires_at)} has already passed"
        raise BadInput(message)
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        id=sortable_id("key", now),
        name=name,
        prefix=secret[: len(KEY_PREFIX) + 4],
        digest=hashlib.sha256(secret.encode()).hexdigest(),
        models=tuple(models),
        created_at=now,
        expires_at=expires_at,
    )
    connection.execute(
        insert(_TABLE).values(
            id=key.id,
            name=key.name,
            prefix=key.prefix,
            digest=key.digest,
            models=json.dumps(key.models),
            created_at=to_text(now),
            expires_at=to_text(expires_at) if expires_at else None,
        )
    )
    bump_revision(connection)
    return key, secret


def list_keys(connection: Connection) -> list[ApiKey]:
    """Every key, revoked and expired ones too, oldest first."""
    return [_key(row) for row in connection.execute(select(_TABLE).order_by(_TABLE.c.id)).mappings()]


def revoke_key(connection: Connection, key_id: str, *, now: datetime) -> ApiKey:
    """
    End a key now. Idempotent: the first revocation's time stays.

    Raises:
        NotFound: no key has this id.
    """
    connection.execute(
        update(_TABLE)
        .where(_TABLE.c.id == key_id, _TABLE.c.revoked_at.is_(None))
        .values(revoked_at=to_text(now))
    )
    row = connection.execute(select(_TABLE).where(_TABLE.c.id == key_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no API key with id {key_id!r}; `gateway keys list` shows them")
    bump_revision(connection)
    return _key(row)


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(
        id=row["id"],
        name=row["name"],
        prefix=row["prefix"],
        digest=row["digest"],
        models=tuple(json.loads(row["models"])),
        created_at=from_text(row["created_at"]),
        expires_at=from_text(row["expires_at"]) if row["expires_at"] else None,
        revoked_at=from_text(row["revoked_at"]) if row["revoked_at"] else None,
    )
