"""Processes pinned to cores, and what /proc says about a whole tree of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from registry.errors import PlatformError

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Died(PlatformError):
    """A measured process ended by itself, or never answered."""

    code = "process_died"


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on (the name before may hold spaces); empty when gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(root: int) -> list[int]:
    """
    Ids of the process *root*, all its descendants and all members of its session, living ones only.

    The session catches children whose parent ended before them.
    """
    found = {root}
    rows = [
        (int(entry.name), int(fields[1]), int(fields[3]))
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (fields := _stat(int(entry.name)))
    ]
    grown = True
    while grown:
        grown = False
        for pid, parent, session in rows:
            if pid not in found and (parent in found or session == root):
                found.add(pid)
                grown = True
    return sorted(found)


def cpu_by_process(root: int) -> dict[int, float]:
    """Process id → seconds of user and system time so far, ended and reaped children included."""
    times = {}
    for pid in tree(root):
        fields = _stat(pid)
        if fields:
            times[pid] = sum(int(field) for field in fields[11:15]) * _TICK_S
    return times


def cpu_s(root: int) -> float:
    """Seconds of user and system time of the whole tree so far; resolution 10 ms on most kernels."""
    return sum(cpu_by_process(root).values())


def rss_mb(root: int) -> float:
    """Resident memory of the whole tree in MB (10^6 bytes); pages shared by processes count in each."""
    return sum(int(fields[21]) for pid in tree(root) if (fields := _stat(pid))) * _PAGE / 1e6


def open_files(root: int) -> int:
    """Open file descriptors of the whole tree."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            total += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return total


def settle(root: int, *, limit_s: float = 15.0) -> None:
    """Return once the tree used under 5 % of a core for 0.2 s: no backlog is left to disturb the next."""
    deadline = time.monotonic() + limit_s
    before = cpu_s(root)
    while time.monotonic() < deadline:
        time.sleep(0.2)
        now = cpu_s(root)
        if now - before <= 0.01:
            return
        before = now


@contextlib.contextmanager
def running(
    command: Sequence[str], *, cores: str, log: Path, env: Mapping[str, str] | None = None,
    cwd: Path | None = None, nice: int = 0,
) -> Iterator[subprocess.Popen[bytes]]:  # fmt: skip
    """
    *command* in its own session on *cores* (`0`, `0,1`), its output in *log*; ended with its whole tree.

    SIGTERM first; SIGKILL for whatever lives 5 s later.
    """
    prefix = ["taskset", "-c", cores, *(["nice", "-n", str(nice)] if nice else [])]
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*prefix, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=env, cwd=cwd, start_new_session=True,
        )  # fmt: skip
    try:
        yield child
    finally:
        members = tree(child.pid)
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.wait(5)


def last_words(log: Path, limit: int = 1200) -> str:
    """The end of what a process wrote."""
    return log.read_text(errors="replace")[-limit:].strip() if log.exists() else ""
