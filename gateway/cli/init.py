"""`sluicegate init`: a project whose every file runs as it is."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from registry.errors import Conflict
from registry.terminal import Json, show

_SKIP = {"__pycache__", "__init__.py"}


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write the project; must be empty or new.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Write a project: data, prompt, policies, suites, releases, params.yaml and a CI workflow."""
    written = sorted(map(str, template_files())) if dry_run else write_template(folder)
    verb = "would write" if dry_run else "wrote"
    show(
        {"ok": True, "folder": str(folder), "dry_run": dry_run, "files": written},
        f"{verb} {len(written)} files to {folder}\n"
        f"next: cd {folder} && sluicegate doctor; README.md has the commands",
        as_json=as_json,
    )


def template_files() -> list[Path]:
    """The relative paths of the template's files."""
    with as_file(files("gateway") / "template") as source:
        return [
            path.relative_to(source)
            for path in source.rglob("*")
            if path.is_file() and not _SKIP & set(path.relative_to(source).parts)
        ]


def write_template(folder: Path, *, replace: bool = False) -> list[str]:
    """
    Copy the template into *folder* and return the relative paths written.

    Args:
        replace: overwrite files of the same name instead of refusing a folder that is not empty.

    Raises:
        Conflict: the folder holds files already.
    """
    if not replace and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is not an empty folder; name a new one")
    written = []
    with as_file(files("gateway") / "template") as source:
        for relative in template_files():
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / relative, target)
            written.append(str(relative))
    return sorted(written)
