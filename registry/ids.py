"""Identities: digests of content, and ids that sort by the time they were made."""

from __future__ import annotations

import base64
import hashlib
import os
from datetime import UTC, datetime

import rfc8785

from registry.errors import BadInput

PREFIX = "sha256:"
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(first + second for first in _CROCKFORD for second in _CROCKFORD)
_SHIFTS = range(120, -1, -10)
_RANDOM_CHARACTERS = 16
_CHARACTERS = 26
_IDS_AT_ONCE = 64
_FROM_BASE32 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _CROCKFORD.encode())


def canonical(value: object) -> bytes:
    """
    The one JSON text of *value*: sorted keys, no space, fixed numbers (RFC 8785).

    Raises:
        BadInput: NaN, infinity, an integer beyond 2^53, or a type JSON lacks.

    >>> canonical({"b": 1.0, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except (rfc8785.CanonicalizationError, UnicodeError) as error:
        message = f"content cannot be written as canonical JSON: {error}"
        raise BadInput(message) from error


def digest_bytes(data: bytes) -> str:
    """`sha256:` and 64 hex digits over *data*."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def digest(value: object) -> str:
    """The digest of a JSON value: equal values, whatever their key order, have equal digests."""
    return digest_bytes(canonical(value))


def is_digest(text: str) -> bool:
    """Whether *text* is `sha256:` and 64 lower-case hex digits."""
    return (
        text.startswith(PREFIX)
        and len(text) == len(PREFIX) + 64
        and set(text[len(PREFIX) :]) <= set("0123456789abcdef")
    )


def short(text: str) -> str:
    """The first 12 hex digits of a digest, for people."""
    return text.removeprefix(PREFIX)[:12]


def sortable_id(prefix: str, at: datetime) -> str:
    """
    *prefix*, then 26 characters: 48 bits of milliseconds, 80 random bits (the ULID layout).

    Ids made in different milliseconds sort in that order. Safe to call from any thread.
    """
    number = int(at.timestamp() * 1000) << 80 | int.from_bytes(os.urandom(10))
    return f"{prefix}_{''.join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])}"


def made_at(identity: str) -> datetime | None:
    """
    When `sortable_id` made *identity*, to the millisecond; None where it did not.

    >>> made_at(sortable_id("req", datetime(2026, 1, 2, tzinfo=UTC)))
    datetime.datetime(2026, 1, 2, 0, 0, tzinfo=datetime.timezone.utc)
    >>> made_at("req_1") is None
    True
    """
    text = identity.rpartition("_")[2]
    if len(text) != _CHARACTERS or not set(text) <= set(_CROCKFORD) or text[0] > "7":
        return None
    milliseconds = 0
    for character in text[:-_RANDOM_CHARACTERS]:
        milliseconds = milliseconds << 5 | _CROCKFORD.index(character)
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError):
        return None


class SortableIds:
    """`sortable_id` for who needs many: randomness is taken for several at once. Not thread-safe."""

    __slots__ = ("_at", "_millisecond", "_prefix", "_random", "_time")

    def __init__(self, prefix: str) -> None:
        """Ids begin with *prefix*. Made after a fork: two processes must not share one."""
        self._prefix = prefix
        self._millisecond = -1
        self._time = ""
        self._random = ""
        self._at = 0

    def next(self, seconds: float) -> str:
        """An id of the moment *seconds* after 1970."""
        millisecond = int(seconds * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            digits = [_PAIRS[millisecond >> shift & 1023] for shift in (40, 30, 20, 10, 0)]
            self._time = f"{self._prefix}_{''.join(digits)}"
        start = self._at
        if start == len(self._random):
            drawn = base64.b32encode(os.urandom(10 * _IDS_AT_ONCE))
            self._random = drawn.translate(_FROM_BASE32).decode("ascii")
            start = 0
        self._at = end = start + _RANDOM_CHARACTERS
        return self._time + self._random[start:end]
