"""JudgeVersions: what scores answers, by the digest of its model, rubric and parameters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from registry import parse, versions
from registry.entities import JudgeContent, Version
from registry.refs import Ref, check_name


@dataclass(frozen=True, slots=True)
class JudgeFile:
    """What a judge file says."""

    name: str
    judge: JudgeContent

    def __post_init__(self) -> None:
        """Refuse a malformed name."""
        check_name(self.name)


def read_file(path: Path) -> JudgeFile:
    """The judge file at *path*. Raises BadInput naming the line."""
    return parse.read(path, JudgeFile)


def push(connection: Connection, name: str, content: JudgeContent, *, actor: str, now: datetime) -> Version:
    """Store a judge. Idempotent: equal content, same version. Raises BadInput for a malformed name."""
    return versions.push(connection, "judge", name, content, actor=actor, now=now)


def get(connection: Connection, ref: Ref) -> tuple[Version, JudgeContent]:
    """The judge that *ref* names. Raises NotFound, VersionTampered."""
    version = versions.get(connection, "judge", ref)
    return version, parse.build(
        version.content, JudgeContent, source=f"judge {version.name}:{version.number}"
    )
