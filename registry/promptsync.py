"""
A folder of prompt files and the registry, brought together: what is new on one side goes to the other.

`.prompts.lock` in the folder says what each file and its prompt were when they last agreed; so each side is
known to have changed or not. Where both have, that is a conflict: it is reported, and neither is touched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, select

from registry import labels, prompts, tables
from registry.entities import Version
from registry.errors import BadInput
from registry.ids import digest_bytes
from registry.promptfile import read_text
from registry.prompts import File
from registry.refs import Ref

LOCK = ".prompts.lock"
Action = Literal["push", "write", "same", "conflict", "deleted"]
_AGAIN = (
    "an older version again, and a version is made only once: label or release that one, or pull the newest"
)
_FILES = tables.prompt_files


@dataclass(frozen=True, slots=True)
class Locked:
    """What a file and its prompt were when they last agreed."""

    name: str
    digest: str
    """Of the prompt version."""
    text: str
    """Digest of the file's bytes."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done about one file."""

    path: str
    """Below the folder, with `/`."""
    name: str
    action: Action
    reason: str
    text: str | None = None
    """What the file holds afterwards; None leaves it as it is."""
    digest: str | None = None
    """The version that file and registry agree on afterwards; None: they do not."""
    before: str | None = None
    """What the file held when this was decided; None: there was none."""


def read_folder(folder: Path) -> list[File]:
    """
    Every prompt file of *folder*, in all its depth: `*.md` beginning with a line `---`. By path.

    Raises:
        BadInput: no such folder, a malformed file, or two files of one name.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder")
    files = []
    for path in sorted(folder.rglob("*.md")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            text = read_text(path)
            if text.removeprefix("\ufeff").startswith("---"):
                files.append(prompts.read(text, str(path)))
    prompts.ordered(files)
    return files


def plan(connection: Connection, folder: Path) -> list[Step]:
    """
    What to do so that *folder* and the registry agree. Nothing is changed.

    Raises:
        BadInput: as `read_folder`, or the lock file is damaged.
        VersionTampered: a prompt's stored content no longer has its digest.
    """
    files = {_relative(folder, file.source): file for file in read_folder(folder)}
    locks = read_lock(folder)
    stored = set(prompts.names(connection))
    steps = [_of_file(connection, path, file, locks.get(path), stored) for path, file in files.items()]
    known = {file.name for file in files.values()}
    for path, locked in locks.items():
        if path not in files and locked.name not in known and locked.name in stored:
            steps.append(_of_gone(connection, path, locked))
            known.add(locked.name)
    for name in sorted(stored - known):
        version = labels.resolve(connection, Ref(name))
        path = f"{name}.md"
        if path in files or (folder / path).exists():
            steps.append(Step(path, name, "conflict", "new in the registry, but another file is there"))
        else:
            text, _ = prompts.file_of(connection, version)
            steps.append(Step(path, name, "write", "new in the registry", text, version.digest))
    return sorted(steps, key=lambda step: step.path)


def push(connection: Connection, steps: Sequence[Step], *, actor: str, now: datetime) -> list[Step]:
    """
    Push the files that *steps* push; returns the steps with their digests. Files are not touched.

    Raises:
        BadInput, NotFound: as `prompts.push_files`; nothing is stored.
    """
    files = {step.path: prompts.read(step.text or "", step.path) for step in steps if step.action == "push"}
    pushed = prompts.push_files(connection, list(files.values()), actor=actor, now=now)
    digests = {file.source: version.digest for file, version, _ in pushed}
    older = {f.source for f, version, _ in pushed if labels.resolve(connection, Ref(f.name)) != version}
    return [
        replace(step, action="conflict", reason=_AGAIN, text=None)
        if step.path in older
        else replace(step, digest=digests.get(step.path, step.digest))
        for step in steps
    ]


def write(folder: Path, steps: Sequence[Step]) -> None:
    """
    Write the files that *steps* write, and the lock. Each appears whole or not at all.

    Call it once what was pushed is committed.

    Raises:
        BadInput: a file cannot be written, or was changed since *steps* were decided.
    """
    locks = dict(read_lock(folder))
    for step in steps:
        if step.action == "write" and step.text is not None:
            _check_untouched(folder / step.path, step.before)
            put(folder / step.path, step.text)
        if step.digest is not None and step.text is not None:
            locks[step.path] = Locked(step.name, step.digest, digest_bytes(step.text.encode()))
    if locks:
        rows = {path: asdict(locks[path]) for path in sorted(locks)}
        put(folder / LOCK, json.dumps({"version": 1, "files": rows}, indent=1) + "\n")


def read_lock(folder: Path) -> Mapping[str, Locked]:
    """
    Path → what file and prompt last agreed on; empty where nothing was synced yet.

    Raises:
        BadInput: the lock file is damaged; delete it, and sync compares anew.
    """
    try:
        data = json.loads((folder / LOCK).read_bytes())
        return {str(path): Locked(**row) for path, row in data["files"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{folder / LOCK}: damaged; delete it and sync again") from error


def put(path: Path, text: str) -> None:
    """
    Write *text* to *path*, byte for byte, whole or not at all.

    Raises:
        BadInput: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(text.encode())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error


