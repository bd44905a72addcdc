"""A report for people at a terminal: what held, by how much, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.ids import short

Report = Mapping[str, Any]


def render(report: Report) -> str:
    """One aligned line a check, then errors, then the verdict. No colour, no control characters."""
    baseline = report["baseline"]
    against = f" against {baseline['ref']} {short(baseline['digest'])}" if baseline else ""
    head = (
        f"{report['suite']['name']}: {report['release']['ref']} {short(report['release']['digest'])}{against}"
    )
    cells = [_cells(check) for check in report["checks"]]
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    lines = [head, ""]
    for check, row in zip(report["checks"], cells, strict=True):
        texts = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join(texts).rstrip())
        if check["verdict"] != "pass":
            lines.append(" " * (widths[0] + 2) + check["reason"])
    lines.append("")
    lines += [errors_line(kind) for kind in report["error_kinds"]]
    lines.append(f"{report['verdict'].upper()}: {report['reason']}")
    lines.append(_footer(report))
    return "\n".join(lines)


def value_text(check: Mapping[str, Any]) -> str:
    """
    The value with its interval, and the gain over a rival.

    >>> value_text({"value": 0.314, "low": 0.26, "high": 0.36, "digits": 2, "n": 120})
    '0.31 [0.26, 0.36]'
    """
    if not check["n"]:
        return "-"
    digits = check["digits"]
    text = f"{number(check['value'], digits)} {_interval(check['low'], check['high'], digits)}"
    if "gain" in check:
        sign = "+" if (check["gain"] or 0) >= 0 else ""
        gain = f"{sign}{number(check['gain'], digits)}"
        text += f"  {gain} {_interval(check['gain_low'], check['gain_high'], digits)} over {check['against']}"
    return text


def number(value: float | None, digits: int) -> str:
    """A number as people read it; `?` where there is none."""
    return "?" if value is None else f"{value:,.{digits}f}"


def errors_line(kind: Mapping[str, Any]) -> str:
    """One kind of failed request, such as `3 x timeout (candidate chat)`."""
    return f"{kind['count']} x {kind['kind']} ({kind['role']} {kind['system']})"


def _cells(check: Mapping[str, Any]) -> tuple[str, ...]:
    verdict = check["verdict"] if check["tier"] == "gate" else f"({check['verdict']})"
    count = f"n={check['n']}" if check["n"] else ""
    measured = f"{check['system']} {check['metric']}"
    name = check["name"] if check["name"] == measured else f"{check['name']} ({check['metric']})"
    return verdict, name, value_text(check), check["threshold"], count


def _interval(low: float | None, high: float | None, digits: int) -> str:
    return f"[{number(low, digits)}, {number(high, digits)}]"


def _footer(report: Report) -> str:
    parts = [
        f"{report['samples']} samples",
        f"{report['cached']} outputs from the cache",
        f"{report['seconds']:.1f} s",
    ]
    if report["retried"]:
        parts.append(f"{report['retried']} requests repeated")
    if report["evidence"]:
        parts.append(f"evidence {short(report['evidence'])}")
    elif report["trial"]:
        parts.append("a trial on part of the dataset: no evidence filed")
    else:
        parts.append("no evidence filed")
    return ", ".join(parts)
