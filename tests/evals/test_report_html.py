from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.report import html
from evals.report.html_page import text
from evals.report.html_plots import draw, span_of, threshold_of
from tests.evals.report_sample import NASTY, case, check, full_report, old_report


class Page(HTMLParser):
    """What a browser would find: tags with their attributes, and the text of each case."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def cases(self) -> list[str | None]:
        return [attrs["data-kind"] for tag, attrs in self.tags if tag == "details"]


def lines() -> list[dict[str, Any]]:
    return [
        case("q1", 1.0, "the old answer", role="baseline"),
        case("q1", 0.0, NASTY),
        case("q2", 1.0),
        case("q3", 1.0),
        case("q4", None),
        case("q5", 0.25, "a weak answer"),
    ]


def test_a_page_shows_both_answers_of_a_case_that_got_worse() -> None:
    page = Page(html.render(full_report(), lines()))
    assert page.cases() == ["worse", "worse", "worse", "better", "error", "low"]
    for words in ("the old answer", "right 1 → 0", "a weak answer", "timeout", "what is q1?", "because"):
        assert words in page.text
    assert "what is q2?" not in page.text


def test_a_page_tells_all_that_explains_the_verdict() -> None:
    found = Page(html.render(full_report())).text
    for words in (
        "failed: right",
        "support@production cdcdcdcdcdcd",
        "40 x 3",
        "judges cost $0.2500 + 1 calls without a price",
        "2 worse, 1 better",
        "critical cases broken 1 of 5",
        "flips in 2.0% of pairs",
        "stopped early after 40 cases",
        "advises only",
        "not calibrated",
        "4 x judge_timeout",
        "topic = login",
        "4 samples without a score",
        "Tango",
        "2 x timeout (candidate chat)",
    ):
        assert words in found


def test_nothing_a_model_or_a_user_wrote_becomes_markup() -> None:
    page = html.render(full_report(), lines())
    tags = [tag for tag, _ in Page(page).tags]
    assert (tags.count("script"), tags.count("img"), tags.count("style")) == (1, 0, 1)
    assert not any(name.startswith("on") for _, attrs in Page(page).tags for name in attrs)
    assert "\u202e" not in page


def test_a_page_loads_nothing_and_may_load_nothing() -> None:
    page = html.render(full_report(), lines())
    (policy,) = [a["content"] for t, a in Page(page).tags if t == "meta" and a.get("http-equiv")]
    assert policy
    assert policy.startswith("default-src 'none';")
    assert not {"src", "href", "action"} & {name for _, attrs in Page(page).tags for name in attrs}
    assert not re.search(r"https?://|url\(|@import", page)


def test_a_report_of_before_is_still_shown() -> None:
    page = Page(html.render(old_report()))
    assert "every check that decides passed" in page.text
    assert page.cases() == []


def test_a_check_that_was_not_made_has_no_drawing() -> None:
    skipped = {"value": None, "low": None, "high": None, "n": 0, "verdict": "skipped"}
    page = Page(html.render(old_report(check("right", **skipped))))
    assert "svg" not in [tag for tag, _ in page.tags]


def test_two_thousand_cases_make_a_page_below_four_megabytes_in_bounded_memory() -> None:
    def many(count: int) -> Iterator[dict[str, Any]]:
        for role in ("baseline", "candidate"):
            for i in range(count):
                yield case(f"q{i}", (i % 5) / 5, "long " * 2000, role=role)

    page = html.render(full_report(), many(2000))
    assert len(page) < 4_000_000
    assert len(Page(page).cases()) == 500
    tracemalloc.start()
    html.render(full_report(), many(6000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64_000_000


@given(st.text())
def test_escaped_text_has_no_markup_and_no_unseen_characters(value: str) -> None:
    found = text(value)
    assert not set(found) & set('<>"\u202e\x00')
    assert bool(found.encode()) == bool(value)


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ("at least 0.75", 0.75),
        ("at most 20000", 20000.0),
        ("better than majority", 0.0),
        ("better than baseline by more than 0.05", 0.05),
        ("worse than baseline by less than 0.02", -0.02),
        ("not worse than baseline", 0.0),
    ],
)
def test_the_threshold_is_read_from_its_words(wanted: str, number: float) -> None:
    assert threshold_of(wanted) == number


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.booleans())
def test_a_drawing_stays_inside_its_box_in_order(
    value: float, below: float, above: float, is_open: bool
) -> None:
    high = None if is_open else value + above
    span = span_of(check("right", value=value, low=value - below, high=high))
    found = draw(span, "pass", "x")
    left, right = (float(re.findall(rf'class="bar".* {end}="([\d.]+)"', found)[0]) for end in ("x1", "x2"))
    (dot,) = re.findall(r'cx="([\d.]+)"', found)
    assert 8 <= left <= float(dot) <= right <= 232
