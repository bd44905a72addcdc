"""
Run a Python program that nobody reviewed, such as one that a model wrote.

Linux on x86-64 and 64-bit ARM, without root and without anything to install: the program runs in a process
that gave up its rights first; see `evals.sandbox_child`. It can read the standard library and compute: no
network, no files but modules, no writing, no processes, no threads, no signals, no environment. Its time and
memory are bounded. Where one of the walls cannot be put up, nothing is run.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from registry.errors import BadInput

MOST_CHARACTERS = 1_000_000
"""Of one program."""
_MACHINES = ("x86_64", "aarch64")
_START_S = 10.0
"""How long putting up the walls may take."""
_REPORT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a program."""

    outcome: Literal["passed", "failed", "timeout", "memory"]
    """
    passed: it ran to its last line. failed: it raised, or ended early, `exit(0)` too. memory: it raised
    MemoryError.
    """
    error: str
    """The exception that ended it, by name; `exit` or a signal's name where none did; empty if it passed."""
    seconds: float
    """Wall time, with about 0.1 s to start."""


def run_python(source: str, *, seconds: float = 5.0, memory_mb: int = 512) -> Ran:
    """
    What becomes of *source* as a main program, alone in a process without rights. Thread-safe; blocks.

    The walls protect the machine. They do not keep a program from calling itself right: one that looks
    through its interpreter can forge a pass, which is worth knowing where models are trained on this outcome.
    Sets have the same order in every run.

    Args:
        seconds: of wall time, above 0 and at most 600.
        memory_mb: of address space, in millions of bytes, at least 64.

    Raises:
        BadInput: this machine cannot run programs safely, or an argument is out of range.
    """
    _check(source, seconds, memory_mb)
    nonce = secrets.token_hex(16)
    walls, report = os.memfd_create("walls"), os.memfd_create("report")
    try:
        began = time.perf_counter()
        asked = {"nonce": nonce, "walls": walls, "report": report, "seconds": seconds, "memory_mb": memory_mb}
        code = _run({**asked, "source": source}, (walls, report), seconds + _START_S)
        taken = time.perf_counter() - began
        standing = os.pread(walls, _REPORT_BYTES, 0).decode(errors="replace")
        told = os.pread(report, _REPORT_BYTES, 0).decode(errors="replace")
    finally:
        os.close(walls)
        os.close(report)
    if standing != "up":
        raise BadInput(
            f"programs cannot be run safely here: {standing or f'the process ended with {code}'}; it takes "
            "Linux 5.13 with Landlock and seccomp, which the profile of a container may forbid"
        )
    known = [line for line in told.splitlines() if line.startswith(f"{nonce} ")]
    return _outcome(known[-1].removeprefix(f"{nonce} ") if known else "", code, taken)


def _check(source: str, seconds: float, memory_mb: int) -> None:
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        raise BadInput(
            f"programs cannot be run safely on {sys.platform} {platform.machine()}; use Linux on "
            f"{' or '.join(_MACHINES)}"
        )
    if not 0 < seconds <= 600:
        raise BadInput(f"seconds is {seconds:g}; it must be above 0 and at most 600")
    if memory_mb < 64:
        raise BadInput(f"memory_mb is {memory_mb}; it must be at least 64")
    if len(source) > MOST_CHARACTERS:
        raise BadInput(f"the program has {len(source)} characters; it may have {MOST_CHARACTERS}")


def _run(asked: Mapping[str, object], files: tuple[int, ...], patience_s: float) -> int:
    """Run the child to its end, or to ours; its exit code."""
    child = Path(__file__).with_name("sandbox_child.py")
    interpreter = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    with subprocess.Popen(
        [interpreter, "-P", "-s", "-S", "-B", child],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PYTHONHASHSEED": "0"},
        pass_fds=files,
        start_new_session=True,
    ) as process:
        try:
            process.communicate(json.dumps(asked).encode(), timeout=patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
        except BaseException:
            process.kill()
            raise
        return process.wait()


def _outcome(told: str, code: int, taken: float) -> Ran:
    """What the child told in the end, and how it ended, as an outcome."""
    if -code in (signal.SIGALRM, signal.SIGXCPU, signal.SIGKILL):
        return Ran("timeout", signal.Signals(-code).name, taken)
    outcome, _, error = told.partition(" ")
    if code != 0 or not outcome:
        return Ran("failed", signal.Signals(-code).name if code < 0 else "exit", taken)
    if outcome == "passed":
        return Ran("passed", "", taken)
    return Ran("memory", "MemoryError", taken) if outcome == "memory" else Ran("failed", error, taken)
