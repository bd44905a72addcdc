"""JudgeVersions: what scores answers, by the digest of its model, rubric and parameters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from registry import parse, versions
from registry.clock import from_text
from registry.entities import JudgeContent, Version
from registry.errors import BadInput
from registry.ids import digest
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


def subject_of(content: JudgeContent) -> str:
    """
    The digest that a calibration is about: model, rubric and parameters.

    Whatever of them changes, the judge has to be calibrated again.
    """
    return digest(
        {
            "model": content.model,
            "rubric": content.rubric,
            "parameters": dict(content.parameters),
            "model_digest": content.model_digest,
        }
    )


def uncalibrated(content: JudgeContent, now: datetime) -> str | None:
    """Why the judge's calibration is not in force at *now*; None where it is."""
    record = content.calibration
    if not record:
        return "was never calibrated"
    if record.get("of") != subject_of(content):
        return "was calibrated with another rubric, model or parameters"
    if not record.get("calibrated"):
        return "failed its calibration"
    try:
        expires = from_text(str(record["expires"]))
    except (KeyError, ValueError, BadInput):
        return "has a malformed calibration"
    return f"was calibrated until {expires:%Y-%m-%d} only" if expires <= now else None
