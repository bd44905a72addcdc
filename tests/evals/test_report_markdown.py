from __future__ import annotations

import io
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from evals.report import annotations as github
from evals.report import junit, markdown, terminal
from tests.evals.report_sample import NASTY, check, full_report, old_report


def test_a_pull_request_sees_which_cases_got_worse() -> None:
    lines = markdown.render(full_report()).splitlines()
    assert lines[0] == "### ❌ fail: support-quality on `support@candidate`"
    assert "<details open><summary>2 scores got worse, 1 got better</summary>" in lines
    assert "| q1 | right | 1 | 0 |" in lines
    assert not any(line.startswith("| q3 |") for line in lines)
    assert "- 1 of 5 critical cases broke: q9" in lines
    text = "\n".join(lines)
    for words in (
        "worse slice topic=",
        "not calibrated",
        "4 samples without a score",
        "2.0% of pairs",
        "$0.2500",
    ):
        assert words in text


def test_nobody_is_notified_and_nothing_is_markup() -> None:
    text = markdown.render(full_report())
    assert "<img" not in text
    assert "@team" not in text


def test_a_report_of_before_has_no_empty_sections() -> None:
    text = markdown.render(old_report())
    assert "<details" not in text
    assert text.endswith("Release `abababababab`, 40 samples, no evidence filed.\n")


def test_a_comment_stays_below_what_github_takes() -> None:
    report = full_report()
    report["flips"] = {
        "worse": 5000,
        "better": 0,
        "cases": [
            {"check": "right", "id": "x" * 500 + str(i), "before": 1.0, "after": 0.0} for i in range(200)
        ],
    }
    text = markdown.render(report)
    assert len(text) < 20_000
    assert "4950 more in the HTML report" in text


def test_the_terminal_explains_the_verdict_in_plain_lines() -> None:
    text = terminal.render(full_report())
    lines = text.splitlines()
    assert "2 scores got worse and 1 better than the baseline's; the worst:" in lines
    assert "  q1 (right 1 -> 0)" in lines
    assert lines[-2] == "FAIL: failed: right"
    assert lines[-1].startswith(
        "40 samples, asked 3 times, 0 outputs from the cache, 1.5 s, judges cost $0.2500"
    )
    assert "\u202e" not in text
    assert (
        "judge kind-judge (openai/gpt-4o-mini): not calibrated; advises only: it is not calibrated; " in text
    )


def test_losses_are_found_where_a_report_lists_not_all() -> None:
    def listed(worse: int, better: int, shown: int) -> int:
        cases = [{"check": "right", "id": str(i), "before": 1.0, "after": 0.0} for i in range(shown)]
        report = old_report() | {"flips": {"worse": worse, "better": better, "cases": cases}}
        return len(terminal.worse_cases(report))

    assert listed(2, 1, 3) == 2
    assert listed(300, 300, 200) == 100
    assert listed(300, 20, 200) == 180
    assert listed(20, 300, 200) == 20
    assert terminal.worse_cases(old_report()) == []


def test_ci_servers_see_the_cases_of_a_failed_check() -> None:
    (suite,) = ET.fromstring(junit.render(full_report()))  # noqa: S314 - our own text
    failure = suite.find("testcase[@name='right']/failure")
    assert failure is not None
    assert (failure.text or "").splitlines()[0] == "q1: 1 -> 0"
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["2", "1", "0", "1"]
    assert "critical cases broke: q9" in (suite.findtext("system-out") or "")


def test_github_is_told_only_where_it_listens() -> None:
    stream = io.StringIO()
    github.tell(full_report(), {}, stream)
    assert stream.getvalue() == ""
    github.tell(full_report(), {"GITHUB_ACTIONS": "true"}, stream)
    told = stream.getvalue().splitlines()
    assert all(line.startswith("::error title=support-quality%3A ") for line in told)
    assert len(told) == 2
    assert "worse than before: q1, " in told[1]


def test_what_cannot_be_told_is_a_warning_and_a_pass_is_nothing() -> None:
    assert github.lines(old_report()) == []
    report = old_report(check("right", verdict="inconclusive", reason="9 more"), verdict="inconclusive")
    assert github.lines(report, "suites/a.yaml") == [
        (
            "::warning file=suites/a.yaml,title=support-quality%3A right::"
            "0.75 [0.60, 0.86], wanted at least 0.5: 9 more"
        )
    ]
    failed = old_report(verdict="fail") | {"reason": "2 of 40 requests failed"}
    assert github.lines(failed) == ["::error title=support-quality%3A fail::2 of 40 requests failed"]


@given(st.text())
def test_no_text_ends_a_workflow_command(text: str) -> None:
    report = old_report(check(text or "x", verdict="fail", reason=text), verdict="fail")
    (line,) = github.lines(report)
    assert "\n" not in line
    assert "\r" not in line
    title, _, _ = line.removeprefix("::error title=").partition("::")
    assert ":" not in title
    assert "," not in title


def test_no_mark_of_markdown_keeps_its_meaning() -> None:
    assert markdown.escaped("|`*_[]~") == r"\|\`\*\_\[\]\~"
    assert markdown.escaped("&<@#\\ a\n b") == r"&amp;&lt;&#64;&#35;\\ a b"
    assert NASTY not in markdown.escaped(NASTY)
