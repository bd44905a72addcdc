"""All rows that the audit chain vouches for: what was recorded of them must still be what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, select

from registry import (
    access,
    accounts,
    approvals,
    audit_keep,
    evaluations,
    evidence,
    history,
    labels,
    limits,
    splits,
    tables,
    versions,
    webhooks,
)

_MOVES = tables.alias_moves


def rows(connection: Connection) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """
    (target, body) of every row but the moves of aliases; the last record about the target has this body.

    A body of None says only that there is a record.
    """
    yield from versions.protected(connection)
    yield from evidence.protected(connection)
    yield from evaluations.protected(connection)
    yield from access.protected(connection)
    yield from approvals.protected(connection)
    yield from labels.protected(connection)
    yield from splits.protected(connection)
    yield from accounts.protected(connection)
    yield from limits.protected(connection)
    yield from audit_keep.protected(connection)
    yield from webhooks.protected(connection)


def moves(connection: Connection) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(id, target, body) of every move of an alias, in the order they were made."""
    ids = list(connection.execute(select(_MOVES.c.id).order_by(_MOVES.c.id)).scalars())
    for identity, (_, target, body) in zip(ids, list(history.protected(connection)), strict=True):
        yield identity, target, body
