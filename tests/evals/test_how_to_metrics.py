"""The page about metrics of one's own: its package is found, tested and used, word for word."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

from tests.evals.how_to import ROOT, Page


@pytest.fixture
def page(tmp_path: Path) -> Page:
    """The page's package as if installed: its metadata lie beside it, both on the path of Python."""
    path = os.pathsep.join(map(str, (tmp_path, ROOT)))
    alone = {
        "PYTHONPATH": path,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }  # many plug-ins here, none of them asked
    found = Page("own-metric", tmp_path, alone)
    found.write()
    declared = tomllib.loads(found.files["pyproject.toml"])["project"]
    about = tmp_path / "support_metrics-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: support-metrics\nVersion: 1\n")
    ((group, points),) = declared["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {place}" for name, place in points.items())]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    rows = [{"id": f"q{i}", "query": f"question {i}?", "answers": ["It is."]} for i in range(30)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return found


def test_the_pages_metrics_pass_their_tests_and_judge_a_function_here_and_on_ray(page: Page) -> None:
    assert "1 passed" in page.next()
    assert "suite support-style is valid: 2 checks, 30 samples" in page.next()
    here = page.next()
    assert "pass" in here
    there = page.next()
    assert [line for line in here.splitlines() if "is near" in line] == [
        line for line in there.splitlines() if "is near" in line
    ]
    assert page.waiting == []
    suite = page.folder / "suites" / "style.yaml"
    suite.write_text(suite.read_text().replace("most: 60", "most: 0"))
    assert "most is 0; it must be at least 1" in page.bash("evals validate suites/style.yaml", code=3)


def test_a_metric_that_breaks_ends_the_run_as_wrong_input_and_quotes_nothing(page: Page) -> None:
    module = page.folder / "support_metrics.py"
    module.write_text(module.read_text().replace("return min(", "return {}[output.text] or min("))
    said = page.bash("evals run suites/style.yaml --release python:bot:answer", code=3)
    assert "check 'is concise': concise raised KeyError for sample 'q" in said
    assert "You asked" not in said
