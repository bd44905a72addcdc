from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference
from typer.testing import CliRunner

from evals.cli import compare as command
from evals.report import compare_text, folder, html_compare
from evals.report.compare import compare, mover, side
from registry.errors import BadInput
from registry.terminal import command_group
from tests.evals.report_sample import NASTY, case, check, old_report


def sides(
    before: Sequence[float | None], after: Sequence[float | None], *, report: Any = None
) -> dict[str, Any]:
    first = side("a", report, [case(f"q{i}", score) for i, score in enumerate(before)])
    second = side("b", report, [case(f"q{i}", score) for i, score in enumerate(after)])
    return compare(first, second)


def test_right_and_wrong_are_compared_by_mcnemar_and_tango() -> None:
    found = sides([1.0] * 30 + [0.0] * 10, [0.0] * 12 + [1.0] * 18 + [0.0] * 8 + [1.0] * 2)
    (metric,) = found["metrics"]
    assert metric["p_value"] == pytest.approx(reference.binomtest(2, 14).pvalue)
    assert (metric["better"], metric["worse"], metric["n"]) == (2, 12, 40)
    assert (metric["a"], metric["b"], metric["gain"]) == (0.75, 0.5, -0.25)
    assert (metric["verdict"], metric["method"], found["worse"]) == ("worse", "Tango", True)


def test_shares_are_compared_by_their_differences() -> None:
    draw = random.Random(1)
    before = [draw.random() for _ in range(200)]
    after = [min(score + draw.random() / 10, 1.0) for score in before]
    (metric,) = sides(before, after)["metrics"]
    gains = [b - a for a, b in zip(before, after, strict=True)]
    low, high = reference.t.interval(0.95, 199, sum(gains) / 200, reference.sem(gains))
    assert (metric["gain_low"], metric["gain_high"]) == pytest.approx((low, high))
    assert (metric["verdict"], metric["p_value"]) == ("better", None)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60))
