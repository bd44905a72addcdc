from __future__ import annotations

from pathlib import Path

import pytest

from evals import suite
from evals.errors import BadDataset, BadSuite
from evals.suite import Check, DatasetSource, EvalSuite
from registry import datasets
from registry.clock import utc_now
from registry.errors import BadInput, NotFound, PlatformError
from tests.evals.conftest import Project

HEAD = """name: quality
release: support
dataset: {path: rows.jsonl, source: made up, licence: CC0-1.0}
checks:
"""
GOOD = "  - {system: chat, metric: token_f1, at_least: 0.5}\n"


def read(folder: Path, checks: str, head: str = HEAD) -> EvalSuite:
    path = folder / "suite.yaml"
    path.write_text(head + checks)
    return suite.read(path)


def test_a_suite_reads_as_it_is_written(tmp_path: Path) -> None:
    checks = (
        GOOD
        + "  - {name: fast, system: chat, metric: latency_ms, statistic: p95, at_most: 9, tier: advisory}\n"
    )
    assert read(tmp_path, checks) == EvalSuite(
        "quality",
        "support",
        DatasetSource(Path("rows.jsonl"), source="made up", licence="CC0-1.0"),
        (
            Check("chat", "token_f1", at_least=0.5),
            Check("chat", "latency_ms", "fast", statistic="p95", at_most=9.0, tier="advisory"),
        ),
    )


def test_an_unknown_key_names_its_line_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"suite.yaml:5: checks\[0\].at_last: .*'at_least'"):
        read(tmp_path, "  - {system: chat, metric: token_f1, at_last: 0.5}\n")


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        ("system: chat, metric: token_f1", "exactly one of"),
        ("system: chat, metric: token_f1, at_least: 0.1, at_most: 0.2", "exactly one of"),
        ("system: chat, metric: token_f1, at_least: 0.1, margin: 0.2", "margin belongs to better_than"),
        ("system: chat, metric: token_f1, at_least: 1.5", "outside 0 to 1"),
        ("system: chat, metric: token_f1, at_least: 1.0", "no number of samples can prove 1"),
        ("system: chat, metric: token_f1, at_most: 0.5", "use at_least"),
        ("system: chat, metric: token_f1, at_least: 0.5, k: 3", "has no k"),
        ("system: chat, metric: token_f1, better_than: majority", "majority class"),
        ("system: chat, metric: latency_ms, better_than: baseline, statistic: p95", "compares means"),
        ("system: chat, metric: recall, k: 3, at_least: 0.5", "judges retrieval, not chat"),
        ("system: retrieval, metric: recall, at_least: 0.5", "needs k"),
        ("system: retrieval, metric: recall, k: 51, at_least: 0.5", "1 to 50"),
        ("system: prediction, metric: f1_macro, statistic: p50, at_least: 0.5", "one number for all"),
        ("system: chat, metric: token_f1, at_least: 0.5, confidence: 1.0", "below 1"),
        ("system: chat, metric: token_f1, at_least: 0.5, limit: 0", "at least 1"),
        (
            "system: chat, metric: token_f1, at_least: 0.5, tier: advisory",
            "at least one check whose tier is critical",
        ),
        ("system: voice, metric: token_f1, at_least: 0.5", "there are: chat, "),
        ("system: chat, metric: vibes, at_least: 0.5", "there are: accuracy, "),
    ],
)
def test_a_check_that_cannot_be_judged_is_refused(tmp_path: Path, check: str, problem: str) -> None:
    with pytest.raises(PlatformError) as caught:
        read(tmp_path, f"  - {{{check}}}\n")
    assert problem in caught.value.message


def test_two_checks_may_not_share_a_name(tmp_path: Path) -> None:
    with pytest.raises(BadSuite, match="two checks are called 'chat token_f1'"):
        read(tmp_path, GOOD + GOOD)


@pytest.mark.parametrize(
    "place", ["{}", "{path: a.jsonl, ref: b}", "{ref: 'b:0'}", "{path: a.jsonl, name: A B}"]
)
def test_a_dataset_has_one_place(tmp_path: Path, place: str) -> None:
    with pytest.raises(BadInput):
        read(tmp_path, GOOD, f"name: quality\nrelease: support\ndataset: {place}\nchecks:\n")


def test_every_sample_must_hold_what_a_metric_needs(project: Project) -> None:
    project.rows([{"id": "a", "query": "x", "answers": ["y"]}, {"id": "b", "query": "x", "answers": []}])
    loaded = read(project.folder, GOOD)
    with pytest.raises(BadDataset, match=r"1 of 2 samples have no 'answers'.* the first is 'b'"):
        suite.load_dataset(loaded, project.folder, project.workspace)


@pytest.mark.parametrize(
    ("check", "shown"),
    [
        (
            "system: prediction, metric: label_f1, options: {positive: Yess}",
            "'Yess', which no sample expects",
        ),
        ("system: guard, metric: guard_recall", "'attack', which no sample expects; there are 'No', 'Yes'"),
    ],
)
def test_a_class_that_no_sample_has_is_refused(project: Project, check: str, shown: str) -> None:
    project.rows(
        [{"id": label, "query": label, "features": {"a": 1}, "expected": label} for label in ("Yes", "No")]
    )
    loaded = read(project.folder, f"  - {{{check}, at_least: 0.5}}\n")
    with pytest.raises(BadDataset, match=shown):
        suite.load_dataset(loaded, project.folder, project.workspace)


def test_a_registered_dataset_is_read_by_reference(project: Project) -> None:
    rows = b'{"answers":["y"],"id":"a","query":"x"}\n'
    with project.workspace.writing() as connection:
        version = datasets.push(
            connection, project.workspace.artifacts, "questions", rows, actor="ann", now=utc_now()
        )
    loaded = read(
        project.folder, GOOD, "name: quality\nrelease: support\ndataset: {ref: 'questions:1'}\nchecks:\n"
    )
    found = suite.load_dataset(loaded, project.folder, project.workspace)
    assert (found.name, found.version, found.rows) == ("questions", version, rows)
    missing = read(project.folder, GOOD, "name: quality\nrelease: support\ndataset: {ref: other}\nchecks:\n")
    with pytest.raises(NotFound):
        suite.load_dataset(missing, project.folder, project.workspace)


def test_the_registered_content_names_the_dataset_by_digest_and_no_path(tmp_path: Path) -> None:
    content = suite.content_of(read(tmp_path, GOOD), "sha256:" + "0" * 64)
    assert content == {
        "name": "quality",
        "release": "support",
        "dataset": "sha256:" + "0" * 64,
        "checks": [
            {
                "system": "chat",
                "metric": "token_f1",
                "name": "",
                "statistic": "mean",
                "at_least": 0.5,
                "margin": 0.0,
                "tier": "gate",
                "confidence": 0.95,
            }
        ],
        "max_error_share": 0.0,
    }
