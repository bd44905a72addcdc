"""A run as one plain JSON object; the other reports are made from it."""

from __future__ import annotations

import math
from typing import Any

from evals.gate import CheckResult
from evals.run import EvalRun, JudgeUse
from evals.slices import Slice
from evals.subjects import Subject
from evals.submit import Filed
from registry.terminal import EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_OK

MOST_FLIPS = 200
EXITS = {"pass": EXIT_OK, "fail": EXIT_FAIL, "inconclusive": EXIT_INCONCLUSIVE}


def report(run: EvalRun, filed: Filed | None = None) -> dict[str, Any]:
    """
    Everything a reader of *run* needs. Numbers are finite; what has no number is null.

    Args:
        filed: what it left in the registry; None when nothing was submitted.
    """
    verdict = run.decision.verdict
    return {
        "ok": verdict == "pass",
        "verdict": verdict,
        "reason": run.decision.reason,
        "exit_code": EXITS[verdict],
        "release": _subject(run.subjects.candidate),
        "baseline": _subject(run.subjects.baseline) if run.subjects.baseline else None,
        "suite": {"name": run.suite.name, "digest": filed.suite.digest if filed else None},
        "dataset": {
            "name": run.dataset.name,
            "rows": len(run.dataset.samples),
            "digest": filed.dataset.digest if filed else None,
        },
        "samples": run.samples,
        "epochs": run.epochs,
        "trial": run.trial,
        "errors": sum(error.count for error in run.errors),
        "error_kinds": [
            {"role": e.role, "system": e.system, "kind": e.kind, "count": e.count} for e in run.errors
        ],
        "retried": run.retried,
        "cached": run.cached,
        "tokens": {"prompt": run.tokens[0], "completion": run.tokens[1]},
        "checks": [check_report(result) for result in run.decision.results],
        "judges": [_judge(use) for use in run.judges],
        "cost": {"spent_usd": round(run.spent_usd, 6), "unpriced_calls": run.unpriced},
        "slices": [slice_report(one) for one in run.slices],
        "critical_cases": {"total": run.critical_cases, "failed": list(run.broken)},
        "flips": _flips(run),
        "stopped_early": {"looks": run.looks, "cases": run.samples} if run.stopped else None,
        "aa": None,
        "timings": {"asking_s": round(run.asking_s, 3), "scoring_s": round(run.scoring_s, 3)},
        "evidence": filed.evidence if filed else None,
        "seconds": round((run.finished - run.started).total_seconds(), 3),
    }


def check_report(result: CheckResult) -> dict[str, Any]:
    """One check as plain JSON: value and interval, and against a rival also the gain's."""
    check, measured = result.check, result.measured
    entry: dict[str, Any] = {
        "name": check.title,
        "metric": check.measure,
        "system": check.system,
        "tier": "gate" if result.tier == "critical" else result.tier,
        "verdict": result.verdict,
        "reason": result.reason,
        "threshold": _threshold(result),
        "confidence": check.confidence,
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "advisory_because": result.advises,
        "higher_is_better": result.metric.higher_is_better,
    }
    if measured is None:
        return entry
    estimate, gain = measured.estimate, measured.gain
    entry |= {
        "value": _finite(estimate.value),
        "low": _finite(estimate.interval.low),
        "high": _finite(estimate.interval.high),
        "n": estimate.n,
        "method": estimate.method,
        "digits": result.metric.digits,
        "more_samples": result.more,
        "missing": measured.missing,
        "variance_between_cases": measured.between,
    }
    if gain is not None:
        entry |= {
            "against": check.rival,
            "baseline_value": None if measured.compared is None else _finite(measured.compared),
            "gain": _finite(gain.value),
            "gain_low": _finite(gain.interval.low),
            "gain_high": _finite(gain.interval.high),
            "gain_method": gain.method,
            "p_value": measured.p_value,
            "better": measured.better,
            "worse": measured.worse,
        }
    return entry


def _threshold(result: CheckResult) -> str:
    check = result.check
    if check.rival is not None:
        if check.gain < 0:
            return f"worse than {check.rival} by less than {-check.gain:g}"
        if check.not_worse_than:
            return f"not worse than {check.rival}"
        more = f" by more than {check.gain:g}" if check.gain else ""
        return f"better than {check.rival}{more}"
    if check.at_least is not None:
        return f"at least {check.at_least:g}"
    return f"at most {check.at_most:g}"


def slice_report(one: Slice) -> dict[str, Any]:
    """One slice under one check as plain JSON."""
    entry: dict[str, Any] = {"check": one.check, "by": one.key, "slice": one.value, "n": one.n}
    entry |= {"value": _finite(one.estimate.value), "low": _finite(one.estimate.interval.low)}
    entry["high"] = _finite(one.estimate.interval.high)
    if one.gain is not None:
        entry |= {"gain": _finite(one.gain.value), "gain_low": _finite(one.gain.interval.low)}
        entry["gain_high"] = _finite(one.gain.interval.high)
    return entry | {"p_adjusted": one.p_adjusted, "verdict": "fail" if one.is_worse else "pass"}


def _judge(use: JudgeUse) -> dict[str, Any]:
    content, record = use.judge.content, use.judge.content.calibration or {}
    keys = ("kappa", "kappa_low", "kappa_high", "labels", "expires")
    return {
        "name": use.name,
        "digest": use.judge.version.digest,
        "model": content.model,
        "deciding": use.judge.deciding,
        "why": use.judge.why,
        **{key: record.get(key) for key in keys},
        "calls": use.calls,
        "cached": use.cached,
        "failures": dict(use.failures),
    }


def _flips(run: EvalRun) -> dict[str, Any]:
    worse = sum(flip.is_worse for flip in run.flips)
    half = MOST_FLIPS // 2
    losses = [flip for flip in run.flips if flip.is_worse]
    gains = [flip for flip in run.flips if not flip.is_worse]
    shown = (losses + gains) if len(run.flips) <= MOST_FLIPS else losses[: max(half, MOST_FLIPS - len(gains))]
    shown += gains[: MOST_FLIPS - len(shown)] if len(run.flips) > MOST_FLIPS else []
    cases = [{"check": f.check, "id": f.id, "before": f.before, "after": f.after} for f in shown]
    return {"better": len(run.flips) - worse, "worse": worse, "cases": cases}


def _subject(subject: Subject) -> dict[str, str]:
    return {"ref": subject.ref, "digest": subject.digest}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
