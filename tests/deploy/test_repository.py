"""The files that run the checks: workflow, commit hooks, YAML style."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from tests.deploy.validators import ROOT, complaints, read

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
HOOKS = ROOT / ".pre-commit-config.yaml"


def job() -> dict[str, Any]:
    (only,) = read(WORKFLOW)["jobs"].values()
    found: dict[str, Any] = only
    return found


def test_yaml_is_well_formed_and_in_one_style() -> None:
    files = (ROOT / "deploy", ROOT / ".github", HOOKS)
    assert complaints("yamllint", "--strict", "--config-file", "deploy/yamllint.yml", *files) == ""


def test_the_workflow_schema_accepts_the_workflow() -> None:
    assert complaints("check-jsonschema", "--builtin-schema", "vendor.github-workflows", WORKFLOW) == ""


def test_the_workflow_runs_the_documented_command_on_every_supported_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert job()["strategy"]["matrix"]["python"] == supported
    assert [step["run"] for step in job()["steps"] if "run" in step] == ["make test"]


def test_the_workflow_may_only_read() -> None:
    assert read(WORKFLOW)["permissions"] == {"contents": "read"}
    assert "permissions" not in job()
    assert job()["timeout-minutes"] <= 60
    checkout = next(step for step in job()["steps"] if step.get("uses", "").startswith("actions/checkout@"))
    assert checkout["with"] == {"persist-credentials": False}


def test_actions_are_githubs_own_and_pinned() -> None:
    used = [step["uses"] for step in job()["steps"] if "uses" in step]
    assert [name for name in used if not re.fullmatch(r"actions/[\w-]+@v\d+", name)] == []


def test_commit_hooks_use_the_locked_tools_and_download_nothing() -> None:
    repositories = read(HOOKS)["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert [hook["language"] for hook in hooks] == ["system"] * len(hooks)
    assert [hook["entry"].split()[0] for hook in hooks] == [
        ".venv/bin/ruff",
        ".venv/bin/ruff",
        ".venv/bin/mypy",
        ".venv/bin/lint-imports",
        ".venv/bin/yamllint",
    ]
