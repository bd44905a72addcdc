"""
Garbage collection: versions that nothing reaches any more, and blobs that no version names.

Reached is what an alias, a traffic split, a label, an approval or a legal hold names, what a guarded alias
ever pointed at, every gate policy, the newest of each name, what came here lately; and whatever one of these
mentions by digest, or evidence about it rests on. Rows go first, in one audited transaction; blobs after its
commit, so that a crash leaves a blob too many and never one too few.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select

from registry import audit, tables, versions
from registry.artifacts import Artifacts, Blob
from registry.bundle import Bar, silent
from registry.db import bump_revision
from registry.entities import Kind
from registry.errors import BadInput, EvidenceTampered
from registry.evidence import claim
from registry.history import OPEN_ALIASES
from registry.ids import sortable_id

Reading = Callable[[], AbstractContextManager[Connection]]
Acting = Callable[[], AbstractContextManager[tuple[Connection, str]]]
IN_FLIGHT = timedelta(hours=1)
"""Blobs put this recently stay: the version that names them may not be written yet."""
_ABANDONED = timedelta(days=1)
_MOST_AT_ONCE = 500
_MOST_LISTED = 1000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BLOBS: dict[Kind, str] = {"model": "artifact", "dataset": "artifact", "index": "passages_digest"}
_TABLE, _EVIDENCE = tables.versions, tables.evidence


class Row(NamedTuple):
    """A version as collection sees it."""

    id: str
    kind: Kind
    name: str
    number: int
    digest: str
    size: int
    """Characters of its content."""


def mentions(text: str) -> set[str]:
    """Every digest that a stored content mentions, of whatever it may be."""
    return set(_DIGEST.findall(text))


def blob_of(kind: Kind, content: Any) -> str | None:  # noqa: ANN401
    """The digest of the blob that a version of *kind* cannot do without, or None."""
    key = _BLOBS.get(kind)
    return None if key is None else str(content[key])


def collect(
    reading: Reading,
    acting: Acting,
    artifacts: Artifacts,
    *,
    now: datetime,
    keep_days: int = 30,
    keep_newest: int = 5,
    dry_run: bool = False,
    bar: Bar = silent,
) -> dict[str, Any]:
    """
    Remove what nothing reaches. Safe beside pushes and promotions.

    Args:
        reading: opens a read transaction for somebody who may collect.
        acting: opens a write transaction likewise.
        keep_days: versions that came here within so many days stay.
        keep_newest: as do this many of each name, at least 1.
        dry_run: look, and remove nothing.

    Returns:
        `versions` and `blobs`, at most 1,000 of each; how many there are of each and their `bytes`;
        `unfinished` uploads that were swept away.

    Raises:
        BadInput: *keep_days* or *keep_newest* is too small.
    """
    if keep_newest < 1 or keep_days < 0:
        message = (
            "keep-newest is at least 1 and keep-days at least 0: the newest version of a name always stays"
        )
        raise BadInput(message)
    since = now - timedelta(days=keep_days)
    gone: list[Row]
    if dry_run:
        with reading() as connection:
            gone = unreached(connection, since=since, newest=keep_newest)
    else:
        with acting() as (connection, who):
            gone = unreached(connection, since=since, newest=keep_newest)
            _remove(connection, gone, actor=who, now=now)
    old = [blob for blob in artifacts.blobs() if blob.at < now - IN_FLIGHT]
    with reading() as connection:
        named = _named(connection, {row.id for row in gone})
    loose = [blob for blob in old if blob.digest not in named]
    removed = loose if dry_run else list(_delete(artifacts, loose, now - IN_FLIGHT, bar))
    return {
        "ok": True,
        "dry_run": dry_run,
        "versions": [_shown(row) for row in gone[:_MOST_LISTED]],
        "blobs": [{"digest": blob.digest, "bytes": blob.size} for blob in removed[:_MOST_LISTED]],
        "version_count": len(gone),
        "blob_count": len(removed),
        "bytes": sum(blob.size for blob in removed) + sum(row.size for row in gone),
        "unfinished": 0 if dry_run else artifacts.sweep(now - _ABANDONED),
    }


def unreached(connection: Connection, *, since: datetime, newest: int) -> list[Row]:
    """
    The versions that nothing reaches, in the order they came here.

    Args:
        since: what came here at or after this stays.
        newest: as do this many of each name.
    """
    rows, edges = _graph(connection)
    by_digest: dict[str, list[Row]] = {}
    for row in rows:
        by_digest.setdefault(row.digest, []).append(row)
    waiting = [digest for digest in _roots(connection, rows, since, newest) if digest in by_digest]
    for release, bound in _evidence(connection):
        edges.setdefault(release, set()).update(bound)
    reached = set(waiting)
    while waiting:
        for digest in edges.get(waiting.pop(), ()):
            if digest in by_digest and digest not in reached:
                reached.add(digest)
                waiting.append(digest)
    return [row for row in rows if row.digest not in reached]


def _graph(connection: Connection) -> tuple[list[Row], dict[str, set[str]]]:
    """Every version, by the time it came here; and digest → digests its content mentions."""
    rows, edges = [], {}
    for row in connection.execute(select(_TABLE).order_by(_TABLE.c.id).execution_options(yield_per=500)):
        rows.append(Row(row.id, row.kind, row.name, row.number, row.digest, len(row.content)))
        edges[row.digest] = mentions(row.content) | mentions(row.meta)
    return rows, edges


def _roots(connection: Connection, rows: list[Row], since: datetime, newest: int) -> Iterator[str]:
    aliases, moves, labels, approvals = tables.aliases, tables.alias_moves, tables.labels, tables.approvals
    for column in (aliases.c.digest, labels.c.digest, approvals.c.digest):
        yield from connection.execute(select(column)).scalars()
    for content in connection.execute(select(tables.splits.c.content)).scalars():
        yield from mentions(content)
    guarded = select(moves.c.from_digest, moves.c.to_digest).where(moves.c.alias.not_in(OPEN_ALIASES))
    for earlier, later in connection.execute(guarded):
        yield from (digest for digest in (earlier, later) if digest)
    holds = tables.legal_holds
    query = select(holds.c.scope).where(holds.c.released_at.is_(None))
    held = tuple(connection.execute(query).scalars())
    seen: dict[tuple[str, str], int] = {}
    start = sortable_id("ver", since)[:14]
    for row in sorted(rows, key=lambda row: -row.number):
        place = seen[row.kind, row.name] = seen.get((row.kind, row.name), 0) + 1
        recent = place <= newest or row.id[:14] >= start
        target = versions.target(row.kind, row.name, row.number)
        if recent or row.kind == "gate-policy" or target.startswith(held):
            yield row.digest


def _evidence(connection: Connection) -> Iterator[tuple[str, set[str]]]:
    """(release, digests of what evidence about it rests on)."""
    query = select(_EVIDENCE.c.release_digest, _EVIDENCE.c.envelope).execution_options(yield_per=500)
    for release, envelope in connection.execute(query):
        try:
            said = claim(_parsed(envelope))
        except EvidenceTampered:
            continue  # it justifies nothing, so it keeps nothing
        bound = {said.suite, said.dataset, said.baseline, said.gate_policy, *(d for _, d in said.judges)}
        yield release, {digest for digest in bound if digest}


def _remove(connection: Connection, gone: list[Row], *, actor: str, now: datetime) -> None:
    files = tables.prompt_files
    for start in range(0, len(gone), _MOST_AT_ONCE):
        rows = gone[start : start + _MOST_AT_ONCE]
        connection.execute(delete(_TABLE).where(_TABLE.c.id.in_([row.id for row in rows])))
        for row in rows:
            if row.kind == "prompt":
                own = files.c.kind == row.kind, files.c.name == row.name, files.c.digest == row.digest
                connection.execute(delete(files).where(*own))
        body = {
            "collected": [versions.target(row.kind, row.name, row.number) for row in rows],
            "digests": [row.digest for row in rows],
        }
        audit.append(connection, "registry.collect", "registry", body, actor=actor, now=now)
    if gone:
        bump_revision(connection)


def _named(connection: Connection, without: set[str]) -> set[str]:
    """Every digest that a version mentions, but those whose ids are in *without*."""
    named: set[str] = set()
    query = select(_TABLE.c.id, _TABLE.c.content, _TABLE.c.meta).execution_options(yield_per=500)
    for identity, content, meta in connection.execute(query):
        if identity not in without:
            named |= mentions(content) | mentions(meta)
    return named


def _delete(artifacts: Artifacts, loose: list[Blob], before: datetime, bar: Bar) -> Iterator[Blob]:
    with bar("removing blobs", len(loose)) as advance:
        for blob in loose:
            if artifacts.delete(blob.digest, before=before):
                yield blob
            advance(1)


def _parsed(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _shown(row: Row) -> dict[str, Any]:
    return {"kind": row.kind, "name": row.name, "number": row.number, "digest": row.digest, "bytes": row.size}
