"""Where a model came from: the code, the environment and the machine that made it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from registry import ids

DISTRIBUTIONS = (
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "pandera",
    "scikit-learn",
    "scipy",
    "skl2onnx",
    "sluicegate",
    "threadpoolctl",
)
GIT_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class GitState:
    """The commit of the folder that params.yaml lies in, and whether files differ from it."""

    commit: str
    dirty: bool


def git_state(folder: Path) -> GitState | None:
    """The state of the repository around *folder*; None outside one, or without git."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    status = _git(folder, "status", "--porcelain")
    if commit is None or status is None:
        return None
    return GitState(commit.strip(), bool(status.strip()))


def environment() -> list[str]:
    """
    `name==version` of what decides a model's bytes: Python and the libraries that train and convert.

    The installed versions are read, not a lock file: they are what ran, they are the same in every
    folder, and packages that never touch a model (a web framework, a test runner) stay out.
    """
    listed = [f"python=={sys.version_info.major}.{sys.version_info.minor}"]
    for name in DISTRIBUTIONS:
        try:
            listed.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    return sorted(listed)


def environment_digest() -> str:
    """Digest of the sorted `environment()`."""
    return ids.digest(environment())


def hardware() -> dict[str, str | int]:
    """The machine, for people who compare training times."""
    return {"machine": platform.machine(), "system": platform.system(), "cores": cores()}


def cores() -> int:
    """Processors this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
