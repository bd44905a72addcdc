"""Evaluation suites as versions; evals gives their content its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from registry import versions
from registry.entities import Version
from registry.errors import BadInput
from registry.ids import is_digest
from registry.refs import Ref


def push(
    connection: Connection, name: str, content: Mapping[str, Any], *, actor: str, now: datetime
) -> Version:
    """
    Store a suite. Idempotent: equal content, same version.

    Args:
        content: plain JSON whose `dataset` is the digest of a DatasetVersion; no file paths.

    Raises:
        BadInput: `dataset` is no digest, or a value is not JSON.
    """
    if not is_digest(str(content.get("dataset", ""))):
        raise BadInput(f"suite {name}: dataset must be the digest of a dataset version")
    return versions.push(connection, "suite", name, content, actor=actor, now=now)


def get(connection: Connection, ref: Ref) -> Version:
    """The suite that *ref* names. Raises NotFound, VersionTampered."""
    return versions.get(connection, "suite", ref)
