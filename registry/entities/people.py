"""Who acts on the registry, and what was recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

UserRole = Literal["viewer", "editor", "promoter", "admin"]
OIDC = "oidc:"
"""Whom an issuer's token names acts under this and the token's subject."""
AuditClass = Literal["admin", "decision"]
"""What is kept how long: what people changed, and what the gateway decided about requests."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, once that is known."""

    name: str
    role: UserRole


@dataclass(frozen=True, slots=True)
class User:
    """What is kept of somebody who may act on the registry: never the token itself."""

    name: str
    role: UserRole
    digest: str
    """SHA-256 of the token, hex."""
    created_at: datetime
    created_by: str
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's consent to one release at one alias."""

    name: str
    digest: str
    """Of the release."""
    alias: str
    approver: str
    comment: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One link of the audit chain."""

    seq: int
    """1, 2, 3 … without a gap."""
    at: datetime
    kind: AuditClass
    action: str
    """What happened, such as `alias.promote`."""
    actor: str
    target: str
    """To what, such as `release/support@production`."""
    subject: str | None
    """Random id of the person it is about; None where it is about nobody."""
    body_digest: str
    body: Mapping[str, Any] | None
    """None once its retention has ended; the chain holds without it."""
    previous: str
    """Hash of the record before; of the first, 64 zeros."""
    hash: str
    """Hex SHA-256 over all of the above but *body*."""
    key_id: str | None
    """Key that signed the chain up to here; None inside of a batch, which is signed at its end."""
    signature: str | None
    """Base64."""
