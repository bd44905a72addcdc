"""Backups and garbage collection from the command line, on both databases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from registry import audit_verify, prompts
from registry.cli import application
from registry.entities import PromptContent, PromptMessage
from registry.errors import PlatformError

from .conftest import NOW, House


@pytest.fixture
def run(house: House, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(house.workspace.settings.home))
    monkeypatch.setenv("SLUICEGATE_REGISTRY__DATABASE_URL", database_url)

    def command(*words: str) -> Any:
        done = CliRunner().invoke(application, [*words, "--json"])
        if isinstance(done.exception, PlatformError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return command


def test_a_backup_fills_an_empty_sqlite_registry_with_all_there_was(
    house: House, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = house.release()
    house.evidence(release)
    house.promote()
    before = run("history", "support")
    run("backup", str(tmp_path / "all.tar"))
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(tmp_path / "restored"))
    monkeypatch.setenv("SLUICEGATE_REGISTRY__DATABASE_URL", "")
    run("restore", str(tmp_path / "all.tar"))
    assert run("history", "support") == before
    assert run("verify") == {"ok": True, "problems": []}
    assert run("audit", "verify")["ok"]
    with pytest.raises(PlatformError, match="empty"):
        run("restore", str(tmp_path / "all.tar"))


def test_only_what_nothing_reaches_is_collected(house: House, run: Any) -> None:
    house.release()
    with house.workspace.writing() as connection:
        for number in range(8):
            content = PromptContent((PromptMessage("user", str(number)),))
            prompts.push(connection, "loose", content, actor="ann", now=NOW)
    would = run("gc", "--dry-run", "--keep-newest", "3")
    done = run("gc", "--keep-newest", "3")
    assert would["version_count"] == done["version_count"] == 5
    kept = sorted(version["number"] for version in run("prompts", "list", "loose")["versions"])
    assert kept == [6, 7, 8]
    assert run("releases", "show", "support@candidate")["content"]["prompt"]
    assert run("verify") == {"ok": True, "problems": []}
    with house.workspace.reading() as connection:
        assert audit_verify.verify(connection)["problems"] == []
