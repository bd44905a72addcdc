"""
The ledger: journals into the registry, exactly once.

A file is read when its writer has closed it, or is gone: a writer holds a lock for as long as it lives, so
what a killed process left is taken up by the next one. Records are stored in transactions, by request id,
and the file is deleted only after the last has been committed; read again, it changes nothing. While the
registry cannot be reached the files stay where they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO

import msgspec

from gateway.controlplane import decisions, segments
from gateway.controlplane.lastgood import replace_file
from gateway.controlplane.refresh import make_path
from gateway.dataplane.table import Subject
from gateway.errors import LimitsUnavailable
from registry import audit_keep, feedback, traffic
from registry.clock import Clock, to_text
from registry.entities import Feedback, Spending, SubjectKind, UsageEntry
from registry.errors import BadSettings, PlatformError, StoreUnavailable
from registry.workspace import Workspace

_PRUNE_EVERY_S = 3600.0
_SUM_EVERY_S = 5.0
_BUDGETED: tuple[SubjectKind, ...] = ("key", "team")
_LOCK = "drain"
_REFUSED = "refused.json-lines"
_ASK_AGAIN_S = 0.02
_BREATH_S = 0.001
"""Between two batches: where there is one core, requests wait for a batch, not for a journal."""
_MOST_READS = 20
_MOST_TO_READ = 64_000_000
"""Bytes of journals that are searched for one request."""
_log = logging.getLogger(__name__)


class Ledger:
    """Drains every journal of a folder. Its methods block; call them from a thread."""

    def __init__(self, workspace: Workspace, folder: Path, keep_days: int, clock: Clock) -> None:
        """
        Move what lies in *folder* into *workspace*; single records are kept for *keep_days*.

        Raises:
            BadSettings: the folder cannot be made.
        """
        self._workspace = workspace
        self._folder = folder
        self._keep = timedelta(days=keep_days)
        self._clock = clock
        self._draining = threading.Lock()
        self._database = make_path(workspace.settings.url)
        self._inode: tuple[int, int] | None = None
        self._pruned_at = self._summed_at = clock() - timedelta(seconds=_PRUNE_EVERY_S)
        self._sums_file = workspace.settings.home / "run" / "spent.json"
        self.problem: str | None = None
        """Why the registry took nothing last time; None when it did."""
        self.stored = 0
        """Records stored by this process since it began."""
        self.decisions = decisions.Decisions()
        """What this process decided about requests, on its way into the audit chain."""
        self.sums: Mapping[tuple[str, str, str], int] = {}
        """(kind, subject, period) → micro-USD that keys and teams have spent in the period that is now."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            message = f"{folder}, where usage is noted, cannot be made: {error.strerror}; see registry.home"
            raise BadSettings(message) from error

    def drain(self, wait_s: float = 0.0) -> int:
        """
        Store what closed journals hold; returns how many records were new. Problems are kept, not raised.

        Args:
            wait_s: how long to wait for another process that drains the same folder; by then it may have
                stored everything. Not zero at the end, when no more decisions come.
        """
        before = self.stored
        with self._draining:
            try:
                with self._alone(wait_s) as alone:
                    if alone:
                        self._drain()
                self._sum_up()
                self._store_decisions(None if wait_s else to_text(self._clock()))
            except (PlatformError, OSError) as error:
                if self.problem is None:
                    _log.warning("usage stays in %s until the registry takes it: %s", self._folder, error)
                self.problem = str(error)
            else:
                if self.problem is not None:
                    _log.warning("the registry takes usage again")
                self.problem = None
        return self.stored - before

    def spent(self, subject: Subject, start: str) -> int:
        """
        Micro-USD that *subject* has spent in the period that began at *start*: what is stored, and what
        waits in journals, each record once.

        While the registry cannot be reached, keys and teams are counted from what was known of them at
        most five seconds before that.

        Raises:
            LimitsUnavailable: the registry cannot be reached, and nothing is known.
        """
        waiting = self._waiting(subject, start)
        try:
            self._find_database()
            return self._stored_and(waiting, subject, start)
        except PlatformError as error:
            known = self._last_known(subject, start)
            if known is None:
                message = f"what this {subject.kind} has spent is not known now; try again in a moment"
                raise LimitsUnavailable(message) from error
            return known + sum(entry.cost_microusd or 0 for entry in waiting)

    def entry(self, request_id: str) -> UsageEntry | None:
        """
        The record of one request, stored or still in a journal of this machine; None where there is none.

        Raises:
            StoreUnavailable: the registry cannot be reached, and no journal has it.
        """
        try:
            return self._stored(request_id) or self._noted(request_id) or self._stored(request_id)
        except StoreUnavailable:
            noted = self._noted(request_id)
            if noted is None:
                raise
            return noted

    def give(self, entry: UsageEntry, said: Feedback) -> tuple[str, bool]:
        """As `registry.feedback.give`. Raises StoreUnavailable."""
        self._find_database()
        with self._workspace.writing() as connection:
            return feedback.give(connection, entry, said, now=self._clock())

    def backlog_bytes(self) -> int:
        """Bytes of journals that are not stored yet."""
        return segments.size(self._folder)

    def _drain(self) -> None:
        failed: OSError | None = None
        for path in segments.finished(self._folder):
            self._find_database()
            try:
                for entries in segments.batches(path):
                    self._store(entries)
                    time.sleep(_BREATH_S)
                path.unlink(missing_ok=True)
            except OSError as error:  # of this file; the others may be well
                failed = error
        self._prune()
        if failed is not None:
            raise failed

    def _store(self, entries: list[UsageEntry]) -> None:
        try:
            self._record(entries)
        except PlatformError:
            raise
        except Exception:  # noqa: BLE001 - one record that no database takes must not hold up all others
            if len(entries) == 1:
                self._set_aside(entries[0])
                return
            for entry in entries:
                self._store([entry])

    def _record(self, entries: list[UsageEntry]) -> None:
        cut = {entry.request_id: entry for entry in entries if entry.error in decisions.POLICY}
        with self._workspace.writing() as connection:
            known = traffic.stored(connection, list(cut)) if cut else set[str]()
            new = traffic.record(connection, entries)
            about = [decisions.of_entry(entry) for name, entry in cut.items() if name not in known]
            if about:
                audit_keep.append_sealed(connection, about, now=self._clock())
        self.stored += new

    def _store_decisions(self, until: str | None) -> None:
        taken = self.decisions.take(until)
        if not taken:
            return
        try:
            self._find_database()
            with self._workspace.writing() as connection:
                audit_keep.append_sealed(connection, decisions.of_counts(taken), now=self._clock())
        except Exception:
            self.decisions.give_back(taken)
            raise

    def _set_aside(self, entry: UsageEntry) -> None:
        path = self._folder / _REFUSED
        _log.error("usage of request %s cannot be stored; it is kept in %s", entry.request_id, path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor with its own mode
            file.write(msgspec.json.encode(entry) + b"\n")

    def _find_database(self) -> None:
        """
        Make sure that an SQLite file is the one that connections were opened on: what is written to one
        that was moved away is lost, and a missing one must not be made anew.
        """
        if self._database is None:
            return
        try:
            found = self._database.stat()
        except OSError as error:
            message = f"{self._database} is gone; restore it"
            raise StoreUnavailable(message) from error
        inode = (found.st_dev, found.st_ino)
        if self._inode not in (None, inode):
            self._workspace.engine.dispose()
        self._inode = inode

    def _stored(self, request_id: str) -> UsageEntry | None:
        self._find_database()
        with self._workspace.reading() as connection:
            return traffic.find(connection, request_id)

    def _noted(self, request_id: str) -> UsageEntry | None:
        """What a journal says; nothing once there is more to read than a question may take."""
        if self.backlog_bytes() > _MOST_TO_READ:
            return None
        named = segments.mentioning(self._folder, request_id)
        return next((entry for entry in named if entry.request_id == request_id), None)

    def _waiting(self, subject: Subject, start: str) -> list[UsageEntry]:
        """The records that count for *subject*, from journals of every process."""
        period = subject.limits.budget_period
        key = (subject.kind, subject.id)
        return [
            entry
            for entry in segments.mentioning(self._folder, subject.id)
            if key in traffic.subjects(entry) and traffic.starts(entry.at)[period] == start
        ]

    def _stored_and(self, waiting: list[UsageEntry], subject: Subject, start: str) -> int:
        """
        The stored sum, and those of *waiting* that are not in it.

        The sum is read again until it stands still: what is committed in between would be counted twice.
        """
        period = subject.limits.budget_period
        ids = [entry.request_id for entry in waiting]
        total, known, again = 0, set[str](), -1
        with self._workspace.reading() as connection:
            for _ in range(_MOST_READS):
                total = traffic.spent(connection, subject.kind, subject.id, start, period)
                if total == again:
                    break
                known = traffic.stored(connection, ids)
                again = traffic.spent(connection, subject.kind, subject.id, start, period)
                if total == again:
                    break
        return total + sum(e.cost_microusd or 0 for e in waiting if e.request_id not in known)

    def _prune(self) -> None:
        now = self._clock()
        if (now - self._pruned_at).total_seconds() >= _PRUNE_EVERY_S:
            self._find_database()
            with self._workspace.writing() as connection:
                traffic.prune(connection, now - self._keep)
                feedback.prune(connection, now - self._keep)
            self._pruned_at = now

    def _sum_up(self) -> None:
        """Read, every few seconds, what keys and teams have spent, and keep it on disk."""
        now = self._clock()
        if (now - self._summed_at).total_seconds() < _SUM_EVERY_S:
            return
        self._find_database()
        with self._workspace.reading() as connection:
            found = [s for kind in _BUDGETED for s in traffic.spendings(connection, kind, to_text(now))]
        self._summed_at = now
        sums: dict[tuple[str, str, str], int] = {(s.kind, s.subject, s.period): s.microusd for s in found}
        if sums != self.sums or not self._sums_file.exists():
            self.sums = sums
            replace_file(self._sums_file, msgspec.json.encode(found))

    def _last_known(self, subject: Subject, start: str) -> int | None:
        if subject.kind not in _BUDGETED:
            return None
        try:
            found = msgspec.json.decode(self._sums_file.read_bytes(), type=list[Spending])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.error("what was spent is not known: %s", error)
            return None
        key = (subject.kind, subject.id, subject.limits.budget_period, start)
        return next((s.microusd for s in found if (s.kind, s.subject, s.period, s.start) == key), 0)

    @contextlib.contextmanager
    def _alone(self, wait_s: float) -> Iterator[bool]:
        """Whether no other process drains this folder now."""
        end = time.monotonic() + wait_s
        with (self._folder / _LOCK).open("a") as lock:
            while not _locked(lock):
                if time.monotonic() >= end:
                    yield False
                    return
                time.sleep(_ASK_AGAIN_S)
            yield True


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
