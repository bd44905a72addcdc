"""ModelVersions: trained models by the digest of their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from registry import parse, versions
from registry.entities import ModelContent, Version
from registry.refs import Ref


def push(
    connection: Connection,
    name: str,
    content: ModelContent,
    *,
    actor: str,
    now: datetime,
    meta: Mapping[str, Any] | None = None,
) -> Version:
    """
    Register a trained model. Idempotent: equal bytes and schema, same version.

    Args:
        meta: circumstances that the digest leaves out, such as commit and run id.

    Raises:
        BadInput: the name is malformed.
    """
    return versions.push(connection, "model", name, content, actor=actor, now=now, meta=meta)


def get(connection: Connection, ref: Ref) -> tuple[Version, ModelContent]:
    """The model that *ref* names. Raises NotFound, VersionTampered."""
    version = versions.get(connection, "model", ref)
    return version, content_of(version)


def content_of(version: Version) -> ModelContent:
    """The typed content of a model version."""
    return parse.build(version.content, ModelContent, source=f"model {version.name}:{version.number}")
