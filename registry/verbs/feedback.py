"""What people say of answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from registry import feedback
from registry.verbs.session import Session


def listing(session: Session, **wanted: Any) -> dict[str, Any]:  # noqa: ANN401
    """What was said, newest first; *wanted* as `feedback.listing` takes it."""
    with session.viewing("feedback.list") as connection:
        return feedback.listing(connection, **wanted)


def every(session: Session, **wanted: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """All that was said, oldest first; *wanted* as `feedback.every` takes it."""
    with session.viewing("feedback.list") as connection:
        yield from feedback.every(connection, **wanted)
