"""A report for people at a terminal: what held, by how much, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.ids import short

Report = Mapping[str, Any]
_MOST_NAMED = 5
_WIDEST = 120


def render(report: Report) -> str:
    """One aligned line a check, then what explains it, then the verdict. No colour, no control characters."""
    baseline = report["baseline"]
    against = f" against {baseline['ref']} {short(baseline['digest'])}" if baseline else ""
    head = (
        f"{report['suite']['name']}: {report['release']['ref']} {short(report['release']['digest'])}{against}"
    )
    cells = [_cells(check) for check in report["checks"]]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(5)]
    lines = [head, ""]
    for check, row in zip(report["checks"], cells, strict=True):
        texts = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join(texts).rstrip())
        indent = " " * (widths[0] + 2)
        if check["verdict"] != "pass":
            lines.append(indent + check["reason"])
        lines += [indent + note for note in check_notes(check)]
    lines.append("")
    lines += [errors_line(kind) for kind in report["error_kinds"]]
    lines += notes(report)
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


def check_notes(check: Mapping[str, Any]) -> list[str]:
    """What a reader has to know of a check besides its reason."""
    told = [f"advisory: {check['advisory_because']}"] if check.get("advisory_because") else []
    if check.get("missing"):
        told.append(f"{check['missing']} samples without a score")
    return told


def notes(report: Report) -> list[str]:
    """
    What explains the verdict, a line each: cases that got worse, slices, judges, cost, flip rate.

    Lines about what did not happen are left out.
    """
    return [
        *critical_lines(report),
        *_worse_lines(report),
        *slice_lines(report),
        *judge_lines(report),
        *_run_lines(report),
    ]


def critical_lines(report: Report) -> list[str]:
    """Which critical cases broke."""
    found = report.get("critical_cases") or {}
    failed = found.get("failed") or []
    if not failed:
        return []
    return [f"{len(failed)} of {found['total']} critical cases broke: {_some(failed, _MOST_NAMED)}"]


def worse_cases(report: Report) -> list[Mapping[str, Any]]:
    """
    The listed cases that got worse, the greatest losses first.

    A report lists losses before gains; where it lists not all, at least half are losses if there are so many.
    """
    flips = report.get("flips") or {}
    cases = list(flips.get("cases", ()))
    listed = max(len(cases) // 2, len(cases) - flips.get("better", 0))
    return cases[: min(flips.get("worse", 0), listed)]


def slice_lines(report: Report) -> list[str]:
    """The slices that are surely worse, the surest first."""
    failed = [part for part in report.get("slices") or () if part["verdict"] == "fail"]
    failed.sort(key=lambda part: part["p_adjusted"] if part.get("p_adjusted") is not None else 1.0)
    lines = []
    for part in failed[:_MOST_NAMED]:
        chance = "" if part.get("p_adjusted") is None else f", p={part['p_adjusted']:.2g} after Holm"
        gain = "" if part.get("gain") is None else f", {part['gain']:+.3g} against the baseline"
        where = _cut(f"{part['by']}={part['slice']}")
        lines.append(
            f"worse slice {where}: {part['check']} {number(part['value'], 2)}{gain}, n={part['n']}{chance}"
        )
    if len(failed) > _MOST_NAMED:
        lines.append(f"and {len(failed) - _MOST_NAMED} more slices are worse; --json has them")
    return lines


def judge_lines(report: Report) -> list[str]:
    """Each judge with its agreement with people, or why it only advises, and what it failed at."""
    lines = []
    for judge in report.get("judges") or ():
        agreement = "not calibrated"
        if judge.get("kappa") is not None:
            agreement = f"kappa {number(judge['kappa'], 2)} on {judge.get('labels') or '?'} labels"
        standing = "decides" if judge["deciding"] else f"advises only: {judge['why']}"
        failures = "".join(f", {count} x {kind}" for kind, count in (judge.get("failures") or {}).items())
        calls = f"{judge['calls']} calls, {judge['cached']} cached{failures}"
        lines.append(f"judge {judge['name']} ({judge['model']}): {agreement}; {standing}; {calls}")
    return lines


def cost_text(report: Report) -> str:
    """What judges cost; empty where nothing was asked of any."""
    cost = report.get("cost") or {}
    spent, unpriced = cost.get("spent_usd") or 0.0, cost.get("unpriced_calls") or 0
    parts = [f"judges cost ${spent:.4f}"] if spent else []
    if unpriced:
        parts.append(f"{unpriced} calls without a price")
    return ", ".join(parts)


def aa_text(report: Report) -> str:
    """How often the suite flips on identical bytes; empty where nobody measured it."""
    found = report.get("aa")
    if not found:
        return ""
    return (
        f"A/A: the verdict flips in {found['flip_rate']:.1%} of pairs of runs of the same release "
        f"[{found['low']:.1%}, {found['high']:.1%}]"
    )


def _worse_lines(report: Report) -> list[str]:
    flips = report.get("flips") or {}
    worse = worse_cases(report)
    if not worse:
        return []
    shown = [f"{flip['id']} ({flip['check']} {flip['before']:.3g} -> {flip['after']:.3g})" for flip in worse]
    return [
        f"{flips['worse']} scores got worse and {flips['better']} better than the baseline's; the worst:",
        *(f"  {_cut(text)}" for text in shown[:_MOST_NAMED]),
    ]


def _run_lines(report: Report) -> list[str]:
    stopped = report.get("stopped_early")
    early = f"stopped early after {stopped['cases']} cases, {stopped['looks']} looks" if stopped else ""
    return [line for line in (early, aa_text(report)) if line]


def _some(names: list[Any], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return _cut(", ".join(str(name) for name in names[:most])) + more


def _cut(text: str) -> str:
    plain = "".join(char if char.isprintable() else "?" for char in text)
    return plain if len(plain) <= _WIDEST else plain[: _WIDEST - 1] + "…"


def _cells(check: Mapping[str, Any]) -> tuple[str, ...]:
    verdict = f"({check['verdict']})" if check["tier"] == "advisory" else check["verdict"]
    count = f"n={check['n']}" if check["n"] else ""
    measured = f"{check['system']} {check['metric']}"
    name = check["name"] if check["name"] == measured else f"{check['name']} ({check['metric']})"
    return verdict, name, value_text(check), check["threshold"], count


def _interval(low: float | None, high: float | None, digits: int) -> str:
    return f"[{number(low, digits)}, {number(high, digits)}]"


def _footer(report: Report) -> str:
    repeats = f", asked {report['epochs']} times" if report.get("epochs", 1) > 1 else ""
    parts = [
        f"{report['samples']} samples{repeats}",
        f"{report['cached']} outputs from the cache",
        f"{report['seconds']:.1f} s",
    ]
    if cost_text(report):
        parts.append(cost_text(report))
    if report["retried"]:
        parts.append(f"{report['retried']} requests repeated")
    if report["evidence"]:
        parts.append(f"evidence {short(report['evidence'])}")
    elif report["trial"]:
        parts.append("a trial on part of the dataset: no evidence filed")
    else:
        parts.append("no evidence filed")
    return ", ".join(parts)
