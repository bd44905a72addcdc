"""Pages of versions, and what there is under a name or digest one half remembers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, and_, func, or_, select

from registry import tables, versions
from registry.clock import to_text
from registry.entities import Kind, Version
from registry.errors import BadInput
from registry.ids import PREFIX

_TABLE = tables.versions
_LEAST_HEX = 4
_HEX = frozenset("0123456789abcdef")


def page(
    connection: Connection,
    kind: Kind | None = None,
    name: str | None = None,
    *,
    limit: int = 100,
    before: str | None = None,
) -> tuple[list[dict[str, Any]], str | None]:
    """
    A page of versions, newest first, without their content; and the cursor of the next page, None at the end.

    Args:
        kind: only of this kind; None: of every kind.
        before: cursor of the page before, as it was given out.

    Raises:
        BadInput: a cursor that no page gave out.
    """
    query = _summaries()
    if kind is not None:
        query = query.where(_TABLE.c.kind == kind)
    if name is not None:
        query = query.where(_TABLE.c.name == name)
    # Of one name by number: versions that were pushed in one transaction have ids in no order.
    column: Column[Any] = _TABLE.c.number if kind is not None and name is not None else _TABLE.c.id
    if before is not None:
        query = query.where(column < _cursor(before, column))
    rows = connection.execute(query.order_by(column.desc()).limit(limit + 1)).mappings().all()
    found, more = rows[:limit], rows[limit:]
    return [_plain(dict(row)) for row in found], (str(found[-1][column.name]) if more else None)


def search(
    connection: Connection,
    text: str,
    kind: Kind | None = None,
    *,
    limit: int = 100,
    after: str | None = None,
) -> tuple[list[dict[str, Any]], str | None]:
    """
    What there is whose name contains *text*, or whose digest begins with it, by kind and name; the cursor of
    the next page.

    Of each name the newest version; of a digest the very version. A digest is `sha256:` with at least 4 hex
    digits, or only those.

    Raises:
        BadInput: an empty text, or a cursor that no page gave out.
    """
    text = text.strip().lower()
    if not text:
        message = "search: give a part of a name, or the beginning of a digest"
        raise BadInput(message)
    newest = select(_TABLE.c.kind, _TABLE.c.name, func.max(_TABLE.c.number).label("number"))
    newest = newest.where(_TABLE.c.name.contains(text, autoescape=True))
    if kind is not None:
        newest = newest.where(_TABLE.c.kind == kind)
    if after is not None:
        newest = newest.where(_later(after))
    newest = newest.group_by(_TABLE.c.kind, _TABLE.c.name).order_by(_TABLE.c.kind, _TABLE.c.name)
    names = connection.execute(newest.limit(limit + 1)).all()
    found = [] if after is not None else _by_digest(connection, text, kind, limit)
    known = {(row["kind"], row["name"], row["number"]) for row in found}
    for chosen in names[:limit]:
        if tuple(chosen) not in known:
            where = (column == value for column, value in zip(_KEY, chosen, strict=True))
            found.append(dict(connection.execute(_summaries().where(*where)).mappings().one()))
    last = names[limit - 1] if len(names) > limit else None
    return [_plain(row) for row in found], f"{last.kind}/{last.name}" if last is not None else None


def summary(version: Version) -> dict[str, Any]:
    """A version without its content, as plain JSON."""
    return {
        "kind": version.kind,
        "name": version.name,
        "number": version.number,
        "digest": version.digest,
        "created_at": to_text(version.created_at),
        "created_by": version.created_by,
    }


def _cursor(before: str, column: Column[Any]) -> str | int:
    if column.name == "number" and before.isascii() and before.isdecimal() and len(before) < 16:
        return int(before)
    if column.name == "id" and before.startswith("ver_") and before.isascii():
        return before
    message = f"before: {before[:60]!r} is no cursor that such a page gave out as `next`"
    raise BadInput(message)


_KEY = (_TABLE.c.kind, _TABLE.c.name, _TABLE.c.number)
_SUMMARY = ("kind", "name", "number", "digest", "created_at", "created_by")


def _summaries() -> Select[Any]:
    return select(_TABLE.c.id, *(_TABLE.c[name] for name in _SUMMARY))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _SUMMARY}


def _later(after: str) -> ColumnElement[bool]:
    kind, slash, name = after.partition("/")
    if not slash or kind not in versions.GROUPS:
        message = f"after: {after[:60]!r} is no cursor that a page gave out as `next`"
        raise BadInput(message)
    return or_(_TABLE.c.kind > kind, and_(_TABLE.c.kind == kind, _TABLE.c.name > name))


def _by_digest(connection: Connection, text: str, kind: Kind | None, limit: int) -> list[dict[str, Any]]:
    digits = text.removeprefix(PREFIX)
    if len(digits) < _LEAST_HEX or not _HEX.issuperset(digits):
        return []
    first = PREFIX + digits
    within = _TABLE.c.digest >= first, _TABLE.c.digest < first + "g"
    query = _summaries().where(*within)
    if kind is not None:
        query = query.where(_TABLE.c.kind == kind)
    rows = connection.execute(query.order_by(_TABLE.c.digest, _TABLE.c.kind, _TABLE.c.name).limit(limit))
    return [dict(row) for row in rows.mappings()]
