"""Key → Grant, by digest."""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import datetime

from gateway.dataplane.table import Grant, RouteTable
from gateway.errors import InvalidKey, MissingKey


def authenticate(authorization: bytes | None, table: RouteTable, now: datetime) -> Grant:
    """
    The grant of the key in an `Authorization` header: `Bearer <key>`, or `Basic` with the key as password,
    which is what clients send that know only users and passwords (RFC 7617).

    Args:
        now: aware UTC; decides whether the key has expired.

    Raises:
        MissingKey: there is no header, or it is neither of the two.
        InvalidKey: the key is unknown, expired or revoked; which of them is not told.
    """
    if not authorization:
        raise MissingKey
    grant = None
    if authorization[:7] == b"Bearer ":  # as all clients write it
        grant = table.grants.get(hashlib.sha256(authorization[7:]).hexdigest())
    if grant is None:
        scheme, _, key = authorization.strip().partition(b" ")
        key = key.strip()
        if scheme.lower() == b"basic":
            key = _password(key)
        elif scheme.lower() != b"bearer":
            key = b""
        if not key:
            raise MissingKey
        grant = table.grants.get(hashlib.sha256(key).hexdigest())
    if grant is None or (grant.expires_at is not None and grant.expires_at <= now):
        raise InvalidKey
    return grant


def _password(credentials: bytes) -> bytes:
    """The password of Basic credentials; empty where there is none."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
