"""A report for a pull request or a CI summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.report.terminal import (
    aa_text,
    check_notes,
    cost_text,
    critical_lines,
    errors_line,
    judge_lines,
    number,
    slice_lines,
    value_text,
    worse_cases,
)
from registry.ids import short

Report = Mapping[str, Any]
MOST_CASES = 50
"""So many cases that got worse are named; a comment of GitHub holds 65,536 characters."""
_MOST_ID = 80
_MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "❔", "skipped": "⏭️"}


def render(report: Report) -> str:
    """
    A heading with the verdict, a table of checks, the cases that got worse, and the digests it is about.

    Prompts and answers are not in it: a pull request may be public.
    """
    baseline = report["baseline"]
    release = report["release"]
    verdict = report["verdict"]
    lines = [
        f"### {_MARKS[verdict]} {verdict}: {escaped(report['suite']['name'])} on `{release['ref']}`",
        "",
        f"{escaped(_sentence(report['reason']))}.",
        "",
        "| | check | found | wanted | n |",
        "|---|---|---|---|---:|",
        *map(_row, report["checks"]),
        "",
    ]
    told = [errors_line(kind) for kind in report["error_kinds"]]
    told += [*critical_lines(report), *slice_lines(report)]
    lines += [f"- {escaped(text)}" for text in told]
    lines += _worse(report)
    lines += _slices(report)
    lines += _folded("Judges", [f"- {escaped(text)}" for text in judge_lines(report)])
    against = f", baseline `{short(baseline['digest'])}`" if baseline else ""
    proof = f", evidence `{short(report['evidence'])}`" if report["evidence"] else ", no evidence filed"
    extra = "".join(
        f" {escaped(text[0].upper() + text[1:])}." for text in (cost_text(report), aa_text(report)) if text
    )
    stopped = report.get("stopped_early")
    if stopped:
        extra += f" Stopped early after {stopped['cases']} cases."
    about = f"Release `{short(release['digest'])}`{against}, {report['samples']} samples{proof}."
    lines.append(f"\n{about}{extra}")
    return "\n".join(lines) + "\n"


def escaped(value: str) -> str:
    r"""
    *value* where Markdown may not read it as anything but text, and GitHub notifies nobody.

    >>> escaped("a|b <i> @team #1")
    'a\\|b &lt;i> &#64;team &#35;1'
    """
    plain = " ".join(value.split()).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    plain = plain.replace("#", "&#35;").replace("@", "&#64;")
    for mark in "|`*_[]~":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def _row(check: Mapping[str, Any]) -> str:
    name = escaped(check["name"])
    if check["tier"] not in ("gate", "critical"):
        name += f" *({check['tier']})*"
    found = escaped(value_text(check))
    if check["verdict"] != "pass":
        found += f"<br>{escaped(check['reason'])}"
    found += "".join(f"<br>{escaped(note)}" for note in check_notes(check))
    cells = (_MARKS[check["verdict"]], name, found, escaped(check["threshold"]), str(check["n"]))
    return f"| {' | '.join(cells)} |"


def _worse(report: Report) -> list[str]:
    """The cases that got worse, unfolded where the release did not pass: they are what to look at."""
    flips = report.get("flips") or {}
    cases = worse_cases(report)
    if not cases:
        return []
    rows = [
        f"| {escaped(str(flip['id'])[:_MOST_ID])} | {escaped(flip['check'])} "
        f"| {flip['before']:.3g} | {flip['after']:.3g} |"
        for flip in cases[:MOST_CASES]
    ]
    table = ["| case | check | before | after |", "|---|---|---:|---:|", *rows]
    if flips["worse"] > len(rows):
        table.append(f"\n{flips['worse'] - len(rows)} more in the HTML report.")
    told = f"{flips['worse']} scores got worse, {flips['better']} got better"
    return _folded(told, table, unfold=report["verdict"] != "pass")


def _slices(report: Report) -> list[str]:
    slices = report.get("slices") or ()
    if not slices:
        return []
    rows = []
    for part in sorted(slices, key=lambda part: part["verdict"] != "fail")[:MOST_CASES]:
        mark = _MARKS["fail"] if part["verdict"] == "fail" else ""
        where = escaped(f"{part['by']}={part['slice']}"[:_MOST_ID])
        rows.append(
            f"| {mark} | {where} | {escaped(part['check'])} | {number(part['value'], 2)} | {part['n']} |"
        )
    return _folded("Slices", ["| | slice | check | value | n |", "|---|---|---|---:|---:|", *rows])


def _folded(summary: str, lines: list[str], *, unfold: bool = False) -> list[str]:
    if not lines:
        return []
    state = " open" if unfold else ""
    return ["", f"<details{state}><summary>{summary}</summary>", "", *lines, "", "</details>"]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
