"""What was used: single records, and sums for each subject and period that are always equal to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
)

from registry import tables
from registry.clock import to_text
from registry.entities import BudgetPeriod, Spending, SubjectKind, UsageEntry
from registry.errors import BadInput

_USAGE, _SPENDING = tables.usage, tables.spending
_EVER = "1970-01-01T00:00:00.000000Z"
_IDS_AT_ONCE = 500
_AT_ONCE = (256, 16, 1)
"""
Rows of one INSERT. Between two statements, and only there, a thread that inserts lets another one run; each
time costs both more than a row.
"""
GROUPS: dict[str, ColumnElement[str]] = {
    "key": _USAGE.c.account,
    "team": _USAGE.c.team,
    "model": _USAGE.c.model,
    "release": _USAGE.c.release,
    "day": func.substr(_USAGE.c.at, literal_column("1"), literal_column("10")),
}
"""What usage can be grouped by."""
_ADD = text(
    "INSERT INTO spending (kind, subject, period, start, microusd, requests, tokens, unpriced) "
    "VALUES (:kind, :subject, :period, :start, :microusd, :requests, :tokens, :unpriced) "
    "ON CONFLICT (kind, subject, period, start) DO UPDATE SET "
    "microusd = spending.microusd + excluded.microusd, requests = spending.requests + excluded.requests, "
    "tokens = spending.tokens + excluded.tokens, unpriced = spending.unpriced + excluded.unpriced"
)
"""The same words in SQLite and PostgreSQL."""


def starts(at: str) -> dict[BudgetPeriod, str]:
    """
    The first instants of the periods that the instant *at* lies in, in UTC; of `total`, the year 1970.

    >>> starts("2026-11-23T02:03:04.000005Z")["month"]
    '2026-11-01T00:00:00.000000Z'
    """
    midnight = "T00:00:00.000000Z"
    return {"day": at[:10] + midnight, "month": at[:7] + "-01" + midnight, "total": _EVER}


def record(connection: Connection, entries: Sequence[UsageEntry]) -> int:
    """Store *entries* and add them to the sums; returns how many were new. Storing twice changes nothing."""
    if not entries:
        return 0
    if connection.dialect.name == "sqlite" and _inserted(connection, entries):
        fresh: Sequence[UsageEntry] = entries
    else:
        known = stored(connection, [entry.request_id for entry in entries])
        fresh = list({e.request_id: e for e in entries if e.request_id not in known}.values())
        if not fresh:
            return 0
        connection.execute(insert(_USAGE), [e._asdict() for e in fresh])
    _add_up(connection, fresh)
    return len(fresh)


def _inserted(connection: Connection, entries: Sequence[UsageEntry]) -> bool:
    """
    Whether all of *entries* were new, and are stored now; nothing is stored when one was not.

    The driver is called directly: this is what a busy gateway does most in the registry.
    """
    savepoint = connection.begin_nested()
    start = 0
    for size in _AT_ONCE:
        statement = _insert(size)
        while len(entries) - start >= size:
            values = tuple(chain.from_iterable(entries[start : start + size]))
            if connection.exec_driver_sql(statement, values).rowcount != size:
                savepoint.rollback()
                return False
            start += size
    savepoint.commit()
    return True


@cache
def _insert(rows: int) -> str:
    columns = ", ".join(f'"{name}"' for name in UsageEntry._fields)
    marks = f"({', '.join('?' * len(UsageEntry._fields))})"
    return f"INSERT OR IGNORE INTO usage ({columns}) VALUES {', '.join([marks] * rows)}"  # noqa: S608 - names of columns


def _add_up(connection: Connection, fresh: Sequence[UsageEntry]) -> None:
    groups: dict[tuple[str, ...], list[int]] = {}
    for entry in fresh:
        cost, tokens = entry.cost_microusd, entry.prompt_tokens + entry.completion_tokens
        key = (
            entry.at[:10], entry.account, entry.team, entry.user, entry.session, entry.release, entry.model,
        )  # fmt: skip
        group = groups.get(key)
        if group is None:
            group = groups[key] = [0, 0, 0, 0]
        group[0] += cost or 0
        group[1] += 1
        group[2] += tokens
        group[3] += cost is None and tokens > 0
    sums: dict[tuple[str, str, str, str], list[int]] = {}
    for (day, account, team, user, session, release, model), group in groups.items():
        some = UsageEntry(
            "", day, account, team=team, user=user, session=session, release=release, model=model
        )
        for kind, subject in subjects(some):
            for period, start in starts(day).items():
                total = sums.setdefault((kind, subject, period, start), [0, 0, 0, 0])
                for place, amount in enumerate(group):
                    total[place] += amount
    # In one order everywhere: two gateways that add at the same time cannot wait for each other in a ring.
    rows = [(*key, *sums[key]) for key in sorted(sums)]
    connection.execute(_ADD, [dict(zip(_SPENDING.c.keys(), row, strict=True)) for row in rows])


def spent(
    connection: Connection,
    kind: SubjectKind,
    subject: str,
    start: str,
    period: BudgetPeriod | None = None,
) -> int:
    """
    Micro-USD that a subject has spent in the period that began at *start*.

    Args:
        period: its kind; by default the longest that began then, as a day and a month may begin at once.
    """
    query = select(func.max(_SPENDING.c.microusd)).where(
        _SPENDING.c.kind == kind, _SPENDING.c.subject == subject, _SPENDING.c.start == start
    )
    if period is not None:
        query = query.where(_SPENDING.c.period == period)
    return int(connection.execute(query).scalar() or 0)


def spendings(connection: Connection, kind: SubjectKind, at: str) -> list[Spending]:
    """What every subject of *kind* used in the day, in the month and in all, that *at* lies in."""
    query = select(_SPENDING).where(
        _SPENDING.c.kind == kind,
        or_(*((_SPENDING.c.period == p) & (_SPENDING.c.start == start) for p, start in starts(at).items())),
    )
    rows = connection.execute(query.order_by(_SPENDING.c.subject, _SPENDING.c.period)).mappings()
    return [Spending(**row) for row in rows]


def usage(
    connection: Connection,
    *,
    by: str,
    since: datetime,
    until: datetime | None = None,
    only: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """
    Sums of single records from *since* to before *until*; days in order, all else largest cost first.

    Args:
        by: what they are grouped by, one of `GROUPS`; keys by their account.
        only: count only records with these values of `GROUPS`.

    Returns:
        For each group its value under *by*; `requests`, `failed` (status 400 and above, or an error in a
        stream), `prompt_tokens`, `cached_tokens` (part of them), `completion_tokens`, `cost_microusd`, and
        `unpriced`: how many requests used tokens that are not in that cost, as no price was known.

    Raises:
        BadInput: *by* or a name in *only* is none of `GROUPS`.
    """
    column, columns = _group(by), _USAGE.c
    cost = func.coalesce(func.sum(columns.cost_microusd), 0)
    tokens = columns.prompt_tokens + columns.completion_tokens
    unpriced = case((columns.cost_microusd.is_(None) & (tokens > 0), 1), else_=0)
    failed = case((or_(columns.status >= 400, columns.error != ""), 1), else_=0)
    query = select(
        column.label(by),
        func.count().label("requests"),
        func.sum(failed).label("failed"),
        func.sum(columns.prompt_tokens).label("prompt_tokens"),
        func.sum(columns.cached_tokens).label("cached_tokens"),
        func.sum(columns.completion_tokens).label("completion_tokens"),
        cost.label("cost_microusd"),
        func.sum(unpriced).label("unpriced"),
    ).where(columns.at >= to_text(since))
    if until is not None:
        query = query.where(columns.at < to_text(until))
    for name, value in (only or {}).items():
        query = query.where(_group(name) == value)
    order = (column,) if by == "day" else (cost.desc(), column)
    rows = connection.execute(query.group_by(column).order_by(*order)).mappings()
    return [{name: value if name == by else int(value) for name, value in row.items()} for row in rows]


def prune(connection: Connection, before: datetime) -> int:
    """Delete single records older than *before*; sums stay. Returns how many."""
    return connection.execute(delete(_USAGE).where(_USAGE.c.at < to_text(before))).rowcount


def stored(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Those of *ids* whose requests are recorded."""
    found: set[str] = set()
    for start in range(0, len(ids), _IDS_AT_ONCE):
        some = ids[start : start + _IDS_AT_ONCE]
        found |= set(
            connection.execute(select(_USAGE.c.request_id).where(_USAGE.c.request_id.in_(some))).scalars()
        )
    return found


def find(connection: Connection, request_id: str) -> UsageEntry | None:
    """The record of one request; None where there is none, or its time to be kept has ended."""
    row = connection.execute(select(_USAGE).where(_USAGE.c.request_id == request_id)).mappings().one_or_none()
    if row is None:
        return None
    return UsageEntry(**{**row, "estimated": bool(row["estimated"])})


def subjects(entry: UsageEntry) -> list[tuple[SubjectKind, str]]:
    """Whom the request counts for."""
    model = entry.model if entry.release.endswith("/*") else entry.release
    pairs: tuple[tuple[SubjectKind, str], ...] = (
        ("key", entry.account), ("team", entry.team), ("user", entry.user), ("session", entry.session),
        ("model", model),
    )  # fmt: skip
    return [(kind, subject) for kind, subject in pairs if subject]


def _group(name: str) -> ColumnElement[str]:
    column = GROUPS.get(name)
    if column is None:
        message = f"usage cannot be grouped by {name!r}; choose {', '.join(GROUPS)}"
        raise BadInput(message)
    return column
