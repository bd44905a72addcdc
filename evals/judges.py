"""The judges of a suite: found in the registry, held to their calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from evals.judging.errors_known import JudgeErrors, corrected, corrected_gain
from evals.judging.panel import how_of, members_of
from evals.judging.standing import standing
from evals.metrics.base import Metric
from evals.session import Judge
from evals.stats import Estimate
from evals.subjects import Subjects
from evals.suite import EvalSuite
from registry import judges
from registry.refs import parse_ref
from registry.workspace import Workspace


def judges_of(
    workspace: Workspace,
    suite: EvalSuite,
    metrics: Mapping[str, Metric],
    subjects: Subjects,
    now: datetime,
) -> dict[str, Judge]:
    """
    Every judge that a check of *suite* asks, by name, as the registry knows it now.

    Raises:
        NotFound: no such judge; `registry judges push` stores one.
    """
    names = {str(suite.judge_of(check)) for check in suite.checks if metrics[check.title].rate is not None}
    found: dict[str, Judge] = {}
    families = [one.family for one in (subjects.candidate, subjects.baseline) if one is not None]
    with workspace.reading() as connection:
        for name in sorted(names):
            version, content = judges.get(connection, parse_ref(name))
            why = ""
            for family in families or [None]:
                held = standing(
                    content,
                    now,
                    candidate_model=family,
                    min_kappa=suite.judging.min_kappa,
                    min_labels=suite.judging.min_labels,
                )
                why = why or ("" if held.deciding else held.why)
            found[name] = Judge(version, content, not why, why)
    return found


def standing_of(judge: Judge, metric: str) -> str | None:
    """Why a check of *metric* by *judge* only advises; None where it may decide."""
    if not judge.deciding:
        return f"judge {judge.version.name}: {judge.why}"
    shown = (judge.content.calibration or {}).get("metric", metric)
    if shown != metric:
        return f"judge {judge.version.name}: it was calibrated with {shown}, not with {metric}"
    return None


Correction = Callable[[Estimate, float], Estimate]


def corrections_of(judge: Judge | None, metric: str) -> tuple[Correction | None, Correction | None]:
    """
    What a calibrated judge's known errors make of an estimate, and of a gain.

    Only of judges whose scale is binary, no means of panels, and of the metric they were calibrated with:
    their sensitivity and specificity are known. Others' scores stay as they are.
    """
    record = (judge.content.calibration if judge is not None and judge.deciding else None) or {}
    if judge is None or judge.content.parameters.get("scale", "binary") != "binary":
        return None, None
    if len(members_of(judge.content)) > 1 and how_of(judge.content) == "mean":
        return None, None
    if record.get("metric", metric) != metric or metric != "judge":
        return None, None
    try:
        errors = JudgeErrors(
            float(record["sensitivity"]),
            int(record["positives"]),
            float(record["specificity"]),
            int(record["negatives"]),
        )
    except (KeyError, TypeError, ValueError):
        return None, None
    return (
        lambda estimate, level: corrected(estimate, errors, level),
        lambda estimate, level: corrected_gain(estimate, errors, level),
    )
