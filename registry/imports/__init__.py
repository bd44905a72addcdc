"""
Prompts from other tools: exported files become versions here, in the order they had there. No network.

Each reader takes the JSON that its tool's API answers, as anybody with a key can save it. What a template
says that prompts here cannot is refused by name rather than changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

from sqlalchemy import Connection

from registry import labels, prompts
from registry.errors import BadInput
from registry.imports.base import Imported, ImportedVersion, json_of
from registry.refs import check_name

__all__ = ["Imported", "ImportedVersion", "Source", "read", "read_file", "refusals", "store"]
Source = Literal["mlflow", "langfuse", "langsmith"]
MAX_BYTES = 64_000_000


def read_file(path: Path, source: Source, name: str | None = None) -> list[Imported]:
    """
    The prompts of the export *path*; a version that cannot be one here says why.

    Args:
        name: what the one prompt of the export is called here; by default as there, in lower case.

    Raises:
        BadInput: the file cannot be read, or is no export of *source*.
    """
    _check(source, name)
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}") from error
    if len(data) > MAX_BYTES:
        raise BadInput(f"{path}: longer than {MAX_BYTES} bytes; export fewer prompts at once")
    try:
        return read(json_of(text, "the file"), source, name)
    except BadInput as error:
        raise BadInput(f"{path}: {error.message}") from error


def read(export: object, source: Source, name: str | None = None) -> list[Imported]:
    """
    The prompts of *export*, the decoded JSON, as `read_file` gives them.

    Raises:
        BadInput: it is no export of *source*, or two of its prompts would have one name here.
    """
    _check(source, name)
    reader = import_module(f"registry.imports.{source}")
    found: list[Imported] = reader.read(export, name)
    names = [one.name for one in found]
    for one in found:
        if names.count(one.name) > 1:
            raise BadInput(f"more than one prompt would be named {one.name!r} here; rename one there")
    return found


def _check(source: Source, name: str | None) -> None:
    if source not in get_args(Source):
        raise BadInput(f"--from {source!r} is not one of {', '.join(get_args(Source))}")
    if name is not None:
        check_name(name)


def refusals(found: Sequence[Imported]) -> list[str]:
    """Every version that cannot be a prompt here, and why."""
    return [
        f"{one.source} {version.source}: {version.refused}"
        for one in found
        for version in one.versions
        if version.refused
    ]


def store(
    connection: Connection, found: Sequence[Imported], source: Source, *, actor: str, now: datetime
) -> dict[str, Any]:
    """
    Push every version that can be, old ones first, and move its labels. Idempotent.

    Labels that only a promotion moves (`production`) and names that no label has here are left and reported.

    Raises:
        BadInput: a prompt has the name of one here but is malformed.
    """
    return {
        "source": source,
        "prompts": [_store(connection, one, source, actor=actor, now=now) for one in found],
    }


def _store(
    connection: Connection, one: Imported, source: Source, *, actor: str, now: datetime
) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for imported in one.versions:
        if imported.content is None:
            entries.append({"source": imported.source, "refused": imported.refused})
            continue
        version = prompts.push(
            connection, one.name, imported.content, actor=actor, now=now,
            meta={"imported_from": source, "source_name": one.source, "source_version": imported.source},
        )  # fmt: skip
        moved, left = [], []
        for label in imported.labels:
            try:
                labels.check(label)
            except BadInput as error:
                left.append({"label": label, "reason": error.message})
                continue
            labels.move(connection, version, label, actor=actor, now=now)
            moved.append(label)
        entries.append(
            {
                "source": imported.source,
                "number": version.number,
                "digest": version.digest,
                "labels": moved,
                "labels_left": left,
                "dropped": list(imported.dropped),
            }
        )
    return {"name": one.name, "source_name": one.source, "versions": entries}
