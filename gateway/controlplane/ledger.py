"""
The ledger: journals into the registry, exactly once.

A file is read when its writer has closed it, or is gone: a writer holds a lock for as long as it lives, so
what a killed process left is taken up by the next one. Records are stored in one transaction, by request
id, and the file is deleted only after that has been committed; read again, it changes nothing. While the
registry cannot be reached the files stay where they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import msgspec

from gateway.dataplane.journal import OPEN_SUFFIX, SUFFIX
from gateway.dataplane.table import Subject
from gateway.dataplane.usage import UsageRecord
from registry import traffic
from registry.clock import Clock, to_text
from registry.entities import SubjectKind, UsageEntry
from registry.errors import PlatformError
from registry.workspace import Workspace

_BATCH = 2000
_PRUNE_EVERY_S = 3600.0
_SUM_EVERY_S = 5.0
_BUDGETED: tuple[SubjectKind, ...] = ("key", "team")
_LOCK = "drain.lock"
_FIELDS = tuple(field.name for field in fields(UsageEntry))
_DECODE = msgspec.json.Decoder(UsageRecord).decode
_log = logging.getLogger(__name__)


class Ledger:
    """Drains every journal of a folder. Its methods block; call them from a thread."""

    def __init__(self, workspace: Workspace, folder: Path, keep_days: int, clock: Clock) -> None:
        """Move what lies in *folder* into *workspace*; single records are kept for *keep_days*."""
        self._workspace = workspace
        self._folder = folder
        self._keep = timedelta(days=keep_days)
        self._clock = clock
        self._draining = threading.Lock()
        self._pruned_at = clock() - timedelta(seconds=_PRUNE_EVERY_S)
        self.problem: str | None = None
        """Why the registry took nothing last time; None when it did."""
        self.stored = 0
        """Records stored by this process since it began."""
        self.sums: Mapping[tuple[str, str, str], int] = {}
        """(kind, subject, period) → micro-USD that keys and teams have spent in the period that is now."""
        self._summed_at = self._pruned_at
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def drain(self) -> int:
        """Store what closed journals hold; returns how many records were new. Problems are not raised."""
        new = 0
        with self._draining, self._alone() as alone:
            if not alone:
                return 0
            try:
                for path in self._closed():
                    new += self._store(path)
                self._prune()
                self._sum_up()
            except PlatformError as error:
                if self.problem is None:
                    _log.warning("usage stays in %s until the registry takes it: %s", self._folder, error)
                self.problem = error.message
                return new
            if self.problem is not None:
                _log.warning("the registry takes usage again")
            self.problem = None
        self.stored += new
        return new

    def spent(self, subject: Subject, start: str) -> int:
        """
        Micro-USD that *subject* has spent in the period that began at *start*: what is stored, and what
        waits in journals. 0 for what the registry holds while it cannot be reached.
        """
        with self._draining:
            waiting = self._waiting(subject, start)
            try:
                with self._workspace.reading() as connection:
                    known = traffic.stored(connection, [entry.request_id for entry in waiting])
                    total = traffic.spent(connection, subject.kind, subject.id, start)
            except PlatformError as error:
                _log.error("what %s has spent is not known, the registry says: %s", subject.kind, error)
                known, total = set(), 0
        return total + sum(e.cost_microusd or 0 for e in waiting if e.request_id not in known)

    def backlog_bytes(self) -> int:
        """Bytes of journals that are not stored yet."""
        return sum(size for path in self._folder.glob("*") if (size := _size(path)))

    def _closed(self) -> list[Path]:
        """Journals that nobody writes any more, oldest first."""
        closed = list(self._folder.glob(f"*{SUFFIX}"))
        closed += [
            path
            for path in self._folder.glob(f"*{OPEN_SUFFIX}")
            if not _is_held(self._folder / f"{path.name.rpartition('-')[0]}.lock")
        ]
        return sorted(closed, key=lambda path: path.name)

    def _store(self, path: Path) -> int:
        new = 0
        for entries in _batches(path):
            with self._workspace.writing() as connection:
                new += traffic.record(connection, entries)
        path.unlink(missing_ok=True)
        return new

    def _waiting(self, subject: Subject, start: str) -> list[UsageEntry]:
        found: dict[str, UsageEntry] = {}
        # Open ones first: one that is closed meanwhile is read twice, not missed.
        for suffix in (OPEN_SUFFIX, SUFFIX):
            for path in self._folder.glob(f"*{suffix}"):
                for entries in _batches(path):
                    for entry in entries:
                        counts = (subject.kind, subject.id) in traffic.subjects(entry)
                        if counts and start in traffic.starts(entry.at).values():
                            found[entry.request_id] = entry
        return list(found.values())

    def _prune(self) -> None:
        now = self._clock()
        if (now - self._pruned_at).total_seconds() >= _PRUNE_EVERY_S:
            self._pruned_at = now
            with self._workspace.writing() as connection:
                traffic.prune(connection, now - self._keep)

    def _sum_up(self) -> None:
        """Read, every few seconds, what keys and teams have spent."""
        now = self._clock()
        if (now - self._summed_at).total_seconds() >= _SUM_EVERY_S:
            self._summed_at = now
            with self._workspace.reading() as connection:
                found = [s for kind in _BUDGETED for s in traffic.spendings(connection, kind, to_text(now))]
            self.sums = {(s.kind, s.subject, s.period): s.microusd for s in found}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other process drains this folder now."""
        with (self._folder / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


def hold(folder: Path, name: str) -> IO[str]:
    """
    A lock that says the journals called *name* are being written: held until it is closed, or the process
    ends in whatever way.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = (folder / f"{name}.lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _is_held(path: Path) -> bool:
    try:
        with path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _batches(path: Path) -> Iterator[list[UsageEntry]]:
    """The records of a journal; a line that is torn, as by a kill in the middle, is logged and skipped."""
    batch: list[UsageEntry] = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    batch.append(entry_of(_DECODE(line)))
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    if line.endswith(b"\n") or path.suffix == SUFFIX:
                        _log.error("%s, line %d: not a usage record, skipped", path.name, number)
                if len(batch) >= _BATCH:
                    yield batch
                    batch = []
    except FileNotFoundError:
        return  # closed and renamed, or stored, in this moment
    if batch:
        yield batch


def entry_of(record: UsageRecord) -> UsageEntry:
    """What of *record* is stored."""
    values: dict[str, Any] = {name: getattr(record, name) for name in _FIELDS}
    return UsageEntry(**values)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.suffix in (SUFFIX, OPEN_SUFFIX) else 0
    except FileNotFoundError:
        return 0
