"""Folders that are whole or absent: made aside, then renamed into place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_ASIDE = ".making-"


@contextlib.contextmanager
def made_aside(final: Path, workshop: Path) -> Iterator[Path]:
    """
    An empty folder to fill; on leaving without an exception it becomes *final*, on disk.

    Safe for many processes: whoever is first wins, the others' work is dropped. What a killed
    process left behind is removed when next nobody else is at work in *workshop*.

    Args:
        workshop: folder for the work, on the same file system as *final*.
    """
    workshop.mkdir(parents=True, exist_ok=True)
    with (workshop / ".lock").open("w") as lock:
        _sweep(workshop, lock.fileno())
        fcntl.flock(lock, fcntl.LOCK_SH)
        aside = Path(tempfile.mkdtemp(dir=workshop, prefix=_ASIDE))
        try:
            yield aside
            for path in [*aside.rglob("*"), aside]:
                _flush(path)
            final.parent.mkdir(parents=True, exist_ok=True)
            _rename(aside, final)
            _flush(final.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _sweep(workshop: Path, lock: int) -> None:
    """Remove unfinished folders, but only while no process makes one here."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    for left in workshop.glob(f"{_ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True)


def _rename(aside: Path, final: Path) -> None:
    """Rename *aside* to *final* unless another process has finished it first."""
    try:
        aside.rename(final)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
