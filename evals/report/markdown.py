"""A report for a pull request or a CI summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evals.report.terminal import errors_line, value_text
from registry.ids import short

_MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "❔", "skipped": "⏭️"}


def render(report: Mapping[str, Any]) -> str:
    """A heading with the verdict, a table of checks, and the digests it is about."""
    baseline = report["baseline"]
    release = report["release"]
    verdict = report["verdict"]
    lines = [
        f"### {_MARKS[verdict]} {verdict}: {_text(report['suite']['name'])} on `{release['ref']}`",
        "",
        f"{_text(report['reason']).capitalize()}.",
        "",
        "| | check | found | wanted | n |",
        "|---|---|---|---|---:|",
    ]
    for check in report["checks"]:
        name = _text(check["name"]) + ("" if check["tier"] == "gate" else " *(advisory)*")
        found = _text(value_text(check))
        if check["verdict"] != "pass":
            found += f"<br>{_text(check['reason'])}"
        cells = (_MARKS[check["verdict"]], name, found, _text(check["threshold"]), str(check["n"]))
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    lines += [f"- {_text(errors_line(kind))}" for kind in report["error_kinds"]]
    against = f", baseline `{short(baseline['digest'])}`" if baseline else ""
    proof = f", evidence `{short(report['evidence'])}`" if report["evidence"] else ", no evidence filed"
    lines.append(f"\nRelease `{short(release['digest'])}`{against}, {report['samples']} samples{proof}.")
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """*value* where Markdown may not read it as anything but text."""
    plain = " ".join(value.split()).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for mark in "|`*_[]":
        plain = plain.replace(mark, f"\\{mark}")
    return plain
