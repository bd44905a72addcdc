"""Hold a judge to people's labels: how far it agrees, how it errs, and whether it may decide."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any

from evals.agreement import kappa
from evals.agreement.asking import WORTH, Rating
from evals.agreement.kappa import Crosstab, Weights, crosstab
from evals.agreement.labelled import CLASSES, Labelled, Scale
from evals.agreement.length import rank_correlation
from evals.agreement.ranking import Position, position
from evals.judging.standing import subject_of
from evals.stats import Estimate, wilson
from registry.clock import to_text
from registry.entities import JudgeContent
from registry.errors import BadInput

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Rules:
    """What a judge has to show before it may decide."""

    min_labels: int = 50
    """Least rows with a human label and a verdict."""
    min_kappa: float = 0.4
    """Least κ; its lower end must also lie above 0. Weighted by squares on scales of numbers."""
    max_errors: float = 0.05
    """Largest share of ratings without a verdict."""
    days: int = 90
    """How long the calibration holds."""

    def __post_init__(self) -> None:
        """Refuse what would let every judge pass, or none."""
        if self.min_labels < 10:
            raise BadInput(f"min_labels is {self.min_labels}; it must be at least 10")
        if not 0 < self.min_kappa < 1 or not 0 <= self.max_errors < 1:
            raise BadInput("min_kappa must lie between 0 and 1, max_errors from 0 to below 1")
        if not 1 <= self.days <= 3650:
            raise BadInput(f"expires_days is {self.days}; it must be 1 to 3650")


@dataclass(frozen=True, slots=True)
class Report:
    """What holding a judge to people's labels came to."""

    scale: Scale
    rows: int
    split: int
    """Rows on which people are split evenly: no part of the agreement."""
    table: Crosstab
    """People's labels by the judge's, of rows with both."""
    kappa: Estimate
    ac1: float
    pabak: float
    base_rates: Mapping[str, Estimate]
    errors_by_class: Mapping[str, Estimate]
    people: Mapping[str, Estimate]
    """κ of every two people; empty where one labelled each row."""
    alpha: float | None
    """Krippendorff's alpha of the people; None where one labelled each row."""
    self_consistency: Estimate | None
    """Share of rows with the same verdict in all repetitions; None for one repetition."""
    position: Position | None
    """For pairs: what the order of the two answers did."""
    verbosity: Estimate | None
    """Rank correlation of (judge - people) with length; above 0 the judge likes long answers better."""
    longer_among_ties: Estimate | None
    """For pairs that people call a tie: share of the judge's choices that fell on the longer answer."""
    errors: float
    """Share of ratings without a verdict."""
    error_kinds: Mapping[str, int] = field(default_factory=dict)
    disagreed: tuple[str, ...] = ()
    """Ids of rows on which the judge and people disagree, in the order of the rows."""


def report(rows: Sequence[Labelled], ratings: Sequence[Sequence[Rating]], scale: Scale) -> Report:
    """
    What *ratings* of *rows* show; agreement and errors are those of the first repetition.

    Raises:
        BadInput: no row has both a human label and a verdict.
    """
    held = [(row, of[0]) for row, of in zip(rows, ratings, strict=True) if row.label and of[0].verdict]
    kinds = Counter(rating.failed for of in ratings for rating in of if rating.failed)
    if not held:
        raise BadInput(f"no row has a human label and a verdict; the judge's errors: {dict(kinds) or 'none'}")
    human, said = [str(row.label) for row, _ in held], [str(rating.verdict) for _, rating in held]
    table = crosstab(human, said, CLASSES[scale])
    used = table
    if scale == "pairwise":
        used = crosstab(human, said, [name for name in CLASSES[scale] if name in {*human, *said}])
    cases = [row.labels for row in rows]
    several = any(len(case) > 1 for case in cases)
    names = sorted({name for case in cases for name in case})
    alpha = kappa.alpha([[case.get(name) for name in names] for case in cases]) if several else None
    verdicts = [of[0].orders for of in ratings if of[0].orders]
    return Report(
        scale=scale,
        rows=len(rows),
        split=sum(row.label is None for row in rows),
        table=table,
        kappa=kappa.cohen(table, _weights(scale)),
        ac1=kappa.ac1(used),
        pabak=kappa.pabak(used),
        base_rates=kappa.base_rates(table),
        errors_by_class=kappa.class_errors(table),
        people=kappa.between_people(cases, CLASSES[scale]) if several else {},
        alpha=None if alpha is None or math.isnan(alpha) else alpha,
        self_consistency=_self_consistency(ratings),
        position=position(verdicts) if verdicts else None,
        verbosity=_verbosity(held, scale),
        longer_among_ties=_longer_among_ties(held) if scale == "pairwise" else None,
        errors=kinds.total() / sum(map(len, ratings)),
        error_kinds=dict(sorted(kinds.items())),
        disagreed=tuple(row.sample.id for row, rating in held if row.label != rating.verdict),
    )


