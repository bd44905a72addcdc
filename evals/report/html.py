"""A report for the browser: one file that loads nothing, works from disk, and prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evals.report import html_cases
from evals.report.html_page import page, table, tag, text
from evals.report.html_plots import draw, slice_span, span_of
from evals.report.terminal import errors_line, number, value_text
from registry.ids import short

Report = Mapping[str, Any]
_ICONS = {"pass": "✔", "fail": "✘", "inconclusive": "?", "skipped": "-"}
_MOST_SLICES = 300


def render(report: Report, lines: Iterable[Mapping[str, Any]] = ()) -> str:
    """
    The whole page, for any number of cases: at most 500 are embedded, so it stays below some megabytes.

    Args:
        lines: what `outputs.jsonl` holds, read once; without them the page has no answers to compare.
    """
    title = f"{report['verdict']}: {report['suite']['name']} on {report['release']['ref']}"
    cases = html_cases.choose(report, lines)
    body = [
        _banner(report),
        _checks(report),
        _slices(report),
        _judges(report),
        _errors(report),
        html_cases.render(cases, report),
        _about(report),
    ]
    return page(title, filter(None, body))


def _banner(report: Report) -> str:
    verdict, baseline = report["verdict"], report["baseline"]
    facts = [
        ("release", f"{report['release']['ref']} {short(report['release']['digest'])}"),
        ("baseline", f"{baseline['ref']} {short(baseline['digest'])}" if baseline else "none"),
        (
            "samples",
            f"{report['samples']:,}" + (f" x {report['epochs']}" if report.get("epochs", 1) > 1 else ""),
        ),
        ("errors", str(report["errors"])),
        ("took", f"{report['seconds']:.1f} s"),
    ]
    cost = report.get("cost")
    if cost:
        unpriced = f" + {cost['unpriced_calls']} calls without a price" if cost.get("unpriced_calls") else ""
        facts.append(("judges cost", f"${cost['spent_usd']:.4f}{unpriced}"))
    flips = report.get("flips")
    if flips and (flips["worse"] or flips["better"]):
        facts.append(("against the baseline", f"{flips['worse']} worse, {flips['better']} better"))
    critical = report.get("critical_cases")
    if critical and critical["total"]:
        facts.append(("critical cases broken", f"{len(critical['failed'])} of {critical['total']}"))
    told = "".join(f"<span>{text(name)} <b>{text(value)}</b></span>" for name, value in facts)
    notes = [
        "a trial on part of the dataset: no evidence" if report["trial"] else "",
        _aa_text(report.get("aa")),
        _stopped_text(report.get("stopped_early")),
    ]
    extra = "".join(f"<div>{text(note)}</div>" for note in notes if note)
    return (
        f'<header class="banner {text(verdict)}"><span class="word">{_ICONS.get(verdict, "")} '
        f"{text(verdict)}</span>"
        f"<h1>{text(report['suite']['name'])}</h1><div>{text(report['reason'])}</div>{extra}"
        f'<div class="facts">{told}</div></header>'
    )


def _checks(report: Report) -> str:
    rows = []
    for check in report["checks"]:
        verdict = check["verdict"]
        name = text(check["name"])
        if check["name"] != f"{check['system']} {check['metric']}":
            name += f" <small>{text(check['system'])} {text(check['metric'])}</small>"
        if check["tier"] not in ("gate", "critical"):
            name += f" <small>({text(check['tier'])})</small>"
        found = text(value_text(check))
        if verdict != "pass":
            found += f"<br><small>{text(check['reason'])}</small>"
        for note in (check.get("advisory_because"), _missing_text(check)):
            found += f"<br><small>{text(note)}</small>" if note else ""
        kind = "plain" if check["tier"] == "advisory" else verdict
        drawing = draw(
            span_of(check), kind, f"{check['name']}: {value_text(check)}, wanted {check['threshold']}"
        )
        icon = tag(kind, f"{_ICONS.get(verdict, '')} {verdict}")
        rows.append((icon, name, found, text(check["threshold"]), drawing, str(check["n"] or "")))
    headings = ("", "check", "found, with its interval", "wanted", "interval and threshold", "n")
    return "<h2>Checks</h2>" + table(headings, rows, frozenset({5}))


def _slices(report: Report) -> str:
    slices = report.get("slices") or []
    if not slices:
        return ""
    digits = {check["name"]: check.get("digits", 2) for check in report["checks"]}
    ranked = sorted(slices, key=lambda part: (part["verdict"] != "fail", _order(part)))
    rows = []
    for part in ranked[:_MOST_SLICES]:
        places = digits.get(part["check"], 2)
        found = (
            f"{number(part['value'], places)} [{number(part['low'], places)}, {number(part['high'], places)}]"
        )
        if part.get("gain") is not None:
            low, high = number(part["gain_low"], places), number(part["gain_high"], places)
            found += f" gain {part['gain']:+.{places}f} [{low}, {high}]"
        kind = "fail" if part["verdict"] == "fail" else "plain"
        p = "" if part.get("p_adjusted") is None else f"{part['p_adjusted']:.2g}"
        where = f"{part['by']} = {part['slice']}"
        word = tag(kind, "✘ worse" if kind == "fail" else "-")
        drawing = draw(slice_span(part), kind, f"{where}: {found}")
        rows.append((word, text(where, 120), text(part["check"]), text(found), drawing, p, str(part["n"])))
    more = (
        f'<p class="dim">{len(slices) - _MOST_SLICES} more in report.json</p>'
        if len(slices) > _MOST_SLICES
        else ""
    )
    headings = ("", "slice", "check", "found", "interval", "p (Holm)", "n")
    return f"<h2>Slices</h2>{table(headings, rows, frozenset({5, 6}))}{more}"


def _order(part: Mapping[str, Any]) -> float:
    p = part.get("p_adjusted")
    return 2.0 if p is None else p


def _judges(report: Report) -> str:
    judges = report.get("judges") or []
    if not judges:
        return ""
    rows = []
    for judge in judges:
        kappa = "not calibrated"
        if judge.get("kappa") is not None:
            kappa = f"κ {number(judge['kappa'], 2)}"
            if judge.get("kappa_low") is not None:
                kappa += f" [{number(judge['kappa_low'], 2)}, {number(judge['kappa_high'], 2)}]"
            kappa += f" on {judge['labels']} labels" if judge.get("labels") else ""
            kappa += f", until {str(judge['expires'])[:10]}" if judge.get("expires") else ""
        standing = tag("pass", "decides") if judge["deciding"] else tag("low", "advises only")
        failures = ", ".join(f"{count} x {kind}" for kind, count in (judge.get("failures") or {}).items())
        why = f"<br><small>{text(judge['why'])}</small>" if judge.get("why") else ""
        name = (
            f"{text(judge['name'])}<br><small>{text(judge['model'])} {text(short(judge['digest']))}</small>"
        )
        rows.append(
            (
                name,
                standing + why,
                text(kappa),
                str(judge["calls"]),
                str(judge["cached"]),
                text(failures or "none"),
            )
        )
    headings = ("judge", "standing", "agreement with people", "calls", "cached", "failures")
    return "<h2>Judges</h2>" + table(headings, rows, frozenset({3, 4}))


def _errors(report: Report) -> str:
    if not report["error_kinds"]:
        return ""
    rows = "".join(f"<li>{text(errors_line(kind))}</li>" for kind in report["error_kinds"])
    return f"<h2>Errors</h2><ul>{rows}</ul>"


def _about(report: Report) -> str:
    baseline, dataset = report["baseline"], report["dataset"]
    pairs = [
        ("release", report["release"]["digest"]),
        ("baseline", baseline["digest"] if baseline else "-"),
        ("suite", report["suite"]["digest"] or "not registered"),
        ("dataset", f"{dataset['name']}, {dataset['rows']} rows, {dataset['digest'] or 'not registered'}"),
        ("evidence", report["evidence"] or "none filed"),
        ("run", f"{report.get('run', '')} {report.get('at', '')}".strip() or "-"),
        ("outputs from the cache", report["cached"]),
        ("requests repeated", report["retried"]),
    ]
    rows = [(text(name), f"<code>{text(value)}</code>") for name, value in pairs]
    methods = [
        (
            text(check["name"]),
            text(check.get("gain_method") or check.get("method") or "-"),
            f"{check['confidence']:.0%}",
        )
        for check in report["checks"]
    ]
    return (
        f"<h2>What this is about</h2>{table(('', ''), rows)}"
        f"<h2>How intervals were made</h2>{table(('check', 'method', 'confidence'), methods)}"
    )


def _missing_text(check: Mapping[str, Any]) -> str:
    missing = check.get("missing")
    return f"{missing} samples without a score" if missing else ""


def _aa_text(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    return (
        f"the verdict flips in {found['flip_rate']:.1%} of pairs of runs of the same release "
        f"[{found['low']:.1%}, {found['high']:.1%}]"
    )


def _stopped_text(found: Mapping[str, Any] | None) -> str:
    return f"stopped early after {found['cases']} cases and {found['looks']} looks" if found else ""
