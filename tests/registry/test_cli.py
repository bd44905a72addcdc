from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry.prompts import write_file

from .conftest import PROMPT

RELEASE = "name: support\nkind: chat\nmodel: openai/one\nprompt: support\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "sluicegate.yaml").write_text("registry: {home: state}\n")
    (tmp_path / "support.md").write_text(write_file("support", PROMPT))
    (tmp_path / "support.yaml").write_text(RELEASE)
    return tmp_path


def registry(project: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from registry.cli import main; main()", *words],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def answer(project: Path, *words: str, code: int = 0) -> Any:
    returned, out, error = registry(project, *words, "--json")
    assert returned == code, error
    return json.loads(out)


def test_a_release_is_pushed_refused_and_listed(project: Path) -> None:
    first = answer(project, "prompts", "push", "support.md")
    assert first == answer(project, "prompts", "push", "support.md")
    created = answer(project, "releases", "create", "support.yaml")
    refused = answer(project, "promote", "support@candidate", code=1)
    assert refused["error"]["code"] == "evidence_missing"
    listed = answer(project, "releases", "list")["versions"]
    assert [(one["digest"], one["aliases"]) for one in listed] == [(created["digest"], ["candidate"])]
    shown = answer(project, "releases", "show", "support@candidate")
    assert shown["content"]["prompt"] == first["digest"]
    moves = answer(project, "history", "support")["moves"]
    assert [(move["alias"], move["action"]) for move in moves] == [("candidate", "create")]
    assert answer(project, "verify") == {"ok": True, "problems": []}


def test_a_dry_run_stores_nothing(project: Path) -> None:
    would = answer(project, "prompts", "push", "support.md", "--dry-run")
    assert answer(project, "prompts", "list") == {"versions": [], "next": None}
    assert answer(project, "prompts", "push", "support.md")["digest"] == would["digest"]


def test_pulling_a_prompt_prints_the_file_that_was_pushed(project: Path) -> None:
    answer(project, "prompts", "push", "support.md")
    _, out, _ = registry(project, "prompts", "pull", "support")
    assert out.strip() == (project / "support.md").read_text().strip()


def test_rendering_needs_exactly_the_variables(project: Path) -> None:
    answer(project, "prompts", "push", "support.md")
    rendered = answer(project, "prompts", "render", "support", "--set", "question=Why?")
    assert rendered["messages"] == [{"role": "user", "content": "Why?"}]
    assert (rendered["name"], rendered["number"]) == ("support", 1)
    failed = answer(project, "prompts", "render", "support", code=3)
    assert failed["error"]["code"] == "bad_template"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("name: support\nkind: chat\nmodle: x/y\n", "bad.yaml:3: modle: unknown key; did you mean 'model'?"),
        ("name: support\nkind: chat\nmodel: x\n", "model 'x' is not provider/model"),
        ("name: support\nkind: chat\nmodel: x/y\nprompt: none\n", "no prompt none"),
        ("name: support\nkind: chat\nmodel: extractive/a\n", "add index:"),
    ],
)
def test_a_wrong_release_file_is_named(project: Path, file: str, message: str) -> None:
    (project / "bad.yaml").write_text(file)
    code, out, error = registry(project, "releases", "create", "bad.yaml")
    assert (code, out) == (3, "")
    assert message in error


def test_an_unknown_setting_stops_every_command(project: Path) -> None:
    (project / "sluicegate.yaml").write_text("registry:\n  homes: state\n")
    code, _, error = registry(project, "releases", "list")
    assert code == 3
    assert "sluicegate.yaml [registry]:2: homes: unknown key; did you mean 'home'?" in error


def test_signing_keys_are_created_listed_and_revoked(project: Path) -> None:
    key = answer(project, "keys", "create")["key_id"]
    assert answer(project, "keys", "create")["key_id"] == key
    assert (project / "state" / "keys" / "evidence.pem").stat().st_mode & 0o777 == 0o600
    answer(project, "keys", "revoke", key)
    listed = answer(project, "keys", "list")["keys"]
    assert [(one["key_id"], one["revoked_at"] is not None) for one in listed] == [(key, True)]
