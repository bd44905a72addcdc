"""Bearer key → Grant, by digest."""

from __future__ import annotations

import hashlib
from datetime import datetime

from gateway.dataplane.table import Grant, RouteTable
from gateway.errors import InvalidKey, MissingKey


def authenticate(authorization: bytes | None, table: RouteTable, now: datetime) -> Grant:
    """
    The grant of the key in an `Authorization` header.

    Args:
        now: aware UTC; decides whether the key has expired.

    Raises:
        MissingKey: there is no header, or it is not `Bearer <key>`.
        InvalidKey: the key is unknown, expired or revoked; which of them is not told.
    """
    if not authorization:
        raise MissingKey
    grant = None
    if authorization[:7] == b"Bearer ":  # as all clients write it
        grant = table.grants.get(hashlib.sha256(authorization[7:]).hexdigest())
    if grant is None:
        scheme, _, key = authorization.strip().partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise MissingKey
        grant = table.grants.get(hashlib.sha256(key.strip()).hexdigest())
    if grant is None or (grant.expires_at is not None and grant.expires_at <= now):
        raise InvalidKey
    return grant
