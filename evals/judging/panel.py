"""Several judges of one answer: one score, and how far they disagree."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from typing import Literal

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.judging.base import Bench
from evals.metrics.base import Rate, Scored
from evals.systems.base import Output
from registry.errors import BadInput

How = Literal["mean", "majority"]


async def panel(rate: Rate, sample: Sample, output: Output, benches: Sequence[Bench], how: How) -> Scored:
    """
    The score of a panel, with each member's in the details.

    The members are asked at the same time. The panel is one judge: where any member has no score, neither
    has the panel, since the scores of another panel than the calibrated one do not compare.

    Args:
        how: `mean` of the members' scores, or `majority`: their median, which is the score of a strict
            majority where there is one, and the middle of the scores where there is none.

    Returns:
        In details: `disagreement` (the highest score minus the lowest) and `members` in the order of
        *benches*. The reason is that of the first member nearest to the score.

    Raises:
        ScoreFailed: the first member's that failed, in the order of *benches*.
        BadInput: no benches, or *how* is neither of the two.
    """
    if not benches:
        raise BadInput("a panel needs at least one judge; list provider/model names in parameters.panel")
    if how not in ("mean", "majority"):
        raise BadInput(f"a panel combines by mean or majority, not by {how!r}")
    found = await asyncio.gather(*(rate(sample, output, bench) for bench in benches), return_exceptions=True)
    failures = [item for item in found if isinstance(item, BaseException)]
    failures.sort(key=lambda error: isinstance(error, ScoreFailed))  # what is no ScoreFailed ends the run
    if failures:
        raise failures[0]
    members = [item for item in found if isinstance(item, Scored)]
    values = [member.value for member in members]
    value = statistics.fmean(values) if how == "mean" else float(statistics.median(values))
    nearest = min(members, key=lambda member: abs(member.value - value))
    details = {
        "disagreement": max(values) - min(values),
        "members": [
            {"judge": bench.judge.model, "value": member.value, "reason": member.reason}
            for bench, member in zip(benches, members, strict=True)
        ],
    }
    return Scored(value, nearest.reason, details)
