"""Immutable, content-addressed versions of every kind; the services above give them types."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, func, insert, select, update

from registry import audit, tables, webhooks
from registry.clock import from_text, to_text
from registry.entities import Kind, Version
from registry.errors import NotFound, RecordTampered, VersionTampered
from registry.ids import canonical, digest_bytes, sortable_id
from registry.refs import Ref, check_name

_TABLE = tables.versions
GROUPS: dict[Kind, str] = {
    "prompt": "prompts",
    "index": "indexes",
    "model": "models",
    "dataset": "datasets",
    "suite": "suites",
    "judge": "judges",
    "guardrail-policy": "guardrails",
    "gate-policy": "gates",
    "tool-schema": "tools",
    "price-table": "prices",
    "release": "releases",
}
"""Kind → what its commands are called: `registry indexes list`."""


def plain(content: object) -> Any:  # noqa: ANN401
    """A content dataclass as plain JSON values; keys whose value is None are left out."""
    value = asdict(content) if is_dataclass(content) and not isinstance(content, type) else content
    return _without_none(msgspec.to_builtins(value))


def push(
    connection: Connection,
    kind: Kind,
    name: str,
    content: object,
    *,
    actor: str,
    now: datetime,
    meta: Mapping[str, Any] | None = None,
) -> Version:
    """
    Store *content* under *name* and return its version. Idempotent: equal content, same version.

    Raises:
        BadInput: the name is malformed, or the content is not JSON.
    """
    check_name(name)
    text = canonical(plain(content)).decode()
    digest = digest_bytes(text.encode())
    known = connection.execute(
        select(_TABLE).where(_TABLE.c.kind == kind, _TABLE.c.name == name, _TABLE.c.digest == digest)
    ).mappings()
    found = known.one_or_none()
    if found is not None:
        if audit.newest(connection, target(kind, name, found["number"])) is None:
            return _take_over(connection, found, actor=actor, now=now)
        return _version(found)
    last = connection.execute(
        select(func.max(_TABLE.c.number)).where(_TABLE.c.kind == kind, _TABLE.c.name == name)
    ).scalar()
    row: dict[str, Any] = {
        "id": sortable_id("ver", now),
        "kind": kind,
        "name": name,
        "number": (last or 0) + 1,
        "digest": digest,
        "content": text,
        "meta": canonical(dict(meta or {})).decode(),
        "created_at": to_text(now),
        "created_by": actor,
    }
    connection.execute(insert(_TABLE).values(row))
    audit.append(
        connection, "version.push", target(kind, name, row["number"]), _recorded(row), actor=actor, now=now
    )
    told = {name: row[name] for name in ("kind", "name", "number", "digest")} | {"by": actor}
    webhooks.enqueue(connection, "version.push", told, now)
    return _version(row)


def _take_over(connection: Connection, found: RowMapping, *, actor: str, now: datetime) -> Version:
    """
    Record a version that no record tells of, such as one an older Sluicegate pushed during an upgrade.

    It counts as pushed now and by *actor*: of what its row says of that nothing can be believed.
    """
    row = {**found, "created_at": to_text(now), "created_by": actor, "meta": canonical({}).decode()}
    changed = {name: row[name] for name in ("created_at", "created_by", "meta")}
    connection.execute(update(_TABLE).where(_TABLE.c.id == found["id"]).values(changed))
    where = target(found["kind"], found["name"], found["number"])
    audit.append(connection, "version.push", where, _recorded(row), actor=actor, now=now)
    return _version(row)


def target(kind: str, name: str, number: int) -> str:
    """What the audit chain calls a version."""
    return f"{kind}/{name}:{number}"


def require_recorded(connection: Connection, version: Version, *, newest: bool = False) -> None:
    """
    Check that *version* is what was pushed, by whom and when the row says.

    Args:
        newest: also that no newer version of that name was ever pushed.

    Raises:
        RecordTampered: the row was added or changed behind the registry, or a newer one removed.
    """
    where = _TABLE.c.kind == version.kind, _TABLE.c.name == version.name, _TABLE.c.number == version.number
    row = connection.execute(select(_TABLE).where(*where)).mappings().one()
    audit.require(connection, target(version.kind, version.name, version.number), _recorded(row))
    if newest:
        audit.require(connection, target(version.kind, version.name, version.number + 1), None)


def require_none(connection: Connection, kind: Kind, name: str) -> None:
    """
    Check that no version of that name was ever pushed.

    Raises:
        RecordTampered: its versions were removed behind the registry.
    """
    if audit.actions(connection, f"{kind}/{name}:"):
        raise RecordTampered(f"{kind} {name} was removed behind the registry; `registry audit verify`")


def damaged(connection: Connection) -> list[str]:
    """Every version whose stored content no longer has its digest, in words."""
    rows = connection.execute(select(_TABLE).execution_options(yield_per=1000)).mappings()
    return [
        f"{row['kind']} {row['name']}:{row['number']} no longer has digest {row['digest']}"
        for row in rows
        if digest_bytes(row["content"].encode()) != row["digest"]
    ]


def protected(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """(target, body) of every row here that the audit chain vouches for."""
    for row in connection.execute(select(_TABLE).execution_options(yield_per=1000)).mappings():
        yield target(row["kind"], row["name"], row["number"]), _recorded(row)


def _recorded(row: Mapping[str, Any] | RowMapping) -> dict[str, Any]:
    kept = {name: row[name] for name in ("digest", "created_at", "created_by")}
    return {**kept, "meta": digest_bytes(row["meta"].encode())}


def get(connection: Connection, kind: Kind, ref: Ref) -> Version:
    """
    The version that *ref* names; without a selector the newest. Its digest is verified.

    Raises:
        NotFound: no such version; the message says what there is.
        VersionTampered: the stored content no longer has its digest.
    """
    query = select(_TABLE).where(_TABLE.c.kind == kind, _TABLE.c.name == ref.name)
    if ref.number is not None:
        query = query.where(_TABLE.c.number == ref.number)
    if ref.digest is not None:
        query = query.where(_TABLE.c.digest == ref.digest)
    if ref.alias is not None and ref.alias != "latest":
        raise NotFound(f"{kind} {ref}: only releases have aliases; use name, name:3 or name@sha256:…")
    row = connection.execute(query.order_by(_TABLE.c.number.desc()).limit(1)).mappings().first()
    if row is None:
        raise NotFound(f"no {kind} {ref} in the registry; `registry {GROUPS[kind]} list` shows what there is")
    return _version(row)


def by_digest(connection: Connection, kind: Kind, digest: str) -> Version:
    """
    The version of *kind* with this digest, under whatever name. Its digest is verified.

    Raises:
        NotFound: no such version.
        VersionTampered: the stored content no longer has its digest.
    """
    query = select(_TABLE).where(_TABLE.c.kind == kind, _TABLE.c.digest == digest).limit(1)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFound(f"no {kind} with digest {digest} in the registry")
    return _version(row)


def listing(connection: Connection, kind: Kind, name: str | None = None, limit: int = 100) -> list[Version]:
    """The newest versions of *kind*, newest first, at most *limit*."""
    query = select(_TABLE).where(_TABLE.c.kind == kind)
    if name is not None:
        query = query.where(_TABLE.c.name == name)
    newest = _TABLE.c.id if name is None else _TABLE.c.number
    rows = connection.execute(query.order_by(newest.desc()).limit(limit)).mappings()
    return [_version(row) for row in rows]


def _version(row: RowMapping | dict[str, Any]) -> Version:
    text: str = row["content"]
    if digest_bytes(text.encode()) != row["digest"]:
        what = f"{row['kind']} {row['name']}:{row['number']}"
        raise VersionTampered(f"{what}: the stored content no longer has digest {row['digest']}")
    return Version(
        kind=row["kind"],
        name=row["name"],
        number=row["number"],
        digest=row["digest"],
        content=json.loads(text),
        meta=json.loads(row["meta"]),
        created_at=from_text(row["created_at"]),
        created_by=row["created_by"],
    )


def _without_none(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
