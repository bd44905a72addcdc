"""
The journal: what each request used, on disk before its answer ends.

A record is one line of JSON, the array of a `UsageEntry`, appended with one system call to a file of this
process, so it survives the end of the process, however it ends. The ledger moves files that are closed into
the registry. While the disk takes nothing, records wait in memory, bounded; when that is full too, requests
that cost must be refused, since what they use could not be known.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from pathlib import Path

import msgspec

from gateway.dataplane.usage import UsageRecord

SUFFIX = ".jsonl"
"""Of a file that is closed."""
OPEN_SUFFIX = ".open"
"""Of the file that is being written; its process holds a lock on it."""
_MAX_BYTES = 8_000_000
_MAX_WAITING = 10_000
_log = logging.getLogger(__name__)


class Journal:
    """The writing end. Owned by one event loop."""

    __slots__ = (
        "_bytes",
        "_encode",
        "_fd",
        "_folder",
        "_name",
        "_number",
        "_path",
        "_waiting",
        "problem",
    )

    def __init__(self, folder: Path, name: str) -> None:
        """
        Write to *folder*, which is made; *name* is this process' own and never used again.

        Raises:
            OSError: the folder cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._name = name
        self._number = 0
        self._fd: int | None = None
        self._path = folder
        self._bytes = 0
        self._encode = msgspec.json.Encoder().encode
        self._waiting: deque[bytes] = deque()
        self.problem: str | None = None
        """Why the disk takes nothing; None while it does."""

    @property
    def waiting(self) -> int:
        """Records that are not on disk."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether no further record could be kept."""
        return len(self._waiting) >= _MAX_WAITING

    def append(self, record: UsageRecord) -> None:
        """Put *record* on disk, or into memory while the disk takes nothing."""
        line = self._encode(stored(record)) + b"\n"
        if self._waiting:
            self._waiting.append(line)
            self.flush()
        elif not self._write(line):
            self._waiting.append(line)

    def flush(self) -> None:
        """Write what waits, as far as the disk takes it."""
        while self._waiting and self._write(self._waiting[0]):
            self._waiting.popleft()

    def rotate(self) -> None:
        """Close the file, if it holds anything, so that the ledger can take it."""
        self.flush()
        if self._fd is not None and self._bytes:
            self._close()

    def close(self) -> None:
        """Close the file; later records begin another."""
        self.flush()
        if self._fd is not None:
            self._close()
        if self._waiting:
            _log.error("%d usage records could not be written: %s", len(self._waiting), self.problem)

    def _write(self, line: bytes) -> bool:
        try:
            if self._fd is None:
                self._open()
            assert self._fd is not None  # noqa: S101 - just opened
            written = os.write(self._fd, line)
            if written != len(line):
                # A torn line is skipped by who reads; the whole one goes to the next file.
                self._close()
                raise OSError("the disk took only a part of a record")
        except OSError as error:
            if self.problem is None:
                _log.error("usage records wait in memory, the journal cannot be written: %s", error)
            self.problem = str(error)
            return False
        if self.problem is not None:
            _log.warning("the journal can be written again")
            self.problem = None
        self._bytes += written
        if self._bytes >= _MAX_BYTES:
            self._close()
        return True

    def _open(self) -> None:
        self._number += 1
        self._path = self._folder / f"{self._name}-{self._number:06d}{OPEN_SUFFIX}"
        self._fd = os.open(
            self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self._bytes = 0

    def _close(self) -> None:
        """The file gets its final name only when it is complete: whoever sees that name may take it."""
        fd, self._fd = self._fd, None
        assert fd is not None  # noqa: S101 - callers have checked
        os.close(fd)
        try:
            self._path.rename(self._path.with_suffix(SUFFIX))
        except OSError as error:
            _log.error("a journal file could not be closed, it is taken up at the next start: %s", error)
        self._bytes = 0


def stored(record: UsageRecord) -> tuple[str | int | bool | None, ...]:
    """What of *record* is stored: a `UsageEntry`, without what making one would take."""
    return (
        record.request_id, record.at, record.account, record.key_id, record.team, record.user, record.session,
        record.release, record.digest, record.model, record.route, record.status, record.error,
        record.prompt_tokens, record.completion_tokens, record.cached_tokens, record.rows, record.estimated,
        record.cost_microusd,
    )  # fmt: skip
