from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from registry import terminal
from registry.cli import application
from registry.errors import PlatformError

from .test_cli import answer, registry

EXPORTS = Path(__file__).parent / "exports"
TONE = b"---\r\nname: tone\r\nkind: text\r\n---\r\nBe kind.\r\n"
ASK = b"""---
name: ask
variables: {q: text, n: integer}
partials: {tone: tone}
---
# user
{% include "tone" %} {{ q }} {{ n }}
"""


def written(folder: Path) -> Path:
    (folder / "sluicegate.yaml").write_text("registry: {home: state}\n")
    (folder / "prompts").mkdir()
    (folder / "prompts" / "ask.md").write_bytes(ASK)
    (folder / "prompts" / "tone.md").write_bytes(TONE)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return written(tmp_path)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = written(tmp_path_factory.mktemp("pushed"))
    answer(folder, "prompts", "push", "prompts")
    return folder


def test_prompts_are_pushed_labelled_rendered_logged_and_pulled(project: Path) -> None:
    would = answer(project, "prompts", "push", "prompts", "--dry-run")
    pushed = answer(project, "prompts", "push", "prompts")
    names = [(one["name"], one["number"], one["file"], one["new"]) for one in pushed["versions"]]
    assert names == [("tone", 1, "prompts/tone.md", True), ("ask", 1, "prompts/ask.md", True)]
    assert would == {**pushed, "dry_run": True}
    alone = answer(project, "prompts", "push", "prompts/ask.md")
    ask = pushed["versions"][1]["digest"]
    assert alone == {"kind": "prompt", "ok": True, "name": "ask", "number": 1, "digest": ask}
    assert answer(project, "prompts", "label", "ask:1", "staging", "--expected", "0")["generation"] == 1
    [label] = answer(project, "prompts", "labels", "ask")["labels"]
    assert (label["label"], label["number"], label["digest"]) == ("staging", 1, ask)
    assert answer(project, "prompts", "log", "ask")["versions"][0]["labels"] == ["staging"]
    (project / "values.json").write_text('{"q": "why", "n": 1}')
    words = ("prompts", "render", "ask@staging", "--values", "values.json", "--set", "n=2")
    assert answer(project, *words)["messages"] == [{"role": "user", "content": "Be kind. why 2"}]
    answer(project, "prompts", "pull", "tone", "--output", "out/tone.md")
    assert (project / "out" / "tone.md").read_bytes() == TONE
    answer(project, "prompts", "pull", "--all", "all")
    assert (project / "all" / "ask.md").read_bytes() == ASK
    assert answer(project, "prompts", "pull", "tone")["file"].encode() == TONE
    assert answer(project, "prompts", "label", "ask", "staging", "--remove")["removed"] is True


def test_a_diff_says_by_its_exit_code_whether_anything_changed(project: Path) -> None:
    answer(project, "prompts", "push", "prompts")
    assert answer(project, "prompts", "diff", "ask", "prompts/ask.md")["same"] is True
    (project / "prompts" / "ask.md").write_bytes(ASK.replace(b"{{ q }}", b"Q: {{ q }}"))
    changed = answer(project, "prompts", "diff", "prompts/ask.md", "--set", "q=why", code=1)
    assert changed["rendered"]["b"]["messages"] == [{"role": "user", "content": "Be kind. Q: why 1"}]
    code, out, _ = registry(project, "prompts", "diff", "ask:1", "prompts/ask.md")
    assert (code, "+{% include" in out, "Be kind. Q: <q> 1" in out) == (1, True, True)
    answer(project, "prompts", "push", "prompts/ask.md")
    assert answer(project, "prompts", "diff", "ask", code=1)["a"]["title"] == "ask:1"


def test_sync_reports_conflicts_by_its_exit_code(project: Path) -> None:
    planned = answer(project, "prompts", "sync", "prompts", "--dry-run")
    assert [one["action"] for one in planned["files"]] == ["push", "push"]
    assert [one["digest"] is None for one in answer(project, "prompts", "sync", "prompts")["files"]] == [
        False
    ] * 2
    (project / "other").mkdir()
    synced = answer(project, "prompts", "sync", "other")
    assert [(one["file"], one["action"]) for one in synced["files"]] == [
        ("ask.md", "write"),
        ("tone.md", "write"),
    ]
    assert (project / "other" / "tone.md").read_bytes() == TONE
    (project / "other" / "ask.md").write_bytes(ASK.replace(b"{{ n }}", b"{{ n }}!"))
    answer(project, "prompts", "sync", "other")
    (project / "prompts" / "ask.md").write_bytes(ASK.replace(b"{{ n }}", b"{{ n }}?"))
    assert answer(project, "prompts", "sync", "prompts", code=1)["conflicts"] == 1
    assert (project / "prompts" / "ask.md").read_bytes() == ASK.replace(b"{{ n }}", b"{{ n }}?")


def test_imports_are_tried_refused_and_stored(project: Path) -> None:
    export = str(EXPORTS / "langfuse.json")
    words = ("prompts", "import", export, "--from", "langfuse")
    tried = answer(project, *words, "--dry-run")
    assert answer(project, "prompts", "list")["versions"] == []
    assert answer(project, *words) == {**tried, "dry_run": False}
    data = {"name": "p", "version": 1, "type": "chat", "prompt": [{"type": "placeholder", "name": "h"}]}
    (project / "bad.json").write_text(json.dumps(data))
    refused = answer(project, "prompts", "import", "bad.json", "--from", "langfuse", code=3)
    assert "p 1: message 1: a placeholder for messages ('h')" in refused["error"]["message"]
    skipped = answer(project, "prompts", "import", "bad.json", "--from", "langfuse", "--skip-unsupported")
    assert skipped["prompts"][0]["versions"][0]["refused"].startswith("message 1: a placeholder")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pull",), "name one prompt, or a folder with --all DIR"),
        (("label", "ask", "production"), "cannot be moved by hand"),
        (("render", "ask", "--set", "q=x"), "missing variables ['n']"),
        (("render", "ask", "--set", "n=hush"), "variable 'n': its value is no JSON"),
        (("render", "ask", "--values", "nowhere.json"), "--values nowhere.json: cannot be read"),
        (("diff", "ask"), "ask:1 is the first version"),
        (("sync", "nowhere"), "nowhere: no such folder"),
        (("import", "x.json", "--from", "excel"), "--from 'excel' is not one of mlflow, langfuse, langsmith"),
        (("log", "other"), "no prompt other in the registry"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    pushed: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(pushed)
    outcome = CliRunner().invoke(application, ["prompts", *words])
    assert isinstance(outcome.exception, PlatformError)
    assert (outcome.stdout, terminal.exit_code(outcome.exception)) == ("", 3)
    assert message in outcome.exception.message
    assert "hush" not in outcome.exception.message
    assert "\n" not in outcome.exception.message


@pytest.mark.parametrize(
    "command", ["push", "pull", "diff", "render", "log", "label", "labels", "sync", "import"]
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    helped = CliRunner().invoke(application, ["prompts", command, "--help"])
    assert helped.exit_code == 0
    assert f"Example: registry prompts {command}" in " ".join(helped.stdout.split())
