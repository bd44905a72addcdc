"""Four ways to promote without proof, through the command line: four refusals, four codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.demo import forge

from .conftest import Project

pytestmark = pytest.mark.e2e


def refusal(project: Project, line: str, env: dict[str, str] | None = None) -> str:
    answer = project.run(f"registry promote {line}", code=1 if env is None else 3, env=env)
    return str(answer["error"]["code"])


@pytest.mark.parametrize(("kind", "code"), forge.CODES.items())
def test_forged_evidence_is_refused(project: Project, kind: str, code: str) -> None:
    path = forge.write(project.folder, "support", kind)
    before = project.run("registry history support")
    assert refusal(project, f"support@candidate --evidence {path}") == code
    assert project.run("registry history support") == before


def test_no_evidence_and_evidence_for_another_digest_are_told_apart(project: Project, tmp_path: Path) -> None:
    other = project.folder / "releases" / "other.yaml"
    text = (project.folder / "releases" / "support-baseline.yaml").read_text()
    other.write_text(text.replace("name: support", "name: other", 1))
    project.run("registry releases create releases/other.yaml")
    assert refusal(project, "other@candidate") == "evidence_missing"
    (newest, *_) = project.run("registry evidence list support")["evidence"]
    envelope = project.run(f"registry evidence show {newest['digest']}")
    file = tmp_path / "evidence.json"
    import json

    file.write_text(json.dumps(envelope))
    assert refusal(project, f"other@candidate --evidence {file}") == "evidence_mismatch"


def test_a_tampered_release_is_refused(project: Project) -> None:
    copy = forge.tampered_registry(project.folder, "support")
    env = {"SLUICEGATE_REGISTRY__HOME": str(copy)}
    assert refusal(project, "support@candidate", env) == "version_tampered"
