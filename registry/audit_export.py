"""What the audit chain says: to read here, or to take away in a file that verifies without a database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, RowMapping, Select, func, select

from registry import audit, audit_keep, tables
from registry.anchor import Head
from registry.clock import to_text
from registry.errors import AuditTampered, BadInput, NotFound, StoreUnavailable

FORMAT = "sluicegate-audit-v1"
AT_ONCE = 5000
"""Records that are in memory at the same time."""
_TABLE, _KEYS, _SUBJECTS = tables.audit, tables.audit_keys, tables.subject_keys
_GONE = b"null"
_SKEW = timedelta(days=1)
"""How far the clocks of those who append may be apart, for finding a time without reading every record."""


class Row(NamedTuple):
    """A stored record, in the order that `stored` selects and `audit_verify.Chain` reads."""

    seq: int
    at: str
    kind: str
    action: str
    actor: str
    target: str
    subject: str | None
    body: str | None
    body_digest: str
    previous: str
    hash: str
    key_id: str | None
    signature: str | None


class Header(msgspec.Struct, frozen=True):
    """The first line of an export."""

    format: str
    exported_at: str
    first: int
    last: int
    previous: str
    """Hash of the record before *first*."""
    head: Head
    """The end of the whole chain at that moment."""
    keys: dict[str, str]
    """Id → PEM of every key that signed, for information: who verifies brings keys of his own."""


class _Line(msgspec.Struct):
    seq: int
    at: str
    kind: str
    action: str
    actor: str
    target: str
    subject: str | None
    body: msgspec.Raw
    """As it is stored, to the byte; `null` where it is gone."""
    body_digest: str
    previous: str
    hash: str
    key_id: str | None
    signature: str | None


def listing(
    connection: Connection,
    *,
    target: str | None = None,
    action: str | None = None,
    actor: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 100,
    unseal: bool = False,
) -> dict[str, Any]:
    """
    Records, newest first, as they are stored: nothing is verified.

    Args:
        target: exactly this one, or with `*` at its end what begins so; *action* and *actor* likewise.
        since: at this time or later; *until*: before that one.
        before: only records with a smaller number: `next` of the page before.
        unseal: decrypt what is sealed for persons who are not erased.

    Returns:
        `records`, and `next` for the page after this one, None at the end. Of each record `state` is `whole`,
        `pruned` (its body's retention ended) or `erased` (the person it is about was).
    """
    query = _within(connection, select(_TABLE), since, until)
    for column, wanted in ((_TABLE.c.target, target), (_TABLE.c.action, action), (_TABLE.c.actor, actor)):
        if wanted is not None and wanted.endswith("*"):
            query = query.where(column >= wanted[:-1], column < wanted[:-1] + "\U0010ffff")
        elif wanted is not None:
            query = query.where(column == wanted)
    if before is not None:
        query = query.where(_TABLE.c.seq < before)
    rows = connection.execute(query.order_by(_TABLE.c.seq.desc()).limit(limit + 1)).mappings().all()
    more, rows = rows[limit:], rows[:limit]
    known = _known(connection, rows)
    return {
        "records": [_plain(connection, row, known, unseal=unseal) for row in rows],
        "next": rows[-1]["seq"] if more else None,
    }


def stored() -> Select[Any]:
    """Every column of every record as a `Row`, oldest first; *AT_ONCE* of them are fetched at once."""
    columns = [_TABLE.c[name] for name in Row._fields]
    return select(*columns).order_by(_TABLE.c.seq).execution_options(yield_per=AT_ONCE)


def export(
    connection: Connection,
    path: Path,
    *,
    now: datetime,
    since: datetime | None = None,
    until: datetime | None = None,
) -> dict[str, Any]:
    """
    Write the records from *since* to *until* to *path*, one JSON object a line after a `Header`.

    The file holds an unbroken piece of the chain, up to a signed record: at its end there may be some that
    are younger than *until*. It takes the place of *path* once it is whole.

    Raises:
        AuditTampered: the end of the chain does not hold.
        NotFound: there is no record of that time.
        StoreUnavailable: the file cannot be written.
    """
    head = audit.head(connection)
    bounds = _within(connection, select(func.min(_TABLE.c.seq), func.max(_TABLE.c.seq)), since, until)
    first, last = connection.execute(bounds).one()
    if head is None or first is None:
        raise NotFound("the audit chain has no record of that time")
    signed = select(func.min(_TABLE.c.seq)).where(_TABLE.c.seq >= last, _TABLE.c.signature.is_not(None))
    last = connection.execute(signed).scalar() or last
    before = connection.execute(select(_TABLE.c.hash).where(_TABLE.c.seq == first - 1)).scalar()
    keys = {row.key_id: row.public_key for row in connection.execute(select(_KEYS).order_by(_KEYS.c.key_id))}
    header = Header(FORMAT, to_text(now), first, last, before or audit.START, head, keys)
    aside = path.with_name(f"{path.name}.new")
    encoder = msgspec.json.Encoder()
    try:
        with aside.open("wb") as file:
            file.write(encoder.encode(header) + b"\n")
            found = connection.execute(stored().where(_TABLE.c.seq.between(first, last)))
            for some in found.partitions():
                file.write(encoder.encode_lines([_line(Row._make(row)) for row in some]))
        aside.replace(path)
    except OSError as error:
        raise StoreUnavailable(f"{path}: cannot be written: {error.strerror}") from error
    return {
        "file": str(path),
        "first": first,
        "last": last,
        "records": last - first + 1,
        "head": head._asdict(),
        "keys": sorted(keys),
    }


def read(path: Path) -> tuple[Header, Iterator[list[Row]]]:
    """
    The header of an export, and its records some at a time.

    Raises:
        BadInput: the file cannot be read, or is no export.
        AuditTampered: from the iterator: a line is no record.
    """
    try:
        with path.open("rb") as file:
            header = msgspec.json.decode(file.readline(), type=Header)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: is no export of an audit chain") from error
    if header.format != FORMAT:
        raise BadInput(f"{path}: has format {header.format!r}; this version reads {FORMAT}")
    return header, _rows(path)


def _rows(path: Path) -> Iterator[list[Row]]:
    decoder = msgspec.json.Decoder(_Line)
    rows: list[Row] = []
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if number == 1:
                continue
            try:
                line = decoder.decode(text)
                body = None if bytes(line.body) == _GONE else bytes(line.body).decode()
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise AuditTampered(f"{path}, line {number}: is no audit record") from error
            values = {name: getattr(line, name) for name in _Line.__struct_fields__} | {"body": body}
            rows.append(Row(**values))
            if len(rows) == AT_ONCE:
                yield rows
                rows = []
    yield rows


def _line(row: Row) -> _Line:
    values: dict[str, Any] = row._asdict()
    return _Line(**values | {"body": msgspec.Raw(_GONE if row.body is None else row.body.encode())})


def _within(
    connection: Connection, query: Select[Any], since: datetime | None, until: datetime | None
) -> Select[Any]:
    """*query* for records of that time; the bounds on their numbers spare reading all the others."""
    if since is not None:
        query = query.where(_TABLE.c.at >= to_text(since), _TABLE.c.seq >= _first(connection, since - _SKEW))
    if until is not None:
        query = query.where(_TABLE.c.at < to_text(until), _TABLE.c.seq <= _first(connection, until + _SKEW))
    return query


def _first(connection: Connection, at: datetime) -> int:
    """About the first record of that time, by halving."""
    low, high = 1, (connection.execute(select(func.max(_TABLE.c.seq))).scalar() or 0) + 1
    wanted = to_text(at)
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(select(_TABLE.c.at).where(_TABLE.c.seq == middle)).scalar()
        if found is not None and found >= wanted:
            high = middle
        else:
            low = middle + 1
    return low


def _known(connection: Connection, rows: Sequence[RowMapping]) -> set[str]:
    """Which persons that *rows* are about are not erased."""
    subjects = {row["subject"] for row in rows if row["subject"] is not None}
    return set(
        connection.execute(select(_SUBJECTS.c.subject).where(_SUBJECTS.c.subject.in_(subjects))).scalars()
    )


def _plain(connection: Connection, row: RowMapping, known: set[str], *, unseal: bool) -> dict[str, Any]:
    body = _decoded(row["body"])
    state = "whole" if row["body"] is not None else "pruned"
    if row["subject"] is not None and row["subject"] not in known:
        state = "erased"
    elif unseal and isinstance(body, Mapping) and "sealed" in body and row["subject"] is not None:
        body = {**body, "sealed": audit_keep.unseal(connection, row["subject"], str(body["sealed"]))}
    return {
        "seq": row["seq"],
        "at": row["at"],
        "kind": row["kind"],
        "action": row["action"],
        "actor": row["actor"],
        "target": row["target"],
        "subject": row["subject"],
        "state": state,
        "body": body,
        "hash": row["hash"],
    }


def _decoded(text: str | None) -> Any:  # noqa: ANN401 - any JSON
    try:
        return None if text is None else msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return {"unreadable": True}