def test_the_other_way_round_everything_is_mirrored(pairs: list[tuple[float, float]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    (there,), (back,) = sides(a, b)["metrics"], sides(b, a)["metrics"]
    assert there["gain"] == -back["gain"]
    assert (there["gain_low"], there["gain_high"]) == pytest.approx((-back["gain_high"], -back["gain_low"]))
    assert (there["p_value"], there["better"]) == (back["p_value"], back["worse"])
    assert {"worse": "better", "better": "worse"}.get(there["verdict"], there["verdict"]) == back["verdict"]


def test_where_less_is_better_a_rise_is_a_loss() -> None:
    report = old_report(check("right", metric="latency_ms", threshold="at most 9"))
    found = sides([100.0 + i for i in range(20)], [200.0 + i for i in range(20)], report=report)
    (metric,) = found["metrics"]
    assert (metric["gain"], metric["verdict"], metric["higher_is_better"]) == (-100.0, "worse", False)


def test_a_failed_request_scores_the_worst() -> None:
    found = sides([1.0] * 20, [None] * 10 + [1.0] * 10)
    (metric,) = found["metrics"]
    assert (metric["n"], metric["b"], metric["worse"], found["b"]["errors"]) == (20, 0.5, 10, 10)


def test_repetitions_are_averaged_within_their_case() -> None:
    lines = [case("q1", 1.0), case("q1", 0.0, epoch=1), case("q2", 1.0)]
    assert side("a", None, lines).cases == {"right": {"q1": 0.5, "q2": 1.0}}


def test_cases_and_metrics_of_only_one_side_are_counted_and_named() -> None:
    first = side("a", None, [case("q1", 1.0), case("q2", 1.0), case("q1", 1.0, scores={"old": 1.0})])
    second = side("b", None, [case("q2", 1.0), case("q3", 1.0), case("q4", 0.0)])
    found = compare(first, second)
    (metric,) = found["metrics"]
    assert (metric["only_in_a"], metric["only_in_b"], metric["n"]) == (1, 2, 1)
    assert (metric["verdict"], found["not_compared"]) == ("too few cases", ["old: only in a"])


def test_p_values_are_adjusted_over_the_metrics() -> None:
    def lines(left: list[float], right: list[float]) -> list[dict[str, Any]]:
        return [
            case(f"q{i}", 1.0, scores={"left": a, "right": b})
            for i, (a, b) in enumerate(zip(left, right, strict=True))
        ]

    first = side("a", None, lines([1.0] * 20, [1.0] * 20))
    second = side("b", None, lines([0.0] * 6 + [1.0] * 14, [0.0] * 9 + [1.0] * 11))
    left, right = compare(first, second)["metrics"]
    assert (left["p_value"], left["p_adjusted"]) == (0.03125, 0.03125)
    assert (right["p_value"], right["p_adjusted"]) == (0.00390625, 0.0078125)


def test_flips_are_listed_worst_first_and_bounded() -> None:
    found = sides([1.0] * 300 + [0.0] * 20, [0.0] * 300 + [1.0] * 20)
    flips = found["flips"]
    assert (flips["worse"], flips["better"], len(flips["cases"])) == (300, 20, 200)
    assert [flip["worse"] for flip in flips["cases"]] == [True] * 180 + [False] * 20


def test_without_cases_the_intervals_of_the_checks_are_compared() -> None:
    first = side("a", old_report(check("right", value=0.9, low=0.85, high=0.95)), None)
    second = side("b", old_report(check("right", value=0.5, low=0.4, high=0.6), check("new")), None)
    found = compare(first, second)
    (metric,) = found["metrics"]
    assert (metric["paired"], metric["verdict"], metric["p_value"]) == (False, "worse", None)
    assert metric["gain"] == pytest.approx(-0.4)
    assert "intervals were compared" in compare_text.render(found)


@given(st.floats(0, 1), st.floats(0, 1), st.tuples(*[st.floats(0, 1)] * 4))
def test_the_unpaired_interval_holds_the_difference(a: float, b: float, halves: tuple[float, ...]) -> None:
    first = {"value": a, "low": a - halves[0], "high": a + halves[1]}
    second = {"value": b, "low": b - halves[2], "high": b + halves[3]}
    low, high = mover(first, second)
    assert low <= b - a <= high


def test_text_markdown_and_html_name_the_cases() -> None:
    found = compare(side("a", None, [case(NASTY, 1.0)]), side("b", None, [case(NASTY, 0.0)]))
    assert "right" in compare_text.render(found)
    assert "1 scores got worse, 0 got better" in compare_text.render_markdown(found)
    assert "&lt;img" in compare_text.render_markdown(found)
    page = html_compare.render(found)
    assert page.count("<script") == 1
    assert "<img" not in page
    assert 'data-kind="worse"' in page


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "a", tmp_path / "b"
    folder.write(first, old_report(), (case(f"q{i}", 1.0) for i in range(20)), None)
    folder.write(second, old_report(), (case(f"q{i}", float(i > 11)) for i in range(20)), {"payload": ""})
    return first, second


def run(*words: str | Path) -> tuple[int, str]:
    application = command_group("evals")
    application.callback()(lambda: None)
    application.command("compare", epilog=command.EPILOG)(command.compare)
    result = CliRunner().invoke(application, ["compare", *map(str, words)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_command_compares_folders_and_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = folders
    code, text = run(
        first, second / "outputs.jsonl", "--html", tmp_path / "c.html", "--markdown", tmp_path / "c.md"
    )
    assert (code, "12 scores got worse, 0 got better" in text) == (0, True)
    assert "worse in right" in (tmp_path / "c.md").read_text()
    assert "<!doctype html>" in (tmp_path / "c.html").read_text()
    code, text = run(first, second, "--json")
    assert (code, json.loads(text)["worse"]) == (0, True)
    assert run(first, second, "--fail-on-worse")[0] == 1
    assert run(second, first, "--fail-on-worse")[0] == 0


def test_what_is_no_run_is_refused_by_name(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "q1"}\nnot json\n')
    with pytest.raises(BadInput, match=r"broken\.jsonl line 2: no JSON"):
        run(broken, folders[0])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match="holds no report"):
        run(empty, folders[0])
    with pytest.raises(BadInput, match="confidence is 2"):
        run(*folders, "--confidence", "2")


def test_a_run_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken() -> Any:
        yield case("q1", 1.0)
        raise BadInput("stopped")

    with pytest.raises(BadInput):
        folder.write(tmp_path, old_report(), broken(), None)
    assert list(tmp_path.iterdir()) == []
    folder.write(tmp_path, old_report(), [case("q1", 1.0)], {"payload": ""})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evidence.json",
        "outputs.jsonl",
        "report.json",
    ]
    folder.write(tmp_path, old_report(), [], None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs.jsonl", "report.json"]
