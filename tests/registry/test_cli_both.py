"""One script of every registry command, on SQLite and on PostgreSQL: the same answers, to the letter."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from registry import datasets, evidence, policies, releases, signing, suites, versions
from registry.cli import application
from registry.clock import utc_now
from registry.errors import PlatformError
from registry.ids import canonical
from registry.refs import Ref, parse_ref
from registry.settings import RegistrySettings
from registry.workspace import open_workspace
from tests.fakes.postgres import Postgres

FILES = {
    "support.md": "---\nname: support\nvariables:\n  question: text\n---\n# user\n{{ question }}\n",
    "support2.md": "---\nname: support\nvariables:\n  question: text\n---\n# user\nBriefly: {{ question }}\n",
    "guard.yaml": "kind: guardrails\nname: strict\nrules:\n- {detector: pii, stage: input, action: block}\n",
    "gate.yaml": "kind: gate\nname: support\ngate: {suites: [quality], approvals: 1}\n",
    "judge.yaml": "name: fair\njudge: {model: openai/x, rubric: Is it right?}\n",
    "tools.yaml": "name: look\ntools:\n- {type: function, function: {name: look, parameters: {}}}\n",
    "prices.yaml": "name: list\nprices:\n- {model: openai/one, input: '1', output: '2'}\n",
    "one.yaml": "name: support\nkind: chat\nmodel: openai/one\nprompt: support:1\nguardrails: strict\n",
    "two.yaml": "name: support\nkind: chat\nmodel: openai/two\nprompt: support\nprices: list\n"
    "tools: [look]\n",
    "langfuse.json": json.dumps(
        [{"name": "greet", "version": 1, "prompt": "Hello {{name}}", "type": "text", "labels": ["staging"]}]
    ),
}
ELSEWHERE = {"mlflow import", "mlflow export", "feedback export"}
"""Commands that need another server, which tests/interop plays, or that print a line for each thing."""


class Stage:
    """A registry, and the command line on it."""

    def __init__(self, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.url, self._monkeypatch = folder, url, monkeypatch
        self.log: list[tuple[str, int, Any]] = []
        self.played: set[str] = set()
        folder.mkdir()
        for name, text in FILES.items():
            (folder / name).write_text(text)
        self.enter(folder / "home", url)

    def enter(self, home: Path, url: str) -> None:
        for name, value in {
            "REGISTRY__HOME": str(home),
            "REGISTRY__DATABASE_URL": url,
            "ACTOR": "ann",
        }.items():
            self._monkeypatch.setenv(f"SLUICEGATE_{name}", value)

    def sit(self, token: str | None) -> None:
        if token is None:
            self._monkeypatch.delenv("SLUICEGATE_TOKEN", raising=False)
        else:
            self._monkeypatch.setenv("SLUICEGATE_TOKEN", token)

    def run(self, line: str, code: int = 0) -> Any:
        """Play one command; words of *line* are file names in the folder where they are some."""
        words = [
            str(self.folder / word) if word in FILES or word.startswith("./") else word
            for word in _words(line)
        ]
        done = CliRunner().invoke(application, [*words, "--json"])
        if isinstance(done.exception, PlatformError):
            answer: Any = {"error": done.exception.code, "message": done.exception.message}
            got = 1 if answer["error"].startswith(("evidence", "approval", "gate", "nothing", "alias")) else 3
        else:
            assert done.exception is None or isinstance(done.exception, SystemExit), (line, done.exception)
            answer, got = json.loads(done.stdout), done.exit_code
        assert got == code, (line, json.dumps(answer)[:2000])
        self.log.append((line, got, answer))
        self.played.add(_command(line))
        return answer

    def _path(self, word: str) -> str:
        return str(self.folder / word) if word in FILES or word.startswith("./") else word

    def evidence(self, ref: str, file: str, *, key: Path | None = None) -> None:
        """Sign passing evidence about *ref* into *file*."""
        now = utc_now() - timedelta(seconds=2)
        with self.opened() as workspace, workspace.reading() as connection:
            release = releases.resolve(connection, parse_ref(ref))
            state = releases.alias_state(connection, release.name, "production")
            baseline = versions.by_digest(connection, "release", state.digest) if state else None
            statement = evidence.statement(
                release=release,
                suite=versions.get(connection, "suite", Ref("quality")),
                dataset=versions.get(connection, "dataset", Ref("questions")),
                baseline=baseline,
                gate_policy=policies.gate_for(connection, release.name)[0],
                verdict="pass",
                checks=[{"metric": "exact", "value": 0.5}],
                samples=40,
                started=now,
                now=now,
                valid_hours=24.0,
                evaluator={"name": "tests"},
            )
            signer = signing.load_or_create_key(key or workspace.settings.signing_key)
        (self.folder / file).write_bytes(canonical(evidence.sign(statement, signer)))

    def opened(self) -> Any:
        settings = RegistrySettings(home=self.folder / "home", database_url=self.url)
        return open_workspace(settings)

    def parts(self) -> None:
        """What `evals run` pushes."""
        with self.opened() as workspace, workspace.writing() as connection:
            now = utc_now()
            rows = b'{"id":"1"}\n{"id":"2"}\n'
            dataset = datasets.push(connection, workspace.artifacts, "questions", rows, actor="ann", now=now)
            suites.push(connection, "quality", {"dataset": dataset.digest}, actor="ann", now=now)


def _words(line: str) -> list[str]:
    return [word.replace("_", " ") if word.startswith("~") else word for word in line.split(" ")]


def _command(line: str) -> str:
    words = line.split(" ")
    known = set(_commands(application))
    return next(" ".join(words[:n]) for n in (3, 2, 1) if " ".join(words[:n]) in known)


def _commands(group: typer.Typer, before: str = "") -> Iterator[str]:
    for command in group.registered_commands:
        yield f"{before}{command.name}"
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(inner.typer_instance, f"{before}{inner.name} ")


def play(stage: Stage) -> None:
    push(stage)
    root = promote(stage)
    look(stage)
    render(stage)
    administer(stage)
    audited(stage)
    stage.sit(None)
    stage.enter(stage.folder / "other", "")
    stage.run("restore ./registry.tar")
    stage.sit(root)
    stage.run("audit verify")
    stage.run("releases list")


def push(stage: Stage) -> None:
    run = stage.run
    run("keys create")
    run("prompts push support.md")
    run("prompts push support2.md --dry-run")
    run("prompts push support2.md")
    run("policies push guard.yaml")
    run("judges push judge.yaml")
    run("tools push tools.yaml")
    run("prices push prices.yaml")
    stage.parts()
    run("releases create one.yaml --dry-run")
    run("releases create one.yaml")
    run("promote support@candidate", code=1)


def promote(stage: Stage) -> str:
    """Promote with and without evidence, as several people; the token of an admin."""
    run = stage.run
    stage.evidence("support:1", "first.json")
    run("evidence file ./first.json")
    run("promote support@candidate --dry-run")
    run("promote support@candidate --reason ~first")
    run("promote support@candidate")
    run("policies push gate.yaml")
    run("releases create two.yaml")
    stage.evidence("support:2", "second.json")
    second = run("evidence file ./second.json")["digest"]
    run("promote support:2", code=1)
    root = run("users add root admin")["token"]
    run("users list", code=3)
    stage.sit(root)
    bob = run("users add bob promoter")["token"]
    run("users add eve viewer")
    run("users change eve editor")
    run("users token eve")
    run("users revoke eve")
    run("users list")
    stage.sit(bob)
    run("users add max viewer", code=3)
    run("approvals give support:2 --comment ~read")
    run("approvals list support")
    run("approvals withdraw support:2")
    run("promote support:2", code=1)
    run("split set support --arm :2=10", code=1)
    run("approvals give support:2")
    run("split set support@production --arm :2=10 --shadow candidate=5 --shadow-usd-per-day 2 --dry-run")
    run("split set support --arm :2=12.5 --sticky session --reason ~canary")
    run("split show support")
    run("split end support --reason ~look")
    run("split end support")
    run("split set support --shadow :2")
    run("promote support:2")
    run("split show")
    run("feedback list")
    run("rollback support --reason ~bad")
    run("promote support:2", code=1)
    stage.sit(root)
    run("break-glass support:2 --reason ~the_first_one_leaks_keys")
    run("evidence list support")
    run(f"evidence show {second}")
    run(f"evidence show {second} --statement")
    run(f"evidence withdraw {second} --reason ~wrong")
    return str(root)


def look(stage: Stage) -> None:
    run = stage.run
    run("history support")
    run("history support --alias production --limit 2")
    run("history support --at 2999-01-01T00:00:00Z")
    run("was support --at 2999-01-01T00:00:00Z")
    run("history nobody", code=3)
    run("aliases list")
    run("aliases list support")
    for group in versions.GROUPS.values():
        run(f"{group} list")
    run("prompts list support --limit 1")
    run("releases list --limit 1")
    for ref in ("prompts show support:1", "indexes show x", "models show x", "datasets show questions",
                "suites show quality", "judges show fair", "guardrails show strict", "gates show support",
                "tools show look", "prices show list", "releases show support@production"):  # fmt: skip
        run(ref, code=3 if ref.endswith(" x") else 0)
    run("search SUPP")
    run("search sup --kind prompts --limit 1")
    run("search nothing-of-this")
    run("diff support:1 support:2", code=1)
    run("diff prompts/support:1 prompts/support:2", code=1)
    run("diff support:1 support:1")
    run("lineage support:2")
    run("verify")


def render(stage: Stage) -> None:
    run = stage.run
    run("prompts pull support:1")
    run("prompts diff support:1 support:2", code=1)
    run("prompts render support --set question=Why?")
    run("prompts render support", code=3)
    run("prompts log support")
    run("prompts label support:1 staging")
    run("prompts labels")
    run("prompts label support staging --remove")
    (stage.folder / "prompts").mkdir()
    run("prompts sync ./prompts")
    run("prompts import langfuse.json --from langfuse")


def administer(stage: Stage) -> None:
    run = stage.run
    run("releases export support:1 --output ./s.tar")
    key = run("keys list")["keys"][0]["key_id"]
    run(f"releases verify ./s.tar --trust {key}")
    run("releases import ./s.tar --dry-run")
    rotated = run("keys rotate")
    (stage.folder / "new.pem").write_text(_public(stage))
    run("keys trust ./new.pem")
    run(f"keys retire {rotated['key_id']}")
    run(f"keys revoke {rotated['key_id']}")
    run(f"keys revoke {rotated['key_id']}", code=3)
    hook = run("webhooks add http://127.0.0.1:9/x --event alias.* --allow-private")["id"]
    run("webhooks list")
    run(f"webhooks test {hook}", code=1)
    run(f"webhooks log {hook}")
    run("webhooks deliver")
    run(f"webhooks remove {hook}")


def audited(stage: Stage) -> None:
    run = stage.run
    hold = run("audit hold place release/support --reason ~case_12")["hold"]["id"]
    run("audit hold list")
    run(f"audit hold release {hold}")
    run("audit list")
    run("audit list --action alias.* --limit 2")
    run("audit verify")
    run("audit export ./audit.jsonl")
    run("audit anchor --to " + str(stage.folder / "heads.jsonl"))
    run("audit prune --dry-run")
    run("audit erase user/nobody --reason ~asked", code=3)
    run("gc --dry-run --keep-days 0")
    run("backup ./registry.tar")


def _public(stage: Stage) -> str:
    with stage.opened() as workspace:
        return signing.pem(workspace.evidence_signer.public_key())


PATTERNS = (
    ("time", re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?")),
    ("secret", re.compile(r"\b(sgr-|whsec_)[A-Za-z0-9_+/=-]+")),
    ("id", re.compile(r"\b[a-z]{2,12}_0[0-9a-z]{12,}")),
    ("digest", re.compile(r"(?:sha256:)?[0-9a-f]{64}")),
    ("text", re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{60,}={0,2}")),
    ("short", re.compile(r"\b(?=[a-f]*[0-9])[0-9a-f]{12,16}\b")),
)


def settled(answer: Any) -> Any:
    """*answer* with maps from digests in the order of what they map to: the digests are new each time."""
    if isinstance(answer, list):
        return [settled(one) for one in answer]
    if not isinstance(answer, dict):
        return answer
    named = answer and all(key.startswith("sha256:") for key in answer)
    items = sorted(answer.items(), key=lambda item: str(item[1])) if named else answer.items()
    return {key: settled(value) for key, value in items}


def normal(log: list[tuple[str, int, Any]], folder: Path) -> list[str]:
    """The log as text, with what differs from run to run named by when it came up first."""
    names: dict[str, str] = {}
    lines = []
    for line, code, answer in log:
        text = f"{line} → {code} {json.dumps(settled(answer), ensure_ascii=False)}".replace(
            str(folder), "<folder>"
        )
        for kind, pattern in PATTERNS:
            text = pattern.sub(
                lambda found, kind=kind: (  # type: ignore[misc]
                    "<time>" if kind == "time" else names.setdefault(found[0], f"<{kind} {len(names)}>")
                ),
                text,
            )
        lines.append(text)
    return lines


def test_every_command_answers_the_same_on_both_databases(
    tmp_path: Path, server: tuple[Postgres, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, template = server
    name = running.create(template)
    logs = {}
    try:
        for database, url in (("sqlite", ""), ("postgresql", running.url(name))):
            monkeypatch.delenv("SLUICEGATE_TOKEN", raising=False)
            stage = Stage(tmp_path / database, url, monkeypatch)
            play(stage)
            logs[database] = normal(stage.log, stage.folder)
            assert set(_commands(application)) - stage.played == ELSEWHERE
    finally:
        running.drop(name)
    assert logs["sqlite"] == logs["postgresql"]
