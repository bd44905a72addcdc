"""
Heads of the audit chain kept where whoever writes the database cannot: a file, an object store, a git folder.

A chain alone cannot tell that its end was cut off. A head that somebody else keeps can.
"""

from __future__ import annotations

import os
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from registry import anchor, audit, tables
from registry.anchor import Head
from registry.errors import AuditTampered, BadInput, StoreUnavailable

HEADS = "audit-heads.jsonl"
"""The file of a git folder that heads are appended to."""
_GIT_TIMEOUT_S = 60
_MOST_BYTES = 64_000_000
_S3 = {"config_kwargs": {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 3}}}
_AUTHOR = ("-c", "user.name=sluicegate audit", "-c", "user.email=audit@sluicegate.invalid")


def publish(head: Head, to: str) -> str:
    """
    Keep *head* at *to*, beside all that are there; returns where.

    Args:
        to: a file, which gets one more line; or the URL of a folder that fsspec knows, such as
            `s3://bucket/prefix`, which gets one more object. With object lock on the bucket nobody can
            remove or replace it.

    Raises:
        StoreUnavailable: it cannot be written.
    """
    if "://" not in to:
        path = Path(to)
        _append(path, head)
        return str(path)
    place = f"{to.rstrip('/')}/{head.seq:012d}-{head.hash[:16]}.json"
    try:
        system, path_there = _filesystem(place)
        parent = path_there.rpartition("/")[0]
        system.makedirs(parent, exist_ok=True)
        system.pipe_file(path_there, anchor.encode(head).encode())
    except Exception as error:
        message = f"{place}: cannot be written: {type(error).__name__}: {error}"
        raise StoreUnavailable(message) from error
    return place


def commit(head: Head, folder: Path) -> str:
    """
    Append *head* to `audit-heads.jsonl` in a git folder and commit it; returns the commit. Push is yours.

    Raises:
        BadInput: *folder* is in no git repository.
        StoreUnavailable: git failed.
    """
    if _git(folder, "rev-parse", "--is-inside-work-tree", check=False) != "true":
        raise BadInput(f"--git {folder}: is in no git repository; `git init` makes one")
    _append(folder / HEADS, head)
    _git(folder, "add", "--", HEADS)
    _git(folder, *_AUTHOR, "commit", "-q", "-m", f"Audit head {head.seq}", "--", HEADS)
    return _git(folder, "rev-parse", "HEAD")


def heads(source: str) -> list[tuple[str, Head]]:
    """
    (where it is kept, head) of every head in *source*: a file with one a line, or a URL of such a file or of
    a folder that `publish` wrote.

    Raises:
        BadInput: it cannot be read, or holds none.
        AuditTampered: a line is no head.
    """
    found = [
        (f"{where}:{number}" if number > 1 else where, anchor.parse(line, where))
        for where, text in _texts(source)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip()
    ]
    if not found:
        raise BadInput(f"--anchor {source}: holds no head")
    return found


def accept(
    connection: Connection, lost: Head | None, *, reason: str, actor: str, now: datetime
) -> dict[str, Any]:
    """
    Record that the chain as it is now was accepted although it does not hold *lost*, the head known before.

    The local anchor must have been set to this chain's end already: nothing can be appended otherwise.
    """
    body = {"reason": reason, "lost": None if lost is None else {"seq": lost.seq, "hash": lost.hash}}
    seq = audit.append(connection, "audit.accept", "audit/anchor", body, actor=actor, now=now)
    return {"audit_seq": seq, **body}


def end(connection: Connection) -> Head | None:
    """The end of the chain as it is stored; None while it is empty. Nothing is checked."""
    table = tables.audit
    query = select(table).order_by(table.c.seq.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else Head(row["seq"], row["hash"], row["at"], row["key_id"], row["signature"])


def known(path: Path) -> Head | None:
    """The local anchor; None where there is none, or what is there is none."""
    try:
        return anchor.read(path)
    except AuditTampered:
        return None


def _append(path: Path, head: Head) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(anchor.encode(head))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreUnavailable(f"{path}: cannot be written: {error.strerror}") from error


def _texts(source: str) -> list[tuple[str, bytes]]:
    if "://" not in source:
        try:
            return [(source, Path(source).read_bytes())]
        except OSError as error:
            raise BadInput(f"--anchor {source}: cannot be read: {error.strerror}") from error
    try:
        system, path = _filesystem(source)
        if not system.isdir(path):
            return [(source, system.cat_file(path, end=_MOST_BYTES))]
        names = sorted(name for name in system.ls(path, detail=False) if name.endswith(".json"))
        return [(name, system.cat_file(name, end=_MOST_BYTES)) for name in names]
    except Exception as error:
        message = f"--anchor {source}: cannot be read: {type(error).__name__}: {error}"
        raise BadInput(message) from error


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec.core

    options = _S3 if url.startswith(("s3://", "s3a://")) else {}
    system, path = fsspec.core.url_to_fs(url, **options)
    return system, str(path)


def _git(folder: Path, *words: str, check: bool = True) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StoreUnavailable(f"git {words[0]} in {folder} failed: {type(error).__name__}") from error
    if check and done.returncode:
        raise StoreUnavailable(f"git in {folder} failed: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()
