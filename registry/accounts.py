"""Virtual API keys: shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, insert, or_, select, update

from registry import audit, tables
from registry.clock import from_text, to_text
from registry.db import bump_revision
from registry.entities import ApiKey, Limits
from registry.errors import BadInput, NotFound
from registry.ids import sortable_id
from registry.limits import from_json as limits_from_json
from registry.limits import to_json as limits_to_json
from registry.refs import check_name

_TABLE = tables.api_keys
KEY_PREFIX = "sk-sg-"
_MOST_OVERLAP = timedelta(days=366)


def create_key(
    connection: Connection,
    name: str,
    *,
    models: Sequence[str] = ("*",),
    expires_at: datetime | None = None,
    routes: Sequence[str] = ("*",),
    team: str = "",
    limits: Limits | None = None,
    account: str = "",
    actor: str = "registry",
    now: datetime,
) -> tuple[ApiKey, str]:
    """
    Make a key; returns what is kept of it and the key itself, which is never shown again.

    Args:
        models: release names or patterns such as `openai/*`; `*` is all.
        routes: paths or patterns such as `/v1/*`; `*` is all.
        account: what its use is counted under; by default its own id.
        expires_at: aware UTC, in the future; None never expires.

    Raises:
        BadInput: a malformed name, no models, or an expiry that has passed.
    """
    check_key(name, models, routes, team)
    _check_expiry(expires_at, now)
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    key_id = sortable_id("key", now)
    key = ApiKey(
        id=key_id,
        name=name,
        prefix=secret[: len(KEY_PREFIX) + 4],
        digest=hashlib.sha256(secret.encode()).hexdigest(),
        models=tuple(models),
        created_at=now,
        expires_at=expires_at,
        routes=tuple(routes),
        team=team,
        limits=limits or Limits(),
        account=account or key_id,
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
            routes=json.dumps(key.routes),
            team=key.team,
            limits=limits_to_json(key.limits),
            account=key.account,
        )
    )
    _record(connection, "api-key.create", key, actor, now)
    bump_revision(connection)
    return key, secret


def list_keys(connection: Connection) -> list[ApiKey]:
    """Every key, revoked and expired ones too, oldest first."""
    return [_key(row) for row in connection.execute(select(_TABLE).order_by(_TABLE.c.id)).mappings()]


def revoke_key(connection: Connection, key_id: str, *, actor: str = "registry", now: datetime) -> ApiKey:
    """
    End a key now. Idempotent: the first revocation's time stays.

    Raises:
        NotFound: no key has this id.
    """
    ended = connection.execute(
        update(_TABLE)
        .where(_TABLE.c.id == key_id, _TABLE.c.revoked_at.is_(None))
        .values(revoked_at=to_text(now))
    )
    key = get_key(connection, key_id)
    if ended.rowcount:
        _record(connection, "api-key.revoke", key, actor, now)
    bump_revision(connection)
    return key


def get_key(connection: Connection, key_id: str) -> ApiKey:
    """
    The key with this id.

    Raises:
        NotFound: there is none.
    """
    row = connection.execute(select(_TABLE).where(_TABLE.c.id == key_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no API key with id {key_id!r}; `gateway keys list` shows them")
    return _key(row)


def update_key(
    connection: Connection,
    key_id: str,
    *,
    models: Sequence[str] | None = None,
    routes: Sequence[str] | None = None,
    team: str | None = None,
    limits: Limits | None = None,
    expires_at: datetime | Literal["never"] | None = None,
    actor: str = "registry",
    now: datetime,
) -> ApiKey:
    """
    Change what a key may do; None leaves a part as it is. Effective at gateways within a second.

    All but the expiry also changes for the keys that it was rotated from and to: they are one account.

    Raises:
        NotFound: no key has this id.
        BadInput: it is revoked, or a value is malformed.
    """
    key = get_key(connection, key_id)
    if key.revoked_at is not None:
        message = f"{key_id} is revoked; make a new key"
        raise BadInput(message)
    models, routes = key.models if models is None else models, key.routes if routes is None else routes
    team = key.team if team is None else team
    check_key(key.name, models, routes, team)
    shared = {"models": json.dumps(tuple(models)), "routes": json.dumps(tuple(routes)), "team": team}
    shared["limits"] = limits_to_json(key.limits if limits is None else limits)
    alike = or_(_TABLE.c.account == key.account, _TABLE.c.id == key_id) & _TABLE.c.revoked_at.is_(None)
    connection.execute(update(_TABLE).where(alike).values(shared))
    if expires_at is not None:
        until = None if expires_at == "never" else expires_at
        _check_expiry(until, now)
        connection.execute(
            update(_TABLE)
            .where(_TABLE.c.id == key_id)
            .values(expires_at=to_text(until) if until is not None else None)
        )
    for row in connection.execute(select(_TABLE).where(alike).order_by(_TABLE.c.id)).mappings().all():
        _record(connection, "api-key.update", _key(row), actor, now)
    bump_revision(connection)
    return get_key(connection, key_id)


def rotate_key(
    connection: Connection, key_id: str, *, overlap: timedelta, actor: str = "registry", now: datetime
) -> tuple[ApiKey, str]:
    """
    Make a key with the same account, scopes, limits and expiry; returns it as `create_key` does.

    The old key works for *overlap* longer, at most until its own expiry.

    Raises:
        NotFound: no key has this id.
        BadInput: it has ended or was rotated before, or *overlap* is not 0 to 366 days.
    """
    old = get_key(connection, key_id)
    if has_ended(old, now):
        message = f"{key_id} has ended; make a new key"
        raise BadInput(message)
    if not timedelta(0) <= overlap <= _MOST_OVERLAP:
        message = f"overlap {overlap} is not 0 to 366 days"
        raise BadInput(message)
    later = successor(old, list_keys(connection), now)
    if later is not None:
        message = f"{key_id} was rotated already; rotate the key that followed it, {later.id}"
        raise BadInput(message)
    made = create_key(
        connection, old.name, models=old.models, expires_at=old.expires_at, routes=old.routes, team=old.team,
        limits=old.limits, account=old.account, actor=actor, now=now,
    )  # fmt: skip
    ends = now + overlap if old.expires_at is None else min(old.expires_at, now + overlap)
    connection.execute(update(_TABLE).where(_TABLE.c.id == key_id).values(expires_at=to_text(ends)))
    _record(connection, "api-key.rotate", get_key(connection, key_id), actor, now)
    return made


def has_ended(key: ApiKey, now: datetime) -> bool:
    """Whether *key* opens nothing at *now*: it is revoked, or has expired."""
    return key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now)


def successor(key: ApiKey, keys: Sequence[ApiKey], now: datetime) -> ApiKey | None:
    """Of *keys*, the newest that *key* was rotated to and that works at *now*; None where there is none."""
    later = [
        other
        for other in keys
        if other.account == key.account and (other.created_at, other.id) > (key.created_at, key.id)
        and not has_ended(other, now)
    ]  # fmt: skip
    return max(later, key=lambda other: (other.created_at, other.id), default=None)


def check_key(name: str, models: Sequence[str], routes: Sequence[str], team: str) -> None:
    """
    Check what a key is called and may do.

    Raises:
        BadInput: a malformed name or team, no models, or a route that is no path.
    """
    check_name(name, "key name")
    if not models or not all(models):
        message = "models: name at least one release or pattern; '*' allows all"
        raise BadInput(message)
    if not routes or not all(route == "*" or route.startswith("/") for route in routes):
        message = "routes: name paths or patterns that begin with '/', or '*' for all"
        raise BadInput(message)
    if team:
        check_name(team, "team")


def protected(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """(target, body) of every key, as the audit chain vouches for it."""
    for row in connection.execute(select(_TABLE)).mappings():
        key = _key(row)
        yield f"api-key/{key.id}", _recorded(key)


def _record(connection: Connection, action: str, key: ApiKey, actor: str, now: datetime) -> None:
    audit.append(connection, action, f"api-key/{key.id}", _recorded(key), actor=actor, now=now)


def _recorded(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "key": key.digest,
        "account": key.account,
        "models": list(key.models),
        "routes": list(key.routes),
        "team": key.team,
        "limits": json.loads(limits_to_json(key.limits)),
        "expires_at": to_text(key.expires_at) if key.expires_at else None,
        "revoked_at": to_text(key.revoked_at) if key.revoked_at else None,
    }


def _check_expiry(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        message = f"expires_at {to_text(expires_at)} has already passed"
        raise BadInput(message)


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
        routes=tuple(json.loads(row["routes"])),
        team=row["team"],
        limits=limits_from_json(row["limits"]),
        account=row["account"] or row["id"],
    )
