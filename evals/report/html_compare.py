"""A comparison of two runs for the browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.report.compare_text import gain_text, notes, p_text, side_text
from evals.report.html_page import filter_box, page, table, tag, text
from evals.report.html_plots import draw, slice_span
from evals.report.terminal import number


def render(found: Mapping[str, Any]) -> str:
    """One self-contained page: metrics with their gains, and at most 200 cases that changed."""
    worse = [metric["metric"] for metric in found["metrics"] if metric["verdict"] == "worse"]
    word = f"worse in {', '.join(worse)}" if worse else "nothing is surely worse"
    kind = "fail" if worse else "pass"
    banner = (
        f'<header class="banner {kind}"><span class="word">{text(word)}</span><h1>A compared with B</h1>'
        f"<div>A: {text(side_text(found['a']))}</div><div>B: {text(side_text(found['b']))}</div></header>"
    )
    rows = []
    for metric in found["metrics"]:
        mood = {"worse": "fail", "better": "pass"}.get(metric["verdict"], "plain")
        drawing = draw(slice_span(metric), mood, f"{metric['metric']}: {gain_text(metric)}")
        values = [number(metric[side], metric["digits"]) for side in "ab"]
        rows.append(
            (
                tag(mood, metric["verdict"]),
                text(metric["metric"]),
                *values,
                text(gain_text(metric)),
                drawing,
                text(p_text(metric)),
                str(metric["n"]),
            )
        )
    headings = ("", "metric", "A", "B", "gain of B", "interval", "p (Holm)", "n")
    told = "".join(f"<li>{text(note)}</li>" for note in notes(found))
    body = [
        banner,
        "<h2>Metrics</h2>",
        table(headings, rows, frozenset({2, 3, 6, 7})),
        f"<ul>{told}</ul>" if told else "",
    ]
    return page("A compared with B", [*body, _flips(found["flips"])])


def _flips(flips: Mapping[str, Any]) -> str:
    if not flips["cases"]:
        return ""
    cases = []
    for flip in flips["cases"]:
        kind = "worse" if flip["worse"] else "better"
        cases.append(
            f'<details class="case {kind}" data-kind="{kind}"><summary><b>{text(flip["id"], 120)}</b>'
            f'<span class="tag">{text(flip["check"])} {flip["before"]:.3g} → {flip["after"]:.3g}'
            "</span></summary></details>"
        )
    head = f"<h2>Cases</h2><p>{flips['worse']} scores got worse, {flips['better']} got better.</p>"
    return head + filter_box((("worse", "got worse"), ("better", "got better"))) + "\n".join(cases)
