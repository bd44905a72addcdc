"""The workflow of `sluicegate init`, its own lines run in order: red names the cases, green promotes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.evals.fake_judge import KEY, FakeJudge, serve_judge

GOOD, BAD = "Answer with a few words from the text.", "Answer with a limerick about the sea."
STEPS = ("build", "baseline", "candidates", "evals churn", "evals support", "summary")


@dataclass
class Checkout:
    """A project as CI checks it out, and the workflow in it."""

    folder: Path
    environment: dict[str, str]

    def step(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run the lines of a step as a runner would."""
        workflow = yaml.safe_load((self.folder / ".github/workflows/evals.yml").read_text())
        (line,) = [step["run"] for step in workflow["jobs"]["evals"]["steps"] if step.get("name") == name]
        return self.bash(line, {"REASON": "0123abc"})

    def bash(self, line: str, more: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", line],
            cwd=self.folder,
            env=self.environment | (more or {}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def edit(self, old: str, new: str) -> None:
        path = self.folder / "prompts" / "support.md"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture
def model() -> Iterator[FakeJudge]:
    """A model that knows every answer, and does what its prompt says."""
    with serve_judge() as served:
        yield served


@pytest.fixture
def checkout(tmp_path: Path, model: FakeJudge) -> Checkout:
    scripts = Path(sys.executable).parent
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
    environment = inherited | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "OPENAI_BASE_URL": model.url,
        "OPENAI_API_KEY": KEY,
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "SLUICEGATE_ACTOR": "ci",
    }
    found = Checkout(tmp_path / "project", environment)
    subprocess.run(
        [scripts / "sluicegate", "init", "project"], cwd=tmp_path, check=True, timeout=60, capture_output=True
    )
    path = found.folder / "releases" / "support.yaml"
    release = yaml.safe_load(path.read_text())
    del release["model_digest"]
    path.write_text(yaml.safe_dump(release | {"model": "openai/scripted", "parameters": {"temperature": 0}}))
    rows = [json.loads(line) for line in (found.folder / "data" / "questions.jsonl").read_text().splitlines()]
    answers = {row["query"]: row["answers"][0] for row in rows}

    def say(body: Any) -> str:
        asked = re.search(r"Question: (.*) \(one to four words\)$", body["messages"][-1]["content"])
        assert asked is not None
        return answers[asked[1]] if body["messages"][0]["content"] == GOOD else "There once was a wave"

    model.say = say
    return found


@pytest.mark.e2e
def test_a_worse_prompt_is_red_and_names_its_cases_and_a_good_one_is_green_and_promotes(
    checkout: Checkout,
) -> None:
    checkout.edit(GOOD, BAD)
    for name in STEPS[:4]:
        done = checkout.step(name)
        assert done.returncode == 0, (name, done.stdout[-1500:], done.stderr[-1500:])
    red = checkout.step("evals support")
    assert red.returncode == 1, (red.stdout, red.stderr)
    assert checkout.step("summary").returncode == 0
    summary = Path(checkout.environment["GITHUB_STEP_SUMMARY"]).read_text()
    assert "❌ fail: support-quality" in summary
    report = json.loads((checkout.folder / "reports" / "support" / "report.json").read_text())
    worse = [case["id"] for case in report["flips"]["cases"] if case["after"] < case["before"]]
    assert len(worse) > 20
    assert sum(id_ in summary for id_ in worse) >= 5
    refused = checkout.bash("registry promote support@candidate --to production --reason anyway --json")
    assert refused.returncode == 1
    assert "error" in json.loads(refused.stdout)

    checkout.edit(BAD, GOOD)
    for name in STEPS:
        done = checkout.step(name)
        assert done.returncode == 0, (name, done.stdout[-1500:], done.stderr[-1500:])
    assert "✅ pass: support-quality" in Path(checkout.environment["GITHUB_STEP_SUMMARY"]).read_text()
    promoted = checkout.step("promote")
    assert promoted.returncode == 0, promoted.stderr
    aliases = checkout.bash("registry releases show support@production --json")
    candidate = checkout.bash("registry releases show support@candidate --json")
    assert json.loads(aliases.stdout)["digest"] == json.loads(candidate.stdout)["digest"]
