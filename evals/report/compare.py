"""Two runs side by side: what changed, case by case, and how sure that is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from evals import stats
from evals.metrics.base import Metric
from registry import plugins
from registry.errors import PlatformError

MOST_FLIPS = 200
"""So many cases that changed are listed; all are counted."""
_TINY = 1e-9
Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs."""

    name: str
    report: Report | None
    cases: Mapping[str, Mapping[str, float]] | None
    """Metric → case → score, repetitions averaged; None where only the report is known."""
    errors: int = 0
    """Requests without an output."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a metric's numbers mean."""

    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True
    digits: int = 3


@dataclass(slots=True)
class _Case:
    total: float = 0.0
    count: int = 0


@dataclass(slots=True)
class _System:
    """What one system of a run left behind."""

    by_metric: dict[str, dict[str, _Case]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    """Ids of samples whose request failed, once a repetition."""


def side(
    name: str, report: Report | None, lines: Iterable[Mapping[str, Any]] | None, role: str = "candidate"
) -> Side:
    """
    One run for `compare`, from its report and the lines of its `outputs.jsonl`, read once.

    A failed request scores the worst its metric knows, as it does in the run; where the range has no worst,
    as of latency, the case is left out. A case that a judge could not score is left out.

    Args:
        role: whose outputs of the run: `candidate` or `baseline`.
    """
    if lines is None:
        return Side(name, report, None)
    systems: dict[str, _System] = {}
    for line in lines:
        if line.get("role", role) != role:
            continue
        system = systems.setdefault(str(line.get("system")), _System())
        if "error" in line:
            system.failed.append(line["id"])
        for title, score in (line.get("scores") or {}).items():
            if isinstance(score, int | float) and math.isfinite(score):
                _add(system, title, line["id"], score)
    for system in systems.values():
        for title in system.by_metric:
            kind = kind_of(title, report)
            worst = kind.low if kind.higher_is_better else kind.high
            for identity in system.failed if math.isfinite(worst) else ():
                _add(system, title, identity, worst)
    cases = {
        title: {identity: case.total / case.count for identity, case in kept.items()}
        for system in systems.values()
        for title, kept in system.by_metric.items()
    }
    return Side(name, report, cases, sum(len(system.failed) for system in systems.values()))


def _add(system: _System, title: str, identity: str, score: float) -> None:
    case = system.by_metric.setdefault(title, {}).setdefault(identity, _Case())
    case.total += score
    case.count += 1


def compare(first: Side, second: Side, *, confidence: float = 0.95) -> dict[str, Any]:
    """
    By how much the second run is better than the first, as plain JSON.

    Where both have their cases, each metric is compared case by case (Tango's or a t interval; exact McNemar
    for zeros and ones; adjusted by Holm over the metrics). Otherwise only the intervals of the checks are
    compared, which sees less: those are marked `paired: false`.

    `gain` is positive where the second run is better, whatever the metric's direction.
    """
    if first.cases is not None and second.cases is not None:
        metrics, flips, skipped = _paired(first, second, confidence)
    else:
        metrics, flips, skipped = _unpaired(first, second), [], []
    _adjust(metrics)
    for metric in metrics:
        metric["verdict"] = _verdict(metric)
    worse = sum(flip["worse"] for flip in flips)
    flips.sort(key=lambda flip: (not flip["worse"], -abs(flip["after"] - flip["before"]), flip["id"]))
    half = MOST_FLIPS // 2
    lost, won = flips[:worse], flips[worse:]
    kept = lost[: max(half, MOST_FLIPS - len(won))] + won[: max(half, MOST_FLIPS - len(lost))]
    return {
        "ok": True,
        "a": _told(first),
        "b": _told(second),
        "confidence": confidence,
        "worse": any(metric["verdict"] == "worse" for metric in metrics),
        "metrics": metrics,
        "not_compared": skipped,
        "flips": {"better": len(flips) - worse, "worse": worse, "cases": kept},
    }


def kind_of(title: str, *reports: Report | None) -> Kind:
    """Range and direction of what a report calls *title*, from its checks or from the metric's plug-in."""
    for report in reports:
        for check in (report or {}).get("checks", ()):
            if check["name"] == title:
                return _kind(str(check["metric"]), check)
    return _kind(title.rsplit(maxsplit=1)[-1], {})


def mover(a: Report, b: Report) -> tuple[float, float]:
    """
    An interval for b - a from the intervals of two independent values.

        low = d - √((b - b_low)² + (a_high - a)²), high = d + √((b_high - b)² + (a - a_low)²)

    Source: Zou and Donner 2008, Statistics in Medicine 27(10), 1693-1702 (MOVER).

    >>> low, high = mover(
    ...     {"value": 0.5, "low": 0.4, "high": 0.6}, {"value": 0.7, "low": 0.6, "high": 0.8})
    >>> (round(low, 3), round(high, 3))
    (0.059, 0.341)
    """
    gap = b["value"] - a["value"]
    low = math.hypot(b["value"] - b["low"], a["high"] - a["value"])
    high = math.hypot(b["high"] - b["value"], a["value"] - a["low"])
    return gap - low, gap + high


def _paired(
    first: Side, second: Side, confidence: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    metrics: list[dict[str, Any]] = []
    flips: list[dict[str, Any]] = []
    before_all, after_all = first.cases or {}, second.cases or {}
    skipped = [f"{title}: only in {first.name}" for title in before_all if title not in after_all]
    skipped += [f"{title}: only in {second.name}" for title in after_all if title not in before_all]
    for title in (title for title in before_all if title in after_all):
        before, after = before_all[title], after_all[title]
        shared = [identity for identity in before if identity in after]
        only = {"only_in_a": len(before) - len(shared), "only_in_b": len(after) - len(shared)}
        if not shared:
            skipped.append(f"{title}: no case is in both")
            continue
        kind = kind_of(title, second.report, first.report)
        old, new = [before[identity] for identity in shared], [after[identity] for identity in shared]
        metrics.append(_metric(title, kind, old, new, confidence) | only)
        sign = 1 if kind.higher_is_better else -1
        flips += [
            {"check": title, "id": identity, "before": a, "after": b, "worse": sign * (b - a) < 0}
            for identity, a, b in zip(shared, old, new, strict=True)
            if abs(b - a) > _TINY and math.isfinite(kind.high)
        ]
    return metrics, flips, skipped


def _metric(title: str, kind: Kind, old: list[float], new: list[float], confidence: float) -> dict[str, Any]:
    better, worse = (new, old) if kind.higher_is_better else (old, new)
    gained = sum(a - b > _TINY for a, b in zip(better, worse, strict=True))
    lost = sum(b - a > _TINY for a, b in zip(better, worse, strict=True))
    low, high = kind.low, kind.high
    if not math.isfinite(low) or not math.isfinite(high):
        low, high = min(*old, *new), max(*old, *new)
    gain = stats.estimate_gain(better, worse, low, high, confidence)
    is_binary = {*old, *new} <= {0.0, 1.0}
    return {
        "metric": title,
        "paired": True,
        "n": len(old),
        "digits": kind.digits,
        "higher_is_better": kind.higher_is_better,
        "a": fmean(old),
        "b": fmean(new),
        "gain": gain.value,
        "gain_low": gain.interval.low,
        "gain_high": gain.interval.high,
        "method": gain.method,
        "p_value": stats.mcnemar(gained, lost) if is_binary else None,
        "p_method": "exact McNemar" if is_binary else None,
        "better": gained,
        "worse": lost,
    }


def _unpaired(first: Side, second: Side) -> list[dict[str, Any]]:
    older = {check["name"]: check for check in (first.report or {}).get("checks", ())}
    found: list[dict[str, Any]] = []
    for b in (second.report or {}).get("checks", ()):
        a = older.get(b["name"])
        if a is None or any(check.get(key) is None for check in (a, b) for key in ("value", "low", "high")):
            continue
        kind = _kind(str(b["metric"]), b)
        low, high = mover(a, b) if kind.higher_is_better else mover(b, a)
        gap = b["value"] - a["value"]
        found.append(
            {
                "metric": b["name"],
                "paired": False,
                "n": min(a["n"], b["n"]),
                "digits": b.get("digits", kind.digits),
                "higher_is_better": kind.higher_is_better,
                "a": a["value"],
                "b": b["value"],
                "gain": gap if kind.higher_is_better else -gap,
                "gain_low": low,
                "gain_high": high,
                "method": "MOVER over the checks' own intervals",
                "p_value": None,
                "p_method": None,
            }
        )
    return found


def _adjust(metrics: list[dict[str, Any]]) -> None:
    """Holm 1979 over the metrics that have a p-value; others keep none."""
    tested = sorted((m for m in metrics if m["p_value"] is not None), key=lambda m: m["p_value"])
    highest = 0.0
    for rank, metric in enumerate(tested):
        highest = max(highest, min(1.0, metric["p_value"] * (len(tested) - rank)))
        metric["p_adjusted"] = highest


def _verdict(metric: Mapping[str, Any]) -> str:
    """`worse`, `better` or `same as far as can be told`, by the interval; few cases tell nothing."""
    if metric["n"] < stats.MIN_SAMPLES:
        return "too few cases"
    if metric["gain_high"] < 0:
        return "worse"
    return "better" if metric["gain_low"] > 0 else "cannot tell"


def _kind(measure: str, check: Mapping[str, Any]) -> Kind:
    found = _plugin(re.split("[ @]", measure, maxsplit=1)[0])
    kind = Kind(found.low, found.high, found.higher_is_better, max(found.digits, 0)) if found else Kind()
    better = check.get("higher_is_better", kind.higher_is_better)
    if found is None and str(check.get("threshold", "")).startswith("at most"):
        better = False
    return Kind(kind.low, kind.high, bool(better), int(check.get("digits", kind.digits)))


def _plugin(name: str) -> Metric | None:
    """The metric *name*; None where it is not installed here or needs options that a report does not keep."""
    try:
        found = plugins.load("metrics", name)
        if not isinstance(found, Metric) and callable(found):
            found = found({})
    except PlatformError:
        return None
    return found if isinstance(found, Metric) else None


def _told(one: Side) -> dict[str, Any]:
    report = one.report or {}
    return {
        "name": one.name,
        "release": report.get("release"),
        "suite": (report.get("suite") or {}).get("name"),
        "dataset": report.get("dataset"),
        "verdict": report.get("verdict"),
        "errors": one.errors if one.cases is not None else report.get("errors"),
    }
