"""A run as one plain JSON object; the other reports are made from it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from evals.gate import CheckResult
from evals.plan import Subject
from evals.run import EvalRun
from evals.submit import Filed
from registry.terminal import EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_OK

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
        "trial": run.trial,
        "errors": sum(error.count for error in run.errors),
        "error_kinds": [
            {"role": e.role, "system": e.system, "kind": e.kind, "count": e.count} for e in run.errors
        ],
        "retried": run.retried,
        "cached": run.cached,
        "tokens": _tokens(run),
        "checks": [check_report(result) for result in run.decision.results],
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
        "tier": check.tier,
        "verdict": result.verdict,
        "reason": result.reason,
        "threshold": _threshold(result),
        "confidence": check.confidence,
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
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
    }
    if gain is not None:
        entry |= {
            "against": check.better_than,
            "baseline_value": None if measured.compared is None else _finite(measured.compared),
            "gain": _finite(gain.value),
            "gain_low": _finite(gain.interval.low),
            "gain_high": _finite(gain.interval.high),
            "gain_method": gain.method,
            "p_value": measured.p_value,
        }
    return entry


def _threshold(result: CheckResult) -> str:
    check = result.check
    if check.better_than is not None:
        if check.margin < 0:
            return f"worse than {check.better_than} by less than {-check.margin:g}"
        more = f" by more than {check.margin:g}" if check.margin else ""
        return f"better than {check.better_than}{more}"
    if check.at_least is not None:
        return f"at least {check.at_least:g}"
    return f"at most {check.at_most:g}"


def _subject(subject: Subject) -> dict[str, str]:
    return {"ref": subject.ref, "digest": subject.version.digest}


def _tokens(run: EvalRun) -> dict[str, int]:
    """Tokens the candidate reported for the outputs judged, cached ones too."""
    total: Counter[str] = Counter(prompt=0, completion=0)
    for (role, _), outputs in run.outputs.items():
        for output in outputs.values() if role == "candidate" else ():
            total["prompt"] += getattr(output, "prompt_tokens", 0)
            total["completion"] += getattr(output, "completion_tokens", 0)
    return dict(total)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
