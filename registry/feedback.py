"""
What people say of answers, and what turned out to be true: by request, for as long as usage is kept.

It is kept apart from the usage record that it is about, with what that record says of release and model, so
that it can be exported without it. Comments are personal data: `audit_keep.erase` deletes what a person said.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, delete, insert, select, update

from registry import tables
from registry.clock import to_text
from registry.entities import Feedback, UsageEntry
from registry.errors import BadInput
from registry.ids import sortable_id

_TABLE = tables.feedback
_WHOLE = -1
"""Stored as the row of what is about no single one."""
_AT_ONCE = 1_000
COLUMNS = (
    "id", "request_id", "row", "name", "user", "account", "release", "digest", "model", "score", "label",
    "comment", "created_at", "updated_at",
)  # fmt: skip
"""Of every listing and export, in this order."""


def give(connection: Connection, entry: UsageEntry, said: Feedback, *, now: datetime) -> tuple[str, bool]:
    """
    Note what was said of the request *entry*; returns its id and whether it is new.

    Said again of the same request and row under the same name by the same user it changes what was said,
    and what it leaves out stays: a label that comes later needs no score.

    Raises:
        BadInput: a row that the request did not predict.
    """
    if said.row is not None and said.row >= entry.rows:
        message = f"row: {said.row} is none of the {entry.rows} that request {entry.request_id} predicted"
        raise BadInput(message)
    at = to_text(now)
    given = {name: getattr(said, name) for name in ("score", "label", "comment")}
    given = {name: value for name, value in given.items() if value is not None}
    row = _WHOLE if said.row is None else said.row
    same = (
        (_TABLE.c.request_id == entry.request_id)
        & (_TABLE.c.row == row)
        & (_TABLE.c.name == said.name)
        & (_TABLE.c.user == said.user)
    )
    known = connection.execute(select(_TABLE.c.id).where(same)).scalar()
    if known is not None:
        connection.execute(update(_TABLE).where(same).values(updated_at=at, **given))
        return str(known), False
    made: dict[str, Any] = {
        "id": sortable_id("fb", now), "request_id": entry.request_id, "row": row, "name": said.name,
        "user": said.user, "account": entry.account, "release": entry.release, "digest": entry.digest,
        "model": entry.model, "created_at": at, "updated_at": at,
    }  # fmt: skip
    connection.execute(insert(_TABLE).values(made | given))
    return str(made["id"]), True


def listing(
    connection: Connection,
    *,
    release: str | None = None,
    name: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: str | None = None,
    limit: int = 100,
) -> dict[str, Any]:
    """
    What was said, newest first.

    Args:
        since: first said then or later; *until*: before that.
        before: `next` of the page before.

    Returns:
        `feedback`, each with the keys of `COLUMNS`, and `next` for the page after, None at the end.
    """
    query = _wanted(release, name, since, until)
    if before is not None:
        query = query.where(_TABLE.c.id < before)
    rows = connection.execute(query.order_by(_TABLE.c.id.desc()).limit(limit + 1)).mappings().all()
    return {
        "feedback": [_plain(row) for row in rows[:limit]],
        "next": rows[limit - 1]["id"] if len(rows) > limit else None,
    }


def every(
    connection: Connection,
    *,
    release: str | None = None,
    name: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[dict[str, Any]]:
    """All that was said, oldest first, without holding it in memory; otherwise as `listing`."""
    query, after = _wanted(release, name, since, until).order_by(_TABLE.c.id).limit(_AT_ONCE), ""
    while True:
        rows = connection.execute(query.where(_TABLE.c.id > after)).mappings().all()
        yield from map(_plain, rows)
        if len(rows) < _AT_ONCE:
            return
        after = rows[-1]["id"]


def prune(connection: Connection, before: datetime) -> int:
    """Delete what was last said before *before*. Returns how much."""
    return connection.execute(delete(_TABLE).where(_TABLE.c.updated_at < to_text(before))).rowcount


def _wanted(
    release: str | None, name: str | None, since: datetime | None, until: datetime | None
) -> Select[Any]:
    query = select(_TABLE)
    for column, value in ((_TABLE.c.release, release), (_TABLE.c.name, name)):
        if value is not None:
            query = query.where(column == value)
    if since is not None:
        query = query.where(_TABLE.c.created_at >= to_text(since))
    if until is not None:
        query = query.where(_TABLE.c.created_at < to_text(until))
    return query


def _plain(row: RowMapping) -> dict[str, Any]:
    return {name: row[name] for name in COLUMNS} | {"row": None if row["row"] == _WHOLE else row["row"]}
