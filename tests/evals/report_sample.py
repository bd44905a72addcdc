"""A report and its cases as `evals run` makes them, small and with everything in it."""

from __future__ import annotations

from typing import Any

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
NASTY = "</script><img src=x onerror=alert(1)>\u202e|`@team`"


def check(name: str, **changed: Any) -> dict[str, Any]:
    plain = {
        "name": name,
        "metric": "exact",
        "system": "chat",
        "tier": "gate",
        "verdict": "pass",
        "reason": "holds",
        "threshold": "at least 0.5",
        "confidence": 0.95,
        "value": 0.75,
        "low": 0.6,
        "high": 0.86,
        "n": 40,
        "method": "Wilson",
        "digits": 2,
        "more_samples": None,
        "missing": 0,
        "advisory_because": None,
    }
    return plain | changed


def old_report(*checks: dict[str, Any], verdict: str = "pass") -> dict[str, Any]:
    """Only the keys that have always been there."""
    return {
        "ok": verdict == "pass",
        "verdict": verdict,
        "reason": "every check that decides passed",
        "exit_code": 0,
        "release": {"ref": "support@candidate", "digest": DIGEST},
        "baseline": None,
        "suite": {"name": "support-quality", "digest": None},
        "dataset": {"name": "questions", "rows": 40, "digest": None},
        "samples": 40,
        "trial": False,
        "errors": 0,
        "error_kinds": [],
        "retried": 0,
        "cached": 0,
        "tokens": {"prompt": 1, "completion": 2},
        "checks": list(checks) or [check("right")],
        "evidence": None,
        "seconds": 1.5,
    }


def full_report() -> dict[str, Any]:
    """A run that failed: cases got worse, a slice and a critical case too, and its judge only advises."""
    gain = {
        "against": "baseline",
        "baseline_value": 0.85,
        "gain": -0.1,
        "gain_low": -0.2,
        "gain_high": -0.03,
        "gain_method": "Tango",
        "p_value": 0.01,
        "better": 1,
        "worse": 2,
    }
    lost = check(
        "right",
        verdict="fail",
        reason="it is worse",
        threshold="worse than baseline by less than 0.02",
        **gain,
    )
    kind = check(
        "kind", tier="advisory", verdict="fail", missing=4, advisory_because="its judge is not calibrated"
    )
    flips = [
        {"check": "right", "id": "q1", "before": 1.0, "after": 0.0},
        {"check": "right", "id": NASTY, "before": 1.0, "after": 0.0},
        {"check": "right", "id": "q3", "before": 0.0, "after": 1.0},
    ]
    part = {"check": "right", "by": "topic", "n": 20, "low": 0.2, "high": 0.6}
    return old_report(lost, kind, verdict="fail") | {
        "reason": "failed: right",
        "exit_code": 1,
        "baseline": {"ref": "support@production", "digest": OTHER},
        "errors": 2,
        "error_kinds": [{"role": "candidate", "system": "chat", "kind": "timeout", "count": 2}],
        "epochs": 3,
        "judges": [
            {
                "name": "kind-judge",
                "digest": DIGEST,
                "model": "openai/gpt-4o-mini",
                "deciding": False,
                "why": "it is not calibrated",
                "kappa": None,
                "kappa_low": None,
                "kappa_high": None,
                "labels": None,
                "expires": None,
                "calls": 40,
                "cached": 3,
                "failures": {"judge_timeout": 4},
            }
        ],
        "cost": {"spent_usd": 0.25, "unpriced_calls": 1},
        "slices": [
            part | {"slice": "login", "value": 0.5, "p_adjusted": 0.7, "verdict": "pass"},
            part | {"slice": NASTY, "value": 0.3, "p_adjusted": 0.001, "verdict": "fail"},
        ],
        "critical_cases": {"total": 5, "failed": ["q9"]},
        "flips": {"better": 1, "worse": 2, "cases": flips},
        "aa": {"flip_rate": 0.02, "low": 0.01, "high": 0.04, "rounds": 200, "at": "2026-01-01T00:00:00Z"},
        "stopped_early": {"looks": 3, "cases": 40},
    }


def case(identity: str, score: float | None, text: str = "an answer", **changed: Any) -> dict[str, Any]:
    line: dict[str, Any] = {"id": identity, "role": "candidate", "system": "chat", "epoch": 0}
    line |= {"query": f"what is {identity}?", "answers": ["right"]}
    if score is None:
        return line | {"error": "timeout"} | changed
    line |= {"scores": {"right": score}, "reasons": {"right": "because"}, "output": {"text": text}}
    return line | changed
