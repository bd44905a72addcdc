"""DatasetVersions: immutable, content-addressed evaluation sets."""

from __future__ import annotations

import json
from datetime import datetime

from sqlalchemy import Connection

from registry import parse, versions
from registry.artifacts import Artifacts
from registry.entities import DatasetContent, Version
from registry.errors import BadInput
from registry.refs import Ref


def push(
    connection: Connection,
    artifacts: Artifacts,
    name: str,
    rows: bytes,
    *,
    source: str = "",
    licence: str = "",
    actor: str,
    now: datetime,
) -> Version:
    """
    Store an evaluation set. Idempotent: equal rows, same version.

    Args:
        rows: JSON Lines, one object a line, each with a unique `id`.

    Raises:
        BadInput: a line is not an object, or an id is missing or given twice.
    """
    seen: set[str] = set()
    columns: set[str] = set()
    for number, line in enumerate(rows.splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput(f"dataset {name}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict) or "id" not in row:
            raise BadInput(f"dataset {name}, line {number}: not an object with an id")
        if str(row["id"]) in seen:
            raise BadInput(f"dataset {name}, line {number}: id {row['id']!r} is given twice")
        seen.add(str(row["id"]))
        columns |= row.keys()
    if not seen:
        raise BadInput(f"dataset {name} has no rows")
    content = DatasetContent(
        artifact=artifacts.put(rows),
        rows=len(seen),
        columns=tuple(sorted(columns)),
        source=source,
        licence=licence,
    )
    return versions.push(connection, "dataset", name, content, actor=actor, now=now)


def get(connection: Connection, ref: Ref) -> tuple[Version, DatasetContent]:
    """The dataset that *ref* names. Raises NotFound, VersionTampered."""
    version = versions.get(connection, "dataset", ref)
    return version, content_of(version)


def content_of(version: Version) -> DatasetContent:
    """The typed content of a dataset version."""
    return parse.build(version.content, DatasetContent, source=f"dataset {version.name}:{version.number}")


def rows_of(content: DatasetContent, artifacts: Artifacts) -> bytes:
    """The verified JSON Lines of a dataset. Raises NotFound, VersionTampered."""
    return artifacts.get(content.artifact)