def answer(steps: Sequence[Step], *, dry_run: bool) -> dict[str, Any]:
    """What was done, or would be, as plain JSON."""
    entries = [
        {"file": s.path, "name": s.name, "action": s.action, "reason": s.reason, "digest": s.digest}
        for s in steps
    ]
    conflicts = sum(step.action == "conflict" for step in steps)
    return {"ok": conflicts == 0, "dry_run": dry_run, "conflicts": conflicts, "files": entries}


def _of_file(connection: Connection, path: str, file: File, locked: Locked | None, stored: set[str]) -> Step:
    if file.name not in stored:
        return Step(path, file.name, "push", "new here", file.text)
    version = labels.resolve(connection, Ref(file.name))
    text, _ = prompts.file_of(connection, version)
    if text == file.text:
        return Step(path, file.name, "same", "", text, version.digest)
    if locked is None or locked.name != file.name:
        if _was_pushed(connection, file, version):
            return Step(path, file.name, "write", "changed in the registry", text, version.digest, file.text)
        return Step(
            path, file.name, "conflict", "here and in the registry, and never synced; push or pull it"
        )
    here = digest_bytes(file.text.encode()) != locked.text
    there = version.digest != locked.digest or digest_bytes(text.encode()) != locked.text
    if here and there:
        return Step(path, file.name, "conflict", "changed here and in the registry; push or pull it")
    if here and _was_pushed(connection, file, version):
        return Step(path, file.name, "conflict", _AGAIN)
    if here:
        return Step(path, file.name, "push", "changed here", file.text)
    return Step(path, file.name, "write", "changed in the registry", text, version.digest, file.text)


def _of_gone(connection: Connection, path: str, locked: Locked) -> Step:
    version = labels.resolve(connection, Ref(locked.name))
    if version.digest == locked.digest:
        return Step(path, locked.name, "deleted", "deleted here; the registry keeps it")
    return Step(path, locked.name, "conflict", "deleted here, changed in the registry; pull it")


def _check_untouched(path: Path, before: str | None) -> None:
    there = read_text(path) if path.exists() else None
    if there != before:
        raise BadInput(f"{path}: changed while this ran; sync again")


def _was_pushed(connection: Connection, file: File, newest: Version) -> bool:
    """Whether the very text of *file* is an older version, so that nothing is lost when it is replaced."""
    query = select(_FILES.c.digest).where(
        _FILES.c.kind == "prompt", _FILES.c.name == file.name, _FILES.c.text == file.text
    )
    return any(digest != newest.digest for digest in connection.execute(query).scalars())


def _relative(folder: Path, source: str) -> str:
    return Path(source).relative_to(folder).as_posix()
