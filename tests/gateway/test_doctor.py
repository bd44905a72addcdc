"""`sluicegate init` and `doctor`, as the real commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = (sys.executable, "-c", "from gateway.cli.sluicegate import main; main()")


def sluicegate(folder: Path, *words: str, code: int = 0, **environment: str) -> Any:
    done = subprocess.run(
        [*COMMAND, *words, "--json"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_new_project_has_no_problems(tmp_path: Path) -> None:
    would = sluicegate(tmp_path, "init", "project", "--dry-run")["files"]
    assert not (tmp_path / "project").exists()
    assert sluicegate(tmp_path, "init", "project")["files"] == would
    assert {"params.yaml", "prompts/support.md", "suites/support.yaml", ".github/workflows/evals.yml"} <= set(
        would
    )
    report = sluicegate(tmp_path / "project", "doctor")
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["settings"]["file"] == str(tmp_path / "project" / "sluicegate.yaml")


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    assert sluicegate(tmp_path, "init", ".", code=3)["error"]["code"] == "conflict"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("section", ["registry", "gateway", "rag", "evals"])
def test_an_unknown_key_of_any_section_is_named_with_its_line(tmp_path: Path, section: str) -> None:
    (tmp_path / "sluicegate.yaml").write_text(f"# settings\n{section}:\n  nonsense: 1\n")
    problem, *_ = sluicegate(tmp_path, "doctor", code=1)["problems"]
    assert f"[{section}]:3: nonsense: unknown key" in problem


def test_upstreams_are_found_where_their_own_tools_look_and_keys_are_never_shown(tmp_path: Path) -> None:
    secret = "sk-never-shown"
    report = sluicegate(tmp_path, "doctor", OPENAI_API_KEY=secret, OLLAMA_HOST="0.0.0.0:9")
    assert report["upstreams"]["openai"]["key"] == "set (OPENAI_API_KEY)"
    assert report["upstreams"]["openai"]["reachable"] is None
    assert report["upstreams"]["ollama"]["url"] == "http://127.0.0.1:9/v1"
    assert report["upstreams"]["ollama"]["reachable"] is False
    assert secret not in json.dumps(report)


def test_each_provider_says_what_is_set_of_what_it_reads(tmp_path: Path) -> None:
    report = sluicegate(
        tmp_path, "doctor", MISTRAL_API_KEY="m-secret", AWS_REGION="eu-west-1", AWS_PROFILE=""
    )
    found = report["upstreams"]
    assert found["mistral"] == {
        "key": "set (MISTRAL_API_KEY)", "url": "https://api.mistral.ai/v1", "reachable": None
    }  # fmt: skip
    assert found["azure"] == {"key": "not set (AZURE_OPENAI_API_KEY)"}
    assert found["sglang"]["url"] == "http://127.0.0.1:30000/v1"
    assert "AWS_REGION" in found["bedrock"]["set"]
    assert "AWS_PROFILE" not in found["bedrock"]["set"]
    assert "m-secret" not in json.dumps(report)
