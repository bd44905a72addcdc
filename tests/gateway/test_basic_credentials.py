"""Which header is which key."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

import pytest

from gateway.dataplane.auth import authenticate
from gateway.dataplane.table import Grant, RouteTable
from gateway.errors import InvalidKey, MissingKey

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize("user", [b"", b"key", b"ann:", b"\xff"])
def test_the_password_of_basic_credentials_is_the_key(user: bytes) -> None:
    grant = Grant("key_1", ("*",))
    table = RouteTable(grants={hashlib.sha256(b"sk-sg-a:b").hexdigest(): grant})
    if b":" in user:
        with pytest.raises(InvalidKey):
            authenticate(basic(user + b":sk-sg-a:b"), table, NOW)
    else:
        assert authenticate(basic(user + b":sk-sg-a:b"), table, NOW) is grant


@pytest.mark.parametrize(
    "header", [b"Basic", b"Basic ", b"Basic !!", b"Basic " + b"YQ", basic(b"no colon"), b"Digest x"]
)
def test_credentials_without_a_password_are_no_key(header: bytes) -> None:
    with pytest.raises(MissingKey):
        authenticate(header, RouteTable(), NOW)
