"""IndexVersions: manifests of retrieval indexes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from registry import parse, versions
from registry.entities import IndexContent, Version
from registry.refs import Ref


def push(connection: Connection, name: str, content: IndexContent, *, actor: str, now: datetime) -> Version:
    """Register an index manifest. Idempotent. Raises BadInput for a malformed name."""
    return versions.push(connection, "index", name, content, actor=actor, now=now)


def get(connection: Connection, ref: Ref) -> tuple[Version, IndexContent]:
    """The manifest that *ref* names. Raises NotFound, VersionTampered."""
    version = versions.get(connection, "index", ref)
    return version, content_of(version)


def content_of(version: Version) -> IndexContent:
    """The typed content of an index version."""
    return parse.build(version.content, IndexContent, source=f"index {version.name}:{version.number}")
