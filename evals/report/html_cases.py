"""Single cases for people: what was asked, what both answered, and how it was scored."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evals.report.compare import Kind, kind_of
from evals.report.html_page import filter_box, text

MOST_CASES = 500
"""So many are shown; the rest is in `outputs.jsonl`."""
_MOST_TEXT = 1500
_MOST_KEPT = 4000
"""Outputs of baselines that are kept in case they turn out to belong to a shown case."""
_KINDS = (("worse", "got worse"), ("better", "got better"), ("error", "errors"), ("low", "lowest scores"))
Key = tuple[str, str]
"""System and id."""


@dataclass(slots=True)
class Case:
    """One sample through one system."""

    key: Key
    kind: str
    flips: list[Mapping[str, Any]] = field(default_factory=list)
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


def choose(report: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> list[Case]:
    """
    The cases worth reading, at most 500: those that got worse, critical ones that broke, errors, those that
    got better, then the lowest scores. *lines* are read once; memory does not grow with them.
    """
    cases = _flipped(report)
    kinds = {check["name"]: kind_of(check["name"], report) for check in report["checks"]}
    baselines: dict[Key, dict[str, Any]] = {}
    lowest: list[tuple[float, int, Case]] = []
    for number, line in enumerate(lines):
        key = (str(line.get("system", "")), str(line["id"]))
        wanted = cases.get(key)
        if line.get("role") == "baseline":
            if wanted is not None or len(baselines) < _MOST_KEPT:
                baselines.setdefault(key, _cut(line))
            continue
        goodness = _goodness(line, kinds)
        if wanted is not None:
            if wanted.after is None or goodness < _goodness(wanted.after, kinds):
                wanted.after = _cut(line)
        elif goodness < 1.0:
            case = Case(key, "error" if "error" in line else "low", after=_cut(line))
            heapq.heappush(lowest, (-goodness, -number, case))
            if len(lowest) > MOST_CASES:
                heapq.heappop(lowest)
    for _, _, case in sorted(lowest, key=lambda entry: entry[:2], reverse=True):
        if case.key not in cases and len(cases) < MOST_CASES:
            cases[case.key] = case
    for key, case in cases.items():
        case.before = baselines.get(key)
    order = [kind for kind, _ in _KINDS]
    return sorted(cases.values(), key=lambda case: order.index(case.kind))


def render(cases: Sequence[Case], report: Mapping[str, Any]) -> str:
    """The filter box and the cases, folded; nothing where there are none."""
    if not cases:
        return ""
    there = {case.kind for case in cases}
    kinds = [(kind, words) for kind, words in _KINDS if kind in there]
    head = (
        f'<h2 id="cases">Cases</h2><p class="dim">{len(cases)} of {report["samples"]} samples, those that '
        "changed or score lowest; <code>outputs.jsonl</code> of <code>--output</code> has all.</p>"
    )
    return head + filter_box(kinds) + "\n".join(map(_case, cases))


def _flipped(report: Mapping[str, Any]) -> dict[Key, Case]:
    systems = {check["name"]: check["system"] for check in report["checks"]}
    kinds = {name: kind_of(name, report) for name in systems}
    cases: dict[Key, Case] = {}
    for flip in (report.get("flips") or {}).get("cases", ())[:MOST_CASES]:
        kind = kinds.get(flip["check"], Kind())
        is_worse = (flip["after"] < flip["before"]) == kind.higher_is_better
        key = (systems.get(flip["check"], ""), str(flip["id"]))
        case = cases.setdefault(key, Case(key, "better"))
        case.flips.append(flip)
        if is_worse:
            case.kind = "worse"
    for identity in ((report.get("critical_cases") or {}).get("failed") or ())[:100]:
        for system in dict.fromkeys(systems.values()):
            cases.setdefault((system, str(identity)), Case((system, str(identity)), "worse"))
    return cases


def _goodness(line: Mapping[str, Any], kinds: Mapping[str, Kind]) -> float:
    """The mean score, each brought to 0 (worst) to 1 (best); -1 for an error."""
    if "error" in line:
        return -1.0
    shares = []
    for title, score in (line.get("scores") or {}).items():
        kind = kinds.get(title) or kind_of(title)
        width = kind.high - kind.low
        if isinstance(score, int | float) and math.isfinite(score) and math.isfinite(width) and width > 0:
            share = (score - kind.low) / width
            shares.append(share if kind.higher_is_better else 1 - share)
    return sum(shares) / len(shares) if shares else 1.0


def _cut(line: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of a line: texts are cut here, so that memory stays bounded."""
    output = line.get("output") or {}
    answer = output.get("text") or output.get("label") or ""
    documents = [str(document)[:80] for document in (output.get("documents") or ())[:10]]
    calls = output.get("tool_calls") or ()
    return {
        "id": line["id"],
        "query": str(line.get("query") or "")[:_MOST_TEXT],
        "answers": [str(answer)[:300] for answer in (line.get("answers") or ())[:5]],
        "text": str(answer)[:_MOST_TEXT] + ("…" if len(str(answer)) > _MOST_TEXT else ""),
        "documents": documents,
        "calls": [str(call)[:300] for call in list(calls)[:5]],
        "scores": dict(list((line.get("scores") or {}).items())[:30]),
        "reasons": {key: str(why)[:500] for key, why in list((line.get("reasons") or {}).items())[:30]},
        "unscored": dict(list((line.get("unscored") or {}).items())[:30]),
        **({"error": str(line["error"])[:80]} if "error" in line else {}),
    }


