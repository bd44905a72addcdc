"""
Who may do what: users with a role each, known by a token that is shown once and kept as a hash.

While a registry has no users, whoever can open its database acts under his own name and may do everything, as
on a laptop. The first user ends that: from then on every command and every call needs a token.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from registry import audit, tables
from registry.clock import from_text, to_text
from registry.entities import Actor, User, UserRole
from registry.errors import BadInput, Conflict, Forbidden, NotFound, Unauthorized
from registry.refs import check_name

_TABLE = tables.users
TOKEN_PREFIX = "sgr-"  # noqa: S105 - how tokens begin, not one
ROLES: tuple[UserRole, ...] = ("viewer", "editor", "promoter", "admin")
"""Each may do what those before it may."""
VERBS: dict[str, UserRole] = {
    "aliases.break-glass": "admin",
    "aliases.history": "viewer",
    "aliases.list": "viewer",
    "aliases.promote": "promoter",
    "aliases.rollback": "promoter",
    "apikeys.list": "viewer",
    "apikeys.write": "admin",
    "approvals.give": "promoter",
    "approvals.list": "viewer",
    "approvals.withdraw": "promoter",
    "audit.anchor": "admin",
    "audit.erase": "admin",
    "audit.export": "admin",
    "audit.hold": "admin",
    "audit.list": "viewer",
    "audit.prune": "admin",
    "audit.verify": "viewer",
    "datasets.push": "editor",
    "evidence.file": "editor",
    "evidence.list": "viewer",
    "evidence.show": "viewer",
    "evidence.withdraw": "promoter",
    "feedback.list": "viewer",
    "gates.push": "admin",
    "guardrails.push": "editor",
    "indexes.push": "editor",
    "judges.push": "editor",
    "keys.list": "viewer",
    "keys.retire": "admin",
    "keys.revoke": "admin",
    "keys.trust": "admin",
    "limits.list": "viewer",
    "limits.write": "admin",
    "lineage.show": "viewer",
    "mlflow.export": "viewer",
    "mlflow.import": "editor",
    "models.push": "editor",
    "prices.list": "viewer",
    "prices.push": "admin",
    "prices.write": "admin",
    "prompts.diff": "viewer",
    "prompts.import": "editor",
    "prompts.label": "editor",
    "prompts.list": "viewer",
    "prompts.log": "viewer",
    "prompts.pull": "viewer",
    "prompts.push": "editor",
    "prompts.render": "viewer",
    "registry.backup": "admin",
    "registry.collect": "admin",
    "registry.restore": "admin",
    "registry.verify": "viewer",
    "releases.create": "editor",
    "releases.export": "viewer",
    "releases.import": "editor",
    "runs.list": "viewer",
    "splits.end": "promoter",
    "splits.list": "viewer",
    "splits.set": "promoter",
    "suites.push": "editor",
    "tools.push": "editor",
    "usage.list": "viewer",
    "users.add": "admin",
    "users.change": "admin",
    "users.list": "viewer",
    "users.revoke": "admin",
    "versions.diff": "viewer",
    "versions.list": "viewer",
    "versions.search": "viewer",
    "versions.show": "viewer",
    "webhooks.add": "admin",
    "webhooks.deliver": "admin",
    "webhooks.list": "admin",
    "webhooks.remove": "admin",
}
"""Every verb → the least role that may use it."""


def identify(connection: Connection, token: str | None, *, local: str | None) -> Actor:
    """
    Who acts.

    Args:
        token: what the caller showed, if anything.
        local: the name of whoever can open the database, who is admin while there are no users; None for a
            caller from afar, who always needs a token.

    Raises:
        Unauthorized: no token, or one that is unknown or revoked.
        RecordTampered: the user's row is not what was recorded.
    """
    if token:
        digest = hashlib.sha256(token.encode()).hexdigest()
        row = connection.execute(select(_TABLE).where(_TABLE.c.digest == digest)).mappings().one_or_none()
        if row is None or row["revoked_at"] is not None:
            raise Unauthorized("that token belongs to no user of this registry, or was revoked")
        user = _user(row)
        audit.require(connection, f"user/{user.name}", _recorded(user))
        return Actor(user.name, user.role)
    if local is None:
        message = "send the token of a user as `Authorization: Bearer sgr-…`; `registry users add` makes one"
        raise Unauthorized(message)
    if connection.execute(select(_TABLE.c.name).limit(1)).first() is not None:
        raise Unauthorized
    audit.require(connection, "users", None)
    return Actor(local, "admin")


def require(actor: Actor, verb: str) -> None:
    """
    Check that *actor* may use *verb*.

    Raises:
        Forbidden: the role is too low; the message names the least one that would do.
    """
    if ROLES.index(actor.role) < ROLES.index(VERBS[verb]):
        message = f"{actor.name} is {actor.role}; {verb} takes the role {VERBS[verb]}"
        raise Forbidden(message)


def add_user(
    connection: Connection, name: str, role: UserRole, *, actor: str, now: datetime
) -> tuple[User, str]:
    """
    Make a user; returns it and its token, which is never shown again.

    Raises:
        BadInput: a malformed name, no such role, or a first user who is no admin.
        Conflict: the name was given before, also to somebody revoked.
    """
    check_name(name, "user")
    _check_role(role)
    if get_user(connection, name) is not None:
        raise Conflict(f"user {name!r} is there already; `registry users list` shows everyone")
    first = connection.execute(select(_TABLE.c.name).limit(1)).first() is None
    if first and role != "admin":
        raise BadInput(f"role: the first user is admin, not {role}: somebody has to be able to add the next")
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    user = User(name, role, hashlib.sha256(token.encode()).hexdigest(), now, actor)
    row = {"name": name, "role": role, "digest": user.digest, "created_at": to_text(now), "created_by": actor}
    connection.execute(insert(_TABLE).values(row))
    if first:
        audit.append(connection, "users.begin", "users", {"first": name}, actor=actor, now=now)
    audit.append(connection, "user.add", f"user/{name}", _recorded(user), actor=actor, now=now)
    return user, token


def change_role(connection: Connection, name: str, role: UserRole, *, actor: str, now: datetime) -> User:
    """
    Give a user another role.

    Raises:
        NotFound: no such user.
        BadInput: no such role, or nobody would be left to administer the registry.
    """
    _check_role(role)
    user = _one(connection, name)
    if user.role == "admin" and role != "admin":
        _check_admins(connection, user)
    connection.execute(update(_TABLE).where(_TABLE.c.name == name).values(role=role))
    changed = _one(connection, name)
    audit.append(connection, "user.change", f"user/{name}", _recorded(changed), actor=actor, now=now)
    return changed


def new_token(connection: Connection, name: str, *, actor: str, now: datetime) -> tuple[User, str]:
    """
    Give a user another token; the one before ends now.

    Raises:
        NotFound: no such user.
    """
    _one(connection, name)
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    connection.execute(update(_TABLE).where(_TABLE.c.name == name).values(digest=digest))
    changed = _one(connection, name)
    audit.append(connection, "user.token", f"user/{name}", _recorded(changed), actor=actor, now=now)
    return changed, token


def revoke_user(connection: Connection, name: str, *, actor: str, now: datetime) -> User:
    """
    End a user's token for good. Idempotent.

    Raises:
        NotFound: no such user.
        BadInput: nobody would be left to administer the registry.
    """
    user = get_user(connection, name)
    if user is None:
        raise NotFound(f"no user {name!r}; `registry users list` shows everyone")
    if user.revoked_at is not None:
        return user
    if user.role == "admin":
        _check_admins(connection, user)
    connection.execute(update(_TABLE).where(_TABLE.c.name == name).values(revoked_at=to_text(now)))
    ended = get_user(connection, name)
    assert ended is not None  # noqa: S101 - just written
    audit.append(connection, "user.revoke", f"user/{name}", _recorded(ended), actor=actor, now=now)
    return ended


def list_users(connection: Connection) -> list[User]:
    """Every user, revoked ones too, by name."""
    return [_user(row) for row in connection.execute(select(_TABLE).order_by(_TABLE.c.name)).mappings()]


def get_user(connection: Connection, name: str) -> User | None:
    """The user of this name, or None."""
    row = connection.execute(select(_TABLE).where(_TABLE.c.name == name)).mappings().one_or_none()
    return _user(row) if row is not None else None


def protected(connection: Connection) -> list[tuple[str, dict[str, Any]]]:
    """(target, body) of every row here that the audit chain vouches for."""
    return [(f"user/{user.name}", _recorded(user)) for user in list_users(connection)]


def _one(connection: Connection, name: str) -> User:
    user = get_user(connection, name)
    if user is None or user.revoked_at is not None:
        raise NotFound(f"no user {name!r}; `registry users list` shows everyone")
    return user


def _check_admins(connection: Connection, leaving: User) -> None:
    others = [
        u for u in list_users(connection) if u.role == "admin" and u.revoked_at is None and u != leaving
    ]
    if not others:
        raise BadInput(f"{leaving.name} is the last admin; make another one first")


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise BadInput(f"role {role!r} is not one of {', '.join(ROLES)}")


def _recorded(user: User) -> dict[str, Any]:
    return {
        "role": user.role,
        "token": user.digest,
        "revoked_at": to_text(user.revoked_at) if user.revoked_at else None,
    }


def _user(row: RowMapping) -> User:
    return User(
        name=row["name"],
        role=row["role"],
        digest=row["digest"],
        created_at=from_text(row["created_at"]),
        created_by=row["created_by"],
        revoked_at=from_text(row["revoked_at"]) if row["revoked_at"] else None,
    )
