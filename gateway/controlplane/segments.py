"""The files of journals: which are finished, what they hold, and who still writes them."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from gateway.dataplane.journal import OPEN_SUFFIX, SUFFIX
from registry.entities import UsageEntry

_BATCH = 256
"""Records that are decoded at once, during which nothing else runs: a quarter of a millisecond."""
_LOCK_SUFFIX = ".lock"
_DECODER = msgspec.json.Decoder(UsageEntry)
_log = logging.getLogger(__name__)


def hold(folder: Path, name: str) -> IO[str]:
    """
    A lock that says the journals called *name* are being written, to be taken before the first of them is
    made: held until it is closed, or the process ends in whatever way.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{name}{_LOCK_SUFFIX}"
    while True:
        lock = path.open("a")
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Between these two it may have been removed, as one that was left behind.
        if _inode(path) == os.fstat(lock.fileno()).st_ino:
            return lock
        lock.close()


def finished(folder: Path) -> list[Path]:
    """Journals that nobody writes any more, oldest first. Locks that were left behind are removed."""
    # Journals are listed before locks: the lock of each that is listed was there before it.
    left = list(folder.glob(f"*{OPEN_SUFFIX}"))
    closed = list(folder.glob(f"*{SUFFIX}"))
    writing = {path.stem for path in folder.glob(f"*{_LOCK_SUFFIX}") if _is_held(path)}
    closed += [path for path in left if path.name.rpartition("-")[0] not in writing]
    return sorted(closed, key=lambda path: path.name)


def batches(path: Path) -> Iterator[list[UsageEntry]]:
    """What a finished journal holds; a line torn by a kill in the middle of it is logged and skipped."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    for start in range(0, len(lines), _BATCH):
        some = lines[start : start + _BATCH]
        try:
            yield _DECODER.decode_lines(b"".join(some))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            yield list(_one_by_one(path, start, some))


def _one_by_one(path: Path, start: int, lines: list[bytes]) -> Iterator[UsageEntry]:
    for number, line in enumerate(lines, start + 1):
        entry = _entry(line)
        if entry is None:
            _log.error("%s, line %d: not a usage record, skipped", path.name, number)
        else:
            yield entry


def mentioning(folder: Path, subject: str) -> list[UsageEntry]:
    """The records that name *subject* somewhere, from every journal, also from those being written."""
    word = msgspec.json.encode(subject)[1:-1]
    found: dict[str, UsageEntry] = {}
    # Those being written first: one that is closed meanwhile is read twice, not missed.
    for suffix in (OPEN_SUFFIX, SUFFIX):
        for path in folder.glob(f"*{suffix}"):
            entries = (_entry(line) for line in _lines(path) if word in line)
            found |= {entry.request_id: entry for entry in entries if entry is not None}
    return list(found.values())


def size(folder: Path) -> int:
    """Bytes of all journals."""
    total = 0
    for suffix in (OPEN_SUFFIX, SUFFIX):
        for path in folder.glob(f"*{suffix}"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue  # stored in this moment
    return total


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as lines:
            yield from lines
    except FileNotFoundError:
        return  # closed and renamed, or stored, in this moment


def _entry(line: bytes) -> UsageEntry | None:
    try:
        return _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _is_held(path: Path) -> bool:
    """Whether the process that made this lock still lives; if not, it is removed."""
    try:
        with path.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
