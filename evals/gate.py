"""
The decision: pass, fail or inconclusive, never a guess.

A check passes when the bad end of its interval clears the threshold, fails when not even the good
end does, and is inconclusive in between. A release passes when every critical check does and no supporting
one fails. Since all must pass, no correction for the number of checks is due: the chance to pass a release
that breaks one of them is at most that one check's (Berger 1982, Technometrics 24(4), 295-300). Slices are
looked at for failures alone, and there the number of looks counts: see `evals.slices`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from evals import power
from evals.checks import QUANTILES, Check
from evals.metrics.base import Metric
from evals.score import Measured
from evals.stats import MIN_SAMPLES, Estimate, samples_for_quantile
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
    advises: str | None = None
    """Why it only advises although its tier decides, such as a judge that was never calibrated."""

    @property
    def tier(self) -> str:
        """How much it matters in the end: `critical`, `supporting` or `advisory`."""
        if self.advises is not None:
            return "advisory"
        return "critical" if self.check.tier == "gate" else self.check.tier


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The verdict on a release, its reason, and every check behind it."""

    verdict: Verdict
    reason: str
    results: tuple[CheckResult, ...]


def judge(
    check: Check, metric: Metric, measured: Measured | str, *, advises: str | None = None
) -> CheckResult:
    """
    The result of one check.

    Args:
        measured: what was found, or why the check cannot be made against this baseline.
        advises: why it only advises, whatever its tier.
    """
    return replace(_judged(check, metric, measured), advises=advises)


def _judged(check: Check, metric: Metric, measured: Measured | str) -> CheckResult:
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
    strict = check.rival is not None
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
    missing_share: float = 0.0,
    max_missing_share: float = 1.0,
    broken: Sequence[str] = (),
    slices: Sequence[str] = (),
) -> GateDecision:
    """
    The verdict over all checks.

    In this order: too many failed requests fail; a critical case that broke, a failed check that decides and
    a slice that is worse than allowed fail; a baseline with too many failed requests, too many samples that a
    judge left without a score, an undecided critical check, or critical checks that were all skipped are
    inconclusive.

    Args:
        error_share: of the release's requests, in [0, 1].
        missing_share: of samples that judges left without a score, in the worst check that decides.
        broken: ids of critical cases below what a check asks of each.
        slices: slices that are surely worse than a check allows.
    """
    found = tuple(results)
    critical = [result for result in found if result.tier == "critical"]

    def decision(verdict: Verdict, reason: str) -> GateDecision:
        return GateDecision(verdict, reason, found)

    if error_share > max_error_share:
        return decision("fail", f"{error_share:.1%} of the requests failed; {max_error_share:.1%} may")
    if broken:
        return decision("fail", f"critical cases broke: {_named(broken)}")
    failed = [r.check.title for r in found if r.verdict == "fail" and r.tier != "advisory"]
    if failed:
        return decision("fail", f"failed: {', '.join(failed)}")
    if slices:
        return decision("fail", f"worse than allowed in: {_named(slices)}")
    if baseline_error_share > max_error_share:
        return decision(
            "inconclusive",
            f"{baseline_error_share:.1%} of the baseline's requests failed: no fair comparison",
        )
    if missing_share > max_missing_share:
        return decision(
            "inconclusive",
            f"{missing_share:.1%} of the samples have no score, since a judge failed; "
            f"{max_missing_share:.1%} may",
        )
    open_ = [result.check.title for result in critical if result.verdict == "inconclusive"]
    if open_:
        return decision("inconclusive", f"too few samples to decide: {', '.join(open_)}")
    if not critical:
        why = next((result.advises for result in found if result.advises), "")
        return decision("inconclusive", f"no check may decide: {why}")
    if all(result.verdict == "skipped" for result in critical):
        return decision("inconclusive", "every critical check was skipped: nothing was judged")
    return decision("pass", "every check that decides passed")


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def _question(check: Check, metric: Metric, measured: Measured) -> tuple[Estimate, float, bool]:
    """What is compared, with what, and whether more of it is better."""
    if check.rival is not None:
        assert measured.gain is not None  # noqa: S101 - `score.compare` fills it for these checks
        return measured.gain, check.gain, True
    threshold = check.at_least if check.at_least is not None else check.at_most
    assert threshold is not None  # noqa: S101 - Check requires one of them
    return measured.estimate, threshold, metric.higher_is_better


def _clears(end: float, threshold: float, *, up: bool, strict: bool) -> bool:
    if strict:
        return end > threshold
    return end >= threshold if up else end <= threshold


def _settled(check: Check, threshold: float, *, above: bool) -> str:
    whose = "gain's " if check.rival else ""
    side = "above" if above else "below"
    return f"the {whose}whole {check.confidence:.0%} interval is {side} {threshold:g}"


def _undecided(
    check: Check, metric: Metric, measured: Measured, estimate: Estimate, threshold: float
) -> CheckResult:
    low, high = estimate.interval.low, estimate.interval.high
    more = _more(check, measured, estimate, threshold)
    if check.statistic in QUANTILES and not (math.isfinite(low) and math.isfinite(high)):
        least = samples_for_quantile(QUANTILES[check.statistic], check.confidence)
        more = least - estimate.n if least > estimate.n else more
    advice = f"; about {more} more samples would decide it" if more else ""
    whose = "the gain's " if check.rival else "the "
    return CheckResult(
        check, metric, measured, "inconclusive", f"{whose}interval holds {threshold:g}{advice}", more
    )


def _more(check: Check, measured: Measured, estimate: Estimate, threshold: float) -> int | None:
    """
    About how many further samples decide the check with a chance of 80 %, if the value found is the true one.

    None where no number would do, such as a value on the threshold.
    """
    n, value, level = estimate.n, estimate.value, check.confidence
    end = estimate.interval.low if value > threshold else estimate.interval.high
    if estimate.method == "Wilson":
        needed = power.needed_share(value, threshold, level)
    elif estimate.method == "Tango":
        needed = power.needed_paired(measured.better / n, measured.worse / n, threshold, level)
    else:
        needed = power.needed_by_width(n, abs(end - value), value - threshold, level)
    return None if needed is None else max(needed - n, 1)
