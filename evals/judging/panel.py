"""Several judges of one answer: one score, and how far they disagree."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.judging.base import Bench
from evals.metrics.base import Rate, Scored
from evals.systems.base import Output
from registry.entities import JudgeContent
from registry.errors import BadInput

How = Literal["mean", "majority"]
MOST_MEMBERS = 9


@dataclass(frozen=True, slots=True)
class Panel:
    """Judges that are asked together and count as one."""

    members: tuple[Bench, ...]
    how: How


def members_of(content: JudgeContent) -> tuple[str, ...]:
    """
    The models of a judge: those of `parameters.panel`, else its one model.

    Raises:
        BadInput: the panel is no list of 2 to 9 models that begins with `model`, or names one twice; a
            majority of an even number; an unknown way to combine.

    >>> members_of(JudgeContent("a/x", "Right?", {"panel": ["a/x", "b/y", "c/z"]}))
    ('a/x', 'b/y', 'c/z')
    """
    named = content.parameters.get("panel")
    if named is None:
        return (content.model,)
    if not isinstance(named, list | tuple) or not all(
        isinstance(name, str) and "/" in name for name in named
    ):
        raise BadInput(f"judge {content.model}: parameters.panel must be a list of provider/model names")
    if not 2 <= len(named) <= MOST_MEMBERS or len(set(named)) < len(named) or named[0] != content.model:
        raise BadInput(
            f"judge {content.model}: parameters.panel names 2 to {MOST_MEMBERS} models, each once, "
            f"{content.model} first; it has {', '.join(named) or 'none'}"
        )
    if how_of(content) == "majority" and len(named) % 2 == 0:
        raise BadInput(
            f"judge {content.model}: a majority of {len(named)} may be a tie; name an odd number of models, "
            "or set parameters.combine: mean"
        )
    return tuple(named)


def how_of(content: JudgeContent) -> How:
    """How the judge's panel combines: `parameters.combine`, by default `majority`. Raises BadInput."""
    how = content.parameters.get("combine", "majority")
    if how not in ("mean", "majority"):
        raise BadInput(f"judge {content.model}: parameters.combine is {how!r}; it is majority or mean")
    return "mean" if how == "mean" else "majority"


async def rated(rate: Rate, sample: Sample, output: Output, judge: Bench | Panel) -> Scored:
    """What one judge, or a panel, scores. Raises ScoreFailed."""
    if isinstance(judge, Panel):
        return await panel(rate, sample, output, judge.members, judge.how)
    return await rate(sample, output, judge)


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
        *benches*. The reason, and `verdict` where there is one, are those of the first member nearest to the
        score.

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
    if "verdict" in nearest.details:
        details["verdict"] = nearest.details["verdict"]
    return Scored(value, nearest.reason, details)
