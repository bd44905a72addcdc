from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evals.conftest import Project
from tests.evals.fake_gateway import Release

ROOT = Path(__file__).parents[2]
SUITE = """name: support-quality
release: support
dataset: {path: rows.jsonl}
checks:
  - {name: finds it, system: retrieval, metric: recall, k: 3, at_least: 0.75}
  - {system: chat, metric: token_f1, at_least: 0.5}
  - {name: beats production, system: chat, metric: token_f1, better_than: baseline}
"""
QUIET = (
    "deepeval",
    "langsmith_plugin",
    "faker",
    "typeguard",
    "schemathesis",
    "asyncio",
    "hydra_pytest",
    "anyio",
)


def pytest_in(folder: Path, *words: str) -> tuple[int, str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
        "-p",
        "evals.pytest_plugin",
    ]
    for name in QUIET:
        command += ["-p", f"no:{name}"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "no:sluicegate", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def support(project: Project) -> Project:
    project.questions(40)
    project.suite(SUITE, "support.evals.yaml")
    version = project.chat_release()
    project.gateway.releases["support@candidate"] = Release(
        version.digest,
        lambda question: question.replace("question", "answer"),
        lambda query: [query.replace("question ", "d")],
    )
    return project


def test_each_check_of_a_good_release_is_a_passed_test(support: Project) -> None:
    code, text = pytest_in(support.folder, "-rs", "-vv")
    assert code == 0, text
    assert "support.evals.yaml::finds it PASSED" in text
    assert "support.evals.yaml::beats production SKIPPED" in text
    assert "3 passed, 1 skipped" in text
    assert len(support.gateway.requests) == 80


def test_a_failed_check_says_why_without_a_traceback(support: Project) -> None:
    support.gateway.releases["support@candidate"].chat = lambda _question: "no idea"
    code, text = pytest_in(support.folder)
    assert code == 1, text
    assert "FAIL: 0.00 [0.00, " in text
    assert "wanted at least 0.5, n=40" in text
    assert "Traceback" not in text
    assert "1 failed, 2 passed, 1 skipped" in text


def test_too_few_samples_fail_unless_that_is_allowed(support: Project) -> None:
    support.questions(9)
    code, text = pytest_in(support.folder)
    assert code == 1, text
    assert "INCONCLUSIVE: " in text
    assert pytest_in(support.folder, "--evals-allow-inconclusive")[0] == 0


def test_a_suite_that_cannot_run_fails_with_its_own_message(support: Project) -> None:
    support.suite("name: x\nrelease: support\nchecks: 3\n", "broken.evals.yaml")
    code, text = pytest_in(
        support.folder, "--continue-on-collection-errors", "--evals-release", "support@staging"
    )
    assert code == 1, text
    assert "support.evals.yaml: not_found: " in text
    assert "4 failed, 1 error" in text


def test_the_fixture_returns_the_report(support: Project) -> None:
    (support.folder / "test_release.py").write_text(
        "def test_it(evals_run):\n"
        "    report = evals_run('support.evals.yaml', limit=20)\n"
        "    assert (report['verdict'], report['samples'], report['trial']) == ('pass', 20, True)\n"
        "def test_wrong(evals_run):\n"
        "    evals_run('missing.yaml')\n"
    )
    code, text = pytest_in(support.folder, "test_release.py")
    assert code == 1, text
    assert "1 failed, 1 passed" in text
    assert "missing.yaml: bad_input" in text


def test_nothing_of_evals_is_imported_where_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_modules():\n"
        "    ours = {'evals', 'registry', 'rag', 'classical', 'gateway'}\n"
        "    found = sorted(name for name in sys.modules if name.split('.')[0] in ours)\n"
        "    assert found == ['evals', 'evals.pytest_plugin']\n"
    )
    code, text = pytest_in(tmp_path)
    assert code == 0, text
