"""The one place that reads the wall clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from registry.errors import BadInput

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The current instant, aware, in UTC, cut to microseconds."""
    return datetime.now(UTC)  # noqa: TID251 - the one place


def to_text(instant: datetime) -> str:
    """
    RFC 3339 text in UTC with microseconds: sorts like time itself.

    >>> to_text(datetime(2026, 1, 2, tzinfo=UTC))
    '2026-01-02T00:00:00.000000Z'
    """
    if instant.tzinfo is None:
        message = "a time without a zone cannot be stored; use an aware UTC datetime"
        raise BadInput(message)
    if instant.tzinfo is not UTC:
        instant = instant.astimezone(UTC)
    return instant.isoformat(timespec="microseconds")[:-6] + "Z"


def from_text(text: str) -> datetime:
    """
    The aware instant that RFC 3339 *text* names.

    Raises:
        BadInput: not a time, or a time without a zone.

    >>> from_text("2026-01-02T00:00:00Z")
    datetime.datetime(2026, 1, 2, 0, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{text!r} is not an RFC 3339 time such as 2026-01-02T15:04:05Z"
        raise BadInput(message) from error
    if instant.tzinfo is None:
        message = f"{text!r} has no zone; append Z for UTC"
        raise BadInput(message)
    return instant.astimezone(UTC)
