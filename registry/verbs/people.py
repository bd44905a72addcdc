"""Users and what they may do."""

from __future__ import annotations

from typing import Any

from registry import access
from registry.clock import to_text, utc_now
from registry.entities import User, UserRole
from registry.verbs.session import Session


def add(session: Session, name: str, role: UserRole) -> dict[str, Any]:
    """Make a user; `token` is shown this once. The first user has to be an admin."""
    with session.acting("users.add") as (connection, who):
        user, secret = access.add_user(connection, name, role, actor=who, now=utc_now())
    return {"ok": True, **_plain(user), "token": secret}


def listing(session: Session) -> dict[str, Any]:
    """Everybody who may or once might act here."""
    with session.viewing("users.list") as connection:
        return {"users": [_plain(user) for user in access.list_users(connection)]}


def change(session: Session, name: str, role: UserRole) -> dict[str, Any]:
    """Give a user another role; the token stays."""
    with session.acting("users.change") as (connection, who):
        return {"ok": True, **_plain(access.change_role(connection, name, role, actor=who, now=utc_now()))}


def token(session: Session, name: str) -> dict[str, Any]:
    """Another token for a user, shown this once; the one before ends now."""
    with session.acting("users.change") as (connection, who):
        user, secret = access.new_token(connection, name, actor=who, now=utc_now())
    return {"ok": True, **_plain(user), "token": secret}


def revoke(session: Session, name: str) -> dict[str, Any]:
    """End a user's token for good; the name is not given again."""
    with session.acting("users.revoke") as (connection, who):
        return {"ok": True, **_plain(access.revoke_user(connection, name, actor=who, now=utc_now()))}


def _plain(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "role": user.role,
        "created_at": to_text(user.created_at),
        "created_by": user.created_by,
        "revoked_at": to_text(user.revoked_at) if user.revoked_at else None,
    }
