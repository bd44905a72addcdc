"""The last head of the audit chain that this machine saw, kept outside of the database it vouches for."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import NamedTuple

from registry.errors import AuditTampered, StoreUnavailable


class Head(NamedTuple):
    """The end of an audit chain at some moment, with the signature over it."""

    seq: int
    hash: str
    at: str
    key_id: str
    signature: str


def read(path: Path) -> Head | None:
    """
    The head kept at *path*; None where none was kept yet.

    Raises:
        AuditTampered: the file is there and holds no head.
        StoreUnavailable: the file cannot be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnavailable(f"{path}: cannot be read: {error.strerror}") from error
    return parse(text, str(path))


def parse(text: bytes, source: str) -> Head:
    """
    The head that *text* holds, one JSON object; *source* names it in errors.

    Raises:
        AuditTampered: it holds none.
    """
    try:
        value = json.loads(text)
        head = Head(**{name: value[name] for name in Head._fields})
    except (ValueError, KeyError, TypeError) as error:
        raise AuditTampered(f"{source}: holds no head of an audit chain") from error
    if not isinstance(head.seq, int) or not all(isinstance(text, str) for text in head[1:]):
        raise AuditTampered(f"{source}: holds no head of an audit chain")
    return head


def encode(head: Head) -> str:
    """One line of JSON that `parse` reads back."""
    return json.dumps(head._asdict(), sort_keys=True) + "\n"


def keep(path: Path, head: Head, *, replace: bool = False) -> None:
    """
    Keep *head* at *path* unless a later one is there. Safe for many processes at once.

    Args:
        replace: also over a later one, as after a restore.

    Raises:
        StoreUnavailable: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = None if replace else read(path)
            if known is None or known.seq < head.seq:
                aside = path.with_suffix(".new")
                aside.write_text(encode(head))
                aside.replace(path)
    except OSError as error:
        raise StoreUnavailable(f"{path}: the audit anchor cannot be kept: {error.strerror}") from error