def reasons(found: Report, rules: Rules) -> list[str]:
    """Why the judge may not decide; empty where it may."""
    why = []
    if found.table.n < rules.min_labels:
        why.append(f"{found.table.n} labels with a verdict; {rules.min_labels} are the least")
    if sum(count > 0 for count in found.table.rows) < 2:
        why.append("people gave one label only, so that nothing tells agreement from chance")
    low = found.kappa.interval.low
    if found.kappa.value < rules.min_kappa or low <= 0:
        why.append(
            f"kappa {found.kappa.value:.2f}, at least {low:.2f}; {rules.min_kappa:g} and above 0 are asked"
        )
    if found.errors > rules.max_errors:
        why.append(f"{found.errors:.1%} of its ratings failed; {rules.max_errors:.0%} are the most")
    return why


def record(
    found: Report, judge: JudgeContent, *, dataset: str, metric: str, rules: Rules, now: datetime
) -> dict[str, Any]:
    """
    What `JudgeContent.calibration` holds: plain JSON, read by `evals.judging.standing`.

    Sensitivity is the share of the good that the judge calls good, specificity that of the bad it calls bad;
    both are null on other scales than the binary.

    Args:
        dataset: the digest of the labels.
    """
    binary = found.scale == "binary"
    good, bad = found.errors_by_class.get("good"), found.errors_by_class.get("bad")
    why = reasons(found, rules)
    return {
        "of": subject_of(judge),
        "metric": metric,
        "scale": found.scale,
        "dataset": dataset,
        "labels": found.table.n,
        "kappa": _plain(found.kappa.value),
        "kappa_low": _plain(found.kappa.interval.low),
        "kappa_high": _plain(found.kappa.interval.high),
        "base_rate": _plain(found.base_rates["good"].value) if binary else None,
        "sensitivity": _plain(1 - good.value) if binary and good and good.n else None,
        "specificity": _plain(1 - bad.value) if binary and bad and bad.n else None,
        "positives": good.n if binary and good else None,
        "negatives": bad.n if binary and bad else None,
        "self_consistency": _value(found.self_consistency),
        "order_consistency": _value(found.position.consistent if found.position else None),
        "verbosity": _value(found.verbosity),
        "errors": _plain(found.errors),
        "at": to_text(now),
        "expires": to_text(now + timedelta(days=rules.days)),
        "calibrated": not why,
        "reasons": why,
    }


def _weights(scale: Scale) -> Weights:
    return "quadratic" if scale in ("likert", "score") else "none"


def _self_consistency(ratings: Sequence[Sequence[Rating]]) -> Estimate | None:
    whole = [of for of in ratings if len(of) > 1 and all(rating.verdict for rating in of)]
    if not whole:
        return None
    same = sum(len({rating.verdict for rating in of}) == 1 for of in whole)
    return Estimate(same / len(whole), wilson(same, len(whole)), len(whole), "Wilson")


def _verbosity(held: Sequence[tuple[Labelled, Rating]], scale: Scale) -> Estimate | None:
    worth = {name: float(at) for at, name in enumerate(CLASSES[scale])}
    if scale == "pairwise":
        worth = dict(WORTH)
    over = [worth[str(rating.verdict)] - worth[str(row.label)] for row, rating in held]
    size = [float(len(row.output.text) - (len(row.rival.text) if row.rival else 0)) for row, _ in held]
    return rank_correlation(over, size)


def _longer_among_ties(held: Sequence[tuple[Labelled, Rating]]) -> Estimate | None:
    chosen = []
    for row, rating in held:
        if row.label == "tie" and rating.verdict != "tie" and row.rival is not None:
            ahead = len(row.output.text) - len(row.rival.text)
            if ahead:
                chosen.append(float((rating.verdict == "first") == (ahead > 0)))
    if not chosen:
        return None
    n = len(chosen)
    return Estimate(fmean(chosen), wilson(round(sum(chosen)), n), n, "Wilson")


def _plain(value: float) -> float:
    return round(value, _DIGITS)


def _value(found: Estimate | None) -> float | None:
    return None if found is None else _plain(found.value)
