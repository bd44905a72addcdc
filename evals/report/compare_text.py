"""A comparison of two runs for people: plain text and Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.report.markdown import escaped
from evals.report.terminal import number
from registry.terminal import table

_SHOWN = 20
_MARKS = {"worse": "❌", "better": "✅"}


def render(found: Mapping[str, Any]) -> str:
    """One line a metric, then the cases that got worse."""
    rows = [
        (m["verdict"], m["metric"], _value(m, "a"), _value(m, "b"), gain_text(m), p_text(m), f"n={m['n']}")
        for m in found["metrics"]
    ]
    headings = ("", "METRIC", "A", "B", "GAIN", "P", "")
    lines = [f"A {side_text(found['a'])}", f"B {side_text(found['b'])}", "", table(headings, rows), ""]
    lines += notes(found)
    flips = found["flips"]
    lines.append(f"{flips['worse']} scores got worse, {flips['better']} got better")
    for flip in flips["cases"][:_SHOWN]:
        mark = "-" if flip["worse"] else "+"
        lines.append(f"  {mark} {flip['check']}  {flip['id']}: {flip['before']:.3g} -> {flip['after']:.3g}")
    if len(flips["cases"]) > _SHOWN:
        lines.append(f"  and {flips['worse'] + flips['better'] - _SHOWN} more; --json has 200")
    return "\n".join(lines)


def render_markdown(found: Mapping[str, Any]) -> str:
    """A table of metrics and a folded list of cases, for a pull request."""
    worse = [m["metric"] for m in found["metrics"] if m["verdict"] == "worse"]
    head = f"❌ worse in {escaped(', '.join(worse))}" if worse else "nothing is surely worse"
    lines = [
        f"### {head}",
        "",
        f"- A {escaped(side_text(found['a']))}",
        f"- B {escaped(side_text(found['b']))}",
    ]
    lines += ["", "| | metric | A | B | gain | p | n |", "|---|---|---:|---:|---|---:|---:|"]
    for m in found["metrics"]:
        mark = _MARKS.get(m["verdict"], "❔")
        cells = (mark, escaped(m["metric"]), _value(m, "a"), _value(m, "b"), escaped(gain_text(m)), p_text(m))
        lines.append(f"| {' | '.join(cells)} | {m['n']} |")
    lines += ["", *(f"- {escaped(note)}" for note in notes(found))]
    flips = found["flips"]
    if flips["cases"]:
        summary = f"{flips['worse']} scores got worse, {flips['better']} got better"
        lines += [
            "",
            f"<details><summary>{summary}</summary>",
            "",
            "| | case | metric | A | B |",
            "|---|---|---|---:|---:|",
        ]
        for flip in flips["cases"]:
            mark = "❌" if flip["worse"] else "✅"
            lines.append(
                f"| {mark} | {escaped(flip['id'])} | {escaped(flip['check'])} "
                f"| {flip['before']:.3g} | {flip['after']:.3g} |"
            )
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def side_text(side: Mapping[str, Any]) -> str:
    """Which run it is, such as `out/: support@candidate, suite support-quality, pass`."""
    release = (side["release"] or {}).get("ref")
    parts = [release, f"suite {side['suite']}" if side["suite"] else None, side["verdict"]]
    parts.append(f"{side['errors']} errors" if side["errors"] else None)
    told = ", ".join(part for part in parts if part)
    return f"{side['name']}: {told}" if told else str(side["name"])


def gain_text(metric: Mapping[str, Any]) -> str:
    """
    The gain of B with its interval, positive where B is better.

    >>> gain_text({"gain": -0.1, "gain_low": -0.2, "gain_high": 0.0, "digits": 2})
    '-0.10 [-0.20, +0.00]'
    """
    digits = metric["digits"]
    gain, low, high = (
        "?" if metric[key] is None else f"{metric[key]:+,.{digits}f}"
        for key in ("gain", "gain_low", "gain_high")
    )
    return f"{gain} [{low}, {high}]"


def p_text(metric: Mapping[str, Any]) -> str:
    """The adjusted p-value; a dash where there is none."""
    p = metric.get("p_adjusted")
    return "-" if p is None else f"{p:.2g}"


def notes(found: Mapping[str, Any]) -> list[str]:
    """What a reader should know before believing the numbers."""
    told = [f"not compared: {text}" for text in found["not_compared"]]
    a, b = (found[side]["dataset"] or {} for side in "ab")
    if a.get("digest") and b.get("digest") and a["digest"] != b["digest"]:
        told.append("the two runs used different versions of their datasets; only shared ids are compared")
    if any(not metric["paired"] for metric in found["metrics"]):
        told.append(
            "a run id keeps no cases: intervals were compared, which sees less than `--output` folders"
        )
    told += [
        f"{metric['metric']}: {metric['only_in_a']} cases only in A, {metric['only_in_b']} only in B"
        for metric in found["metrics"]
        if metric.get("only_in_a") or metric.get("only_in_b")
    ]
    return told


def _value(metric: Mapping[str, Any], side: str) -> str:
    return number(metric[side], metric["digits"])
