from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from classical import lineage
from classical.lineage import GitState
from registry.ids import digest


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def test_a_commit_is_named_and_an_uncommitted_change_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert lineage.git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert lineage.git_state(tmp_path) is None
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert lineage.git_state(tmp_path) == GitState(commit, dirty=False)
    (tmp_path / "new").write_text("")
    assert lineage.git_state(tmp_path) == GitState(commit, dirty=True)


def test_without_git_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lineage.git_state(tmp_path) is None


def test_the_environment_lists_what_decides_a_models_bytes() -> None:
    listed = lineage.environment()
    assert f"scikit-learn=={version('scikit-learn')}" in listed
    assert listed == sorted(listed)
    assert not any(item.startswith("fastapi") for item in listed)
    assert lineage.environment_digest() == digest(listed)


def test_the_machine_has_at_least_one_core() -> None:
    assert lineage.hardware()["cores"] == lineage.cores() >= 1
