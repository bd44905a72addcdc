"""
The whole registry as one file, and back, on whatever database.

    blobs/<sha256>          every blob that a version names
    manifest.json           format, schema, when; digest and size of every table, number of the blobs
    tables/<name>.jsonl     every row as a JSON array, under a first line of column names

It holds hashes of tokens and keys, the secrets of webhooks and the keys of persons who may be erased later:
keep it as safe as the database. Private keys of signers are not in it, since they never are in the registry:
keep `<home>/keys` elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, Table, func, insert, select

from registry import anchor, audit, audit_verify, bundle, promotion, tables
from registry.artifacts import Artifacts
from registry.bundle import MANIFEST, Bar, Bundle, silent
from registry.clock import to_text
from registry.collect import Acting, Reading, blob_of, mentions
from registry.db import HEAD
from registry.errors import AuditTampered, BadInput, Conflict, VersionTampered
from registry.ids import PREFIX, digest_bytes

FORMAT = "sluicegate-backup/1"
MOST_BYTES = 10 * 10**12
_MOST_MEMBERS = 5_000_000
_MOST_AT_ONCE = 500
_BLOBS = "blobs/"
_KEPT = frozenset({"state"})
"""Tables that a new registry has rows in."""


def backup(
    reading: Reading, artifacts: Artifacts, path: Path, *, now: datetime, bar: Bar = silent
) -> dict[str, Any]:
    """
    Write the registry as it is at one moment to the file *path*.

    Args:
        reading: opens a read transaction for somebody who may back up.

    Returns:
        `file`, `bytes`, `rows` by table, `blobs`, and `audit_seq`: the last record of the audit chain.

    Raises:
        BadInput: the database was migrated by a newer Sluicegate, which has to back it up.
        NotFound, VersionTampered: a blob that a version needs is gone, or something was changed; nothing is
            written.
        StoreUnavailable: the file, the database or the artifacts cannot be used.
    """
    with reading() as connection:
        _check_schema(connection)
    with bundle.writing(path) as writer:
        needed: set[str] = set()
        mentioned: set[str] = set()
        rows: dict[str, int] = {}
        with reading() as connection, bar("tables", len(tables.metadata.sorted_tables)) as advance:
            seq = connection.execute(select(func.max(tables.audit.c.seq))).scalar() or 0
            for table in tables.metadata.sorted_tables:
                count = _Count(_lines(connection, table))
                writer.add(f"tables/{table.name}.jsonl", _joined(count))
                rows[table.name] = count.seen - 1
                advance(1)
            for kind, content, meta in _contents(connection):
                needed.update(filter(None, [blob_of(kind, json.loads(content))]))
                mentioned |= mentions(content) | mentions(meta)
        blobs = sorted(needed | {digest for digest in mentioned - needed if artifacts.has(digest)})
        with bar("blobs", len(blobs)) as advance:
            for digest in blobs:
                writer.add(_BLOBS + digest.removeprefix(PREFIX), artifacts.blocks(digest))
                advance(1)
        listed = [member for member in writer.written if not member.name.startswith(_BLOBS)]
        told = {"schema": HEAD, "at": to_text(now), "audit_seq": seq, "rows": rows, "blobs": len(blobs)}
        text = bundle.manifest_of(FORMAT, listed, **told)
        writer.add(MANIFEST, (text,))
    return {
        "ok": True,
        "file": str(path),
        "bytes": path.stat().st_size,
        "rows": rows,
        "blobs": len(blobs),
        "audit_seq": seq,
    }


def restore(
    reading: Reading,
    acting: Acting,
    artifacts: Artifacts,
    path: Path,
    *,
    now: datetime,
    most_bytes: int = MOST_BYTES,
    bar: Bar = silent,
) -> dict[str, Any]:
    """
    Fill an empty registry from a backup, after all of it was verified; then check that it is consistent.

    Returns:
        `rows`, `blobs`, `at` (when the backup was made) and `lost_after`: the last audit record in it, where
        this machine remembers a later one; else None.

    Raises:
        BadInput: it is no backup, or of another schema.
        Conflict: the registry is not empty.
        VersionTampered, AuditTampered: the backup is damaged; nothing is restored.
    """
    with reading() as connection:
        require_empty(connection)
    with bundle.reading(path, most_bytes=most_bytes, most_members=_MOST_MEMBERS) as opened:
        manifest = opened.manifest(FORMAT, bar, unlisted=_BLOBS)
        _check_manifest(opened, manifest)
        names = sorted(name for name in opened.sizes if name.startswith(_BLOBS))
        with bar("blobs", len(names)) as advance:
            for name in names:
                artifacts.put_blocks(PREFIX + name.removeprefix(_BLOBS), opened.blocks(name))
                advance(1)
        with acting() as (connection, who):
            require_empty(connection)
            rows = _fill(connection, opened, bar)
            if rows != manifest["rows"]:
                raise VersionTampered(f"{path}: has other rows than its manifest says")
            _check_blobs(connection, opened)
            found = promotion.problems(connection, artifacts)
            if found:
                raise VersionTampered(f"{path}: what it holds is not consistent: {'; '.join(found[:3])}")
            lost = _record(connection, manifest, actor=who, now=now)
    return {
        "ok": True,
        "rows": rows,
        "blobs": len(names),
        "at": manifest["at"],
        "audit_seq": manifest["audit_seq"],
        "lost_after": manifest["audit_seq"] if lost else None,
    }


def require_empty(connection: Connection) -> None:
    """
    Check that nothing was ever written to this registry.

    Raises:
        Conflict: something was; the message names a table.
    """
    for table in tables.metadata.sorted_tables:
        if table.name not in _KEPT and connection.execute(select(*table.primary_key).limit(1)).first():
            raise Conflict(f"the registry has {table.name} already; restore into an empty one")


class _Count:
    """Passes on what it iterates over and counts it."""

    def __init__(self, items: Iterable[bytes]) -> None:
        self.seen = 0
        self._items = items

    def __iter__(self) -> Iterator[bytes]:
        for item in self._items:
            self.seen += 1
            yield item


def _lines(connection: Connection, table: Table) -> Iterator[bytes]:
    """The column names, then every row."""
    yield _line([column.name for column in table.columns])
    query = select(table).order_by(*table.primary_key).execution_options(yield_per=_MOST_AT_ONCE)
    with connection.execute(query) as rows:
        for row in rows:
            yield _line(list(row))


def _line(values: list[Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _joined(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines in larger pieces."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= bundle.BLOCK:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)


def _contents(connection: Connection) -> Iterator[tuple[Any, str, str]]:
    """Kind, content and meta of every version, its digest verified. Raises VersionTampered."""
    query = select(tables.versions).execution_options(yield_per=_MOST_AT_ONCE)
    with connection.execute(query) as rows:
        for row in rows:
            if digest_bytes(row.content.encode()) != row.digest:
                what = f"{row.kind} {row.name}:{row.number}"
                raise VersionTampered(f"{what} no longer has digest {row.digest}; see `registry verify`")
            yield row.kind, row.content, row.meta


def _check_schema(connection: Connection) -> None:
    schema = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if schema != HEAD:
        message = f"the database is of schema {schema}, and this Sluicegate of {HEAD}: use the newer one"
        raise BadInput(message)


def _check_blobs(connection: Connection, opened: Bundle) -> None:
    """Refuse a backup that lacks a blob which one of its versions needs."""
    for kind, content, _ in _contents(connection):
        digest = blob_of(kind, json.loads(content))
        if digest is not None and _BLOBS + digest.removeprefix(PREFIX) not in opened.sizes:
            raise VersionTampered(f"{opened.source}: lacks blob {digest}, which a {kind} needs")


def _check_manifest(opened: Bundle, manifest: dict[str, Any]) -> None:
    if manifest.get("schema") != HEAD:
        message = (
            f"{opened.source}: is of schema {manifest.get('schema')!r}, and this Sluicegate of {HEAD!r}: "
            "restore it with the release of Sluicegate that made it, then upgrade"
        )
        raise BadInput(message)
    expected = {f"tables/{table.name}.jsonl" for table in tables.metadata.sorted_tables}
    held = {name for name in opened.sizes if not name.startswith(_BLOBS)} - {MANIFEST}
    blobs = len(opened.sizes) - len(held) - 1
    if (
        held != expected
        or not {"at", "audit_seq", "rows"} <= manifest.keys()
        or manifest.get("blobs") != blobs
    ):
        odd = ", ".join(sorted(held ^ expected)[:3])
        raise BadInput(f"{opened.source}: lacks, or does not need: {odd or 'blobs, or keys of its manifest'}")


def _fill(connection: Connection, opened: Bundle, bar: Bar) -> dict[str, int]:
    rows: dict[str, int] = {}
    with bar("tables", len(tables.metadata.sorted_tables)) as advance:
        for table in tables.metadata.sorted_tables:
            if table.name in _KEPT:
                connection.execute(table.delete())
            count = 0
            for batch in _batches(opened, table):
                connection.execute(insert(table), batch)
                count += len(batch)
            rows[table.name] = count
            advance(1)
    return rows


def _batches(opened: Bundle, table: Table) -> Iterator[list[dict[str, Any]]]:
    member = f"tables/{table.name}.jsonl"
    lines = opened.lines(member)
    names = [column.name for column in table.columns]
    batch: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        where = f"{opened.source}: {member}, line {number}"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise BadInput(f"{where}: is not JSON") from error
        if number == 1 and values != names:
            raise BadInput(f"{where}: has other columns than {', '.join(names)}")
        if number == 1:
            continue
        if not isinstance(values, list) or len(values) != len(names):
            raise BadInput(f"{where}: is not a row of {len(names)} values")
        for column, value in zip(table.columns, values, strict=True):
            whole = isinstance(column.type, Integer | BigInteger)
            fits = (
                value is None if column.nullable and value is None else type(value) is (int if whole else str)
            )
            if not fits:
                raise BadInput(f"{where}: {column.name} is a {type(value).__name__}")
        batch.append(dict(zip(names, values, strict=True)))
        if len(batch) == _MOST_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _record(connection: Connection, manifest: dict[str, Any], *, actor: str, now: datetime) -> bool:
    """
    Say in the chain that it was restored; whether this machine's anchor knows records that are lost.

    Then the anchor is left as it is, and nothing more is written before somebody accepts the loss.
    """
    trust = audit.trust_of(connection)
    known = anchor.read(trust.anchor) if trust.anchor is not None else None
    kept = True
    if known is not None:
        query = select(tables.audit.c.hash).where(tables.audit.c.seq == known.seq)
        kept = connection.execute(query).scalar() == known.hash
    loose = connection.execution_options(**{audit.OPTION: replace(trust, anchor=None)})
    checked = audit_verify.verify(loose)
    if not checked["ok"]:
        first = checked["problems"][0]
        raise AuditTampered(f"the backup does not hold: {first['where']}: {first['problem']}")
    body = {"at": manifest["at"], "audit_seq": manifest["audit_seq"], "anchor": known.seq if known else None}
    audit.append(loose, "registry.restore", "registry", body, actor=actor, now=now)
    if not kept:
        loose.info.clear()  # else the next append would take the chain for checked, and the anchor with it
    return not kept
