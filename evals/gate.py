"""
The decision: pass, fail or inconclusive, never a guess.

A check passes when the bad end of its interval clears the threshold, fails when not even the good
end does, and is inconclusive in between. A release passes when every gate check does. Since all must
pass, no correction for the number of checks is due: the chance to pass a release that breaks one of
them is at most that one check's (Berger 1982, Technometrics 24(4), 295-300).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evals.metrics.base import Metric
from evals.score import Measured
from evals.stats import MIN_SAMPLES, Estimate, more_samples, samples_for_quantile
from evals.suite import QUANTILES, Check
from registry.entities import Verdict

CheckVerdict = Literal["pass", "fail", "inconclusive", "skipped"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found and why."""

    check: Check
    metric: Metric
    measured: Measured | None
    verdict: CheckVerdict
    reason: str
    more: int | None = None
    """About how many more samples would decide an inconclusive check."""


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The verdict on a release, its reason, and every check behind it."""

    verdict: Verdict
    reason: str
    results: tuple[CheckResult, ...]


def judge(check: Check, metric: Metric, measured: Measured | str) -> CheckResult:
    """
    The result of one check.

    Args:
        measured: what was found, or why the check cannot be made against this baseline.
    """
    if isinstance(measured, str):
        return CheckResult(check, metric, None, "skipped", f"skipped: {measured}")
    estimate, threshold, up = _question(check, metric, measured)
    interval = estimate.interval
    bad, good = (interval.low, interval.high) if up else (interval.high, interval.low)
    if estimate.n < MIN_SAMPLES:
        reason = f"{estimate.n} samples decide nothing; {MIN_SAMPLES} are the least"
        return CheckResult(check, metric, measured, "inconclusive", reason, MIN_SAMPLES - estimate.n)
    if math.isnan(estimate.value):
        return CheckResult(
            check, metric, measured, "inconclusive", "failed requests have no value to average"
        )
    strict = check.better_than is not None
    if _clears(bad, threshold, up=up, strict=strict):
        return CheckResult(check, metric, measured, "pass", _settled(check, threshold, above=up))
    if not _clears(good, threshold, up=up, strict=strict):
        return CheckResult(check, metric, measured, "fail", _settled(check, threshold, above=not up))
    return _undecided(check, metric, measured, estimate, threshold)


def decide(
    results: Sequence[CheckResult],
    *,
    error_share: float,
    max_error_share: float,
    baseline_error_share: float = 0.0,
) -> GateDecision:
    """
    The verdict over all checks.

    In this order: too many failed requests fail; a failed gate check fails; one that is inconclusive,
    or only skipped gate checks, or a baseline with too many failed requests is inconclusive.

    Args:
        error_share: of the release's requests, in [0, 1].
    """
    found = tuple(results)
    gates = [result for result in found if result.check.tier == "gate"]

    def decision(verdict: Verdict, reason: str) -> GateDecision:
        return GateDecision(verdict, reason, found)

    if error_share > max_error_share:
        return decision("fail", f"{error_share:.1%} of the requests failed; {max_error_share:.1%} may")
    failed = [result.check.title for result in gates if result.verdict == "fail"]
    if failed:
        return decision("fail", f"failed: {', '.join(failed)}")
    if baseline_error_share > max_error_share:
        return decision(
            "inconclusive",
            f"{baseline_error_share:.1%} of the baseline's requests failed: no fair comparison",
        )
    open_ = [result.check.title for result in gates if result.verdict == "inconclusive"]
    if open_:
        return decision("inconclusive", f"too few samples to decide: {', '.join(open_)}")
    if all(result.verdict == "skipped" for result in gates):
        return decision("inconclusive", "every gate check was skipped: nothing was judged")
    return decision("pass", "every gate check passed")


def _question(check: Check, metric: Metric, measured: Measured) -> tuple[Estimate, float, bool]:
    """What is compared, with what, and whether more of it is better."""
    if check.better_than is not None:
        assert measured.gain is not None  # noqa: S101 - `score.measure` fills it for these checks
        return measured.gain, check.margin, True
    threshold = check.at_least if check.at_least is not None else check.at_most
    assert threshold is not None  # noqa: S101 - Check requires one of them
    return measured.estimate, threshold, metric.higher_is_better


def _clears(end: float, threshold: float, *, up: bool, strict: bool) -> bool:
    if strict:
        return end > threshold
    return end >= threshold if up else end <= threshold


def _settled(check: Check, threshold: float, *, above: bool) -> str:
    whose = "gain's " if check.better_than else ""
    side = "above" if above else "below"
    return f"the {whose}whole {check.confidence:.0%} interval is {side} {threshold:g}"


def _undecided(
    check: Check, metric: Metric, measured: Measured, estimate: Estimate, threshold: float
) -> CheckResult:
    low, high = estimate.interval.low, estimate.interval.high
    end = low if estimate.value > threshold else high
    more = more_samples(estimate.n, estimate.value, end, threshold)
    if not math.isfinite(end) and check.statistic in QUANTILES:
        least = samples_for_quantile(QUANTILES[check.statistic], check.confidence)
        more = least - estimate.n if least > estimate.n else None
    advice = f"; about {more} more samples would decide it" if more else ""
    whose = "the gain's " if check.better_than else "the "
    return CheckResult(
        check, metric, measured, "inconclusive", f"{whose}interval holds {threshold:g}{advice}", more
    )
