"""`releases import`: enter a release from a file. See `registry.archive`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, insert, select

from registry import archive, audit, bundle, evaluations, evidence, promotion, releases, tables, versions
from registry.archive import Archive, Entry, Named, hex_of
from registry.artifacts import Artifacts
from registry.bundle import MOST_BYTES, Bar, silent
from registry.collect import Acting, Reading
from registry.ids import digest_bytes, sortable_id
from registry.refs import Ref

_TABLE, _EVIDENCE = tables.versions, tables.evidence
_GATE = "gate-policy"


class _Step(NamedTuple):
    """What importing does with one name of one content."""

    entry: Entry
    named: Named
    number: int
    outcome: str
    """`new`, `known`, or `left out`."""


def take(
    reading: Reading,
    acting: Acting,
    artifacts: Artifacts,
    path: Path,
    *,
    now: datetime,
    dry_run: bool = False,
    candidate: bool = False,
    gates: bool = False,
    most_bytes: int = MOST_BYTES,
    bar: Bar = silent,
) -> dict[str, Any]:
    """
    Enter the release in the archive *path*, after all of it was verified. Idempotent.

    Contents keep their digests. A name that is free keeps its number too; one that is taken by other content
    gets its next number. Keys are never trusted here, and gate policies, which decide what may be promoted,
    are entered only when asked for.

    Args:
        reading: opens a read transaction for somebody who may import.
        acting: opens a write transaction likewise; with *gates* for somebody who may push gate policies.
        dry_run: look, and write nothing.
        candidate: point the alias `candidate` at the release.

    Returns:
        `release`, `digest`, `versions` (each with its `outcome`), `evidence` (how many envelopes are new) and
        `keys`: which signed it, and whether they are trusted here.

    Raises:
        BadInput, VersionTampered, EvidenceTampered: as `archive.inspect` and `archive.signers_of`; nothing is
            written.
    """
    held = archive.inspect(path, most_bytes=most_bytes, bar=bar)
    archive.signers_of(held)
    if dry_run:
        with reading() as connection:
            steps = list(_steps(connection, held, gates=gates))
            return _answer(connection, held, steps, _unfiled(connection, held), dry_run=True)
    with reading():
        pass  # whoever may not import writes no blobs either
    _put_blobs(held, artifacts, path, most_bytes, bar)
    with acting() as (connection, who):
        steps = list(_steps(connection, held, gates=gates))
        fresh = _unfiled(connection, held)
        answer = _answer(connection, held, steps, fresh, dry_run=False)
        for step in steps:
            if step.outcome == "new":
                _insert(connection, step, actor=who, now=now)
        for identity in fresh:
            evaluations.submit(connection, json.loads(held.envelopes[identity]), actor=who, now=now)
        version = versions.get(connection, "release", Ref(held.content.name, digest=held.release))
        releases.verify_parts(releases.assemble(connection, version), artifacts)
        if candidate:
            promotion.nominate(connection, version, actor=who, now=now)
    return answer


def _steps(connection: Connection, held: Archive, *, gates: bool) -> Iterator[_Step]:
    newest: dict[tuple[str, str], int] = {}
    order = [
        (entry.kind, named.name, named.number) for entry in held.entries.values() for named in entry.names
    ]
    by_place = {
        (entry.kind, named.name, named.number): (entry, named)
        for entry in held.entries.values()
        for named in entry.names
    }
    for kind, name, own in sorted(order):
        entry, named = by_place[kind, name, own]
        of_name = _TABLE.c.kind == kind, _TABLE.c.name == name
        query = select(_TABLE.c.number).where(*of_name, _TABLE.c.digest == entry.digest)
        known = connection.execute(query).scalar()
        if known is not None:
            yield _Step(entry, named, known, "known")
            continue
        if (kind, name) not in newest:
            last = connection.execute(select(func.max(_TABLE.c.number)).where(*of_name)).scalar()
            # by the first number of a gate policy the audit chain knows that there ever was one
            newest[kind, name] = last or (0 if kind == _GATE else -1)
        if newest[kind, name] < 0:
            number = own
        else:
            number = newest[kind, name] = newest[kind, name] + 1
        yield _Step(entry, named, number, "new" if gates or kind != _GATE else "left out")


def _unfiled(connection: Connection, held: Archive) -> list[str]:
    query = select(_EVIDENCE.c.digest).where(_EVIDENCE.c.release_digest == held.release)
    return sorted(held.envelopes.keys() - set(connection.execute(query).scalars()))


def _put_blobs(held: Archive, artifacts: Artifacts, path: Path, most_bytes: int, bar: Bar) -> None:
    with bundle.reading(path, most_bytes=most_bytes) as opened, bar("blobs", len(held.blobs)) as advance:
        for digest in held.blobs:
            artifacts.put_blocks(digest, opened.blocks(f"blobs/{hex_of(digest)}"))
            advance(1)


def _insert(connection: Connection, step: _Step, *, actor: str, now: datetime) -> None:
    row: dict[str, Any] = {
        "id": sortable_id("ver", now),
        "kind": step.entry.kind,
        "name": step.named.name,
        "number": step.number,
        "digest": step.entry.digest,
        "content": step.entry.content,
        "meta": step.named.meta,
        "created_at": step.named.created_at,
        "created_by": actor,
    }
    connection.execute(insert(_TABLE).values(row))
    body = {name: row[name] for name in ("digest", "created_at", "created_by")}
    body["meta"] = digest_bytes(step.named.meta.encode())
    target = versions.target(step.entry.kind, step.named.name, step.number)
    audit.append(connection, "version.import", target, body, actor=actor, now=now)


def _answer(
    connection: Connection, held: Archive, steps: list[_Step], fresh: list[str], *, dry_run: bool
) -> dict[str, Any]:
    trusted = {row["key_id"]: row for row in evidence.trusted(connection)}
    return {
        "ok": True,
        "dry_run": dry_run,
        "release": held.content.name,
        "digest": held.release,
        "versions": [
            {
                "kind": step.entry.kind,
                "name": step.named.name,
                "number": step.number,
                "digest": step.entry.digest,
                "outcome": step.outcome,
            }
            for step in steps
        ],
        "blobs": len(held.blobs),
        "evidence": len(fresh),
        "keys": [
            {"id": identity, "trusted": identity in trusted and trusted[identity]["revoked_at"] is None}
            for identity in sorted(held.keys)
        ],
    }