def _case(case: Case) -> str:
    system, identity = case.key
    line = case.after or case.before or {}
    changes = "".join(
        f'<span class="tag">{text(flip["check"])} {flip["before"]:.3g} → {flip["after"]:.3g}</span>'
        for flip in case.flips
    )
    if not case.flips and case.kind == "worse":
        changes = '<span class="tag">critical case broke</span>'
    elif case.kind == "error":
        changes += f'<span class="tag">{text(line.get("error", "error"))}</span>'
    parts = []
    if line.get("query"):
        parts.append(f"<h3>Asked</h3><pre>{text(line['query'])}</pre>")
    if line.get("answers"):
        parts.append(f"<h3>Expected</h3><pre>{text(chr(10).join(line['answers']))}</pre>")
    sides = [("Baseline", case.before), ("Candidate", case.after)]
    shown = [_side(name, found) for name, found in sides if found is not None]
    if shown:
        one = "" if len(shown) > 1 else " one"
        parts.append(f'<div class="pair{one}">{"".join(shown)}</div>')
    else:
        parts.append('<p class="dim">its output was not kept; run with --output</p>')
    return (
        f'<details class="case {case.kind}" data-kind="{case.kind}"><summary><b>{text(identity, 120)}</b> '
        f'<span class="dim">{text(system)}</span>{changes}'
        f'<span class="q">{text(line.get("query", ""), 140)}</span>'
        f"</summary><div>{''.join(parts)}</div></details>"
    )


def _side(name: str, line: Mapping[str, Any]) -> str:
    if "error" in line:
        return f"<section><h3>{name}</h3><pre>error: {text(line['error'])}</pre></section>"
    parts = (
        [f"<h3>{name}</h3><pre>{text(line['text']) or '(no text)'}</pre>"]
        if line["text"] or not line["documents"]
        else [f"<h3>{name}</h3>"]
    )
    if line["documents"]:
        parts.append(f'<p class="dim">found: {text(", ".join(line["documents"]))}</p>')
    parts += [f"<pre>{text(call)}</pre>" for call in line["calls"]]
    rows = "".join(
        f"<li><b>{text(title)}</b> {score:.4g}"
        + (f": {text(line['reasons'][title])}" if line["reasons"].get(title) else "")
        + "</li>"
        for title, score in line["scores"].items()
    )
    rows += "".join(
        f"<li><b>{text(title)}</b> no score: {text(why)}</li>" for title, why in line["unscored"].items()
    )
    return f"<section>{''.join(parts)}<ul>{rows}</ul></section>"
