"""Which of two answers a judge prefers, asked in both orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.judging.base import Bench
from evals.judging.verdict import Presented, ask_json, present, question, shorten, struct
from evals.metrics.base import Metric, Scored
from evals.metrics.judge import (
    JudgeOptions,
    Shown,
    context,
    judged,
    meanings,
    needs_of,
    shown_by,
)
from evals.systems.base import Output
from registry import parse

_SCHEMA = struct(
    reason={"type": "string", "minLength": 1},
    better={"type": "string", "enum": ["A", "B", "tie"]},
)
_THERE = {"A": "first", "B": "second", "tie": "tie"}
_BACK = {"A": "second", "B": "first", "tie": "tie"}
_WORTH = {"first": 1.0, "second": 0.0, "tie": 0.5}
_TASK = """\
You compare the blocks `answer A` and `answer B`, which two systems wrote independently, by this rubric:

{rubric}

{shown}First give the reason: what decides between the two, in at most three sentences. Then say which is \
better: `A`, `B`, or `tie` where the rubric gives neither an advantage. The order in which they stand means \
nothing; length, style and confidence do not count unless the rubric says so."""


@dataclass(frozen=True, slots=True)
class Preference:
    """What a judge made of two answers in both orders."""

    value: float
    """1 where the first is better, 0 where the second is, 0.5 for a tie."""
    consistent: bool
    """Whether both orders gave the same; where not, the value is a tie."""
    reasons: tuple[str, str]
    """Of each order; in the second, A and B stand for the second and the first answer."""
    verdicts: tuple[str, str] = ("tie", "tie")
    """`first`, `second` or `tie`, in each order."""
    cut: Mapping[str, int] = field(default_factory=dict)
    """How many characters the judge was not shown, by block."""


async def compare(
    bench: Bench, sample: Sample, first: Output, second: Output, *, options: JudgeOptions | None = None
) -> Preference:
    """
    Which of two answers to *sample* the judge prefers by its rubric.

    Two calls, one in each order, with nothing that tells who wrote which; none where the answers are equal,
    which is a consistent tie. Verdicts that change with the order are position bias, not preference: they
    count as a tie, as in Zheng et al. 2023, NeurIPS Datasets and Benchmarks ("Judging LLM-as-a-Judge",
    section 3.4).

    Raises:
        ScoreFailed: either call gave no verdict.
        BadInput: see `shown_by`.
    """
    show = shown_by(bench.judge, options or JudgeOptions())
    if first.text == second.text and ("passages" not in show or first.passages == second.passages):
        return Preference(0.5, consistent=True, reasons=("the answers are equal",) * 2)
    there, there_reason, shown = await _ask(bench, sample, (first, second), show)
    back, back_reason, _ = await _ask(bench, sample, (second, first), show)
    verdicts = _THERE[there], _BACK[back]
    consistent = verdicts[0] == verdicts[1]
    value = _WORTH[verdicts[0]] if consistent else 0.5
    return Preference(value, consistent, (there_reason, back_reason), verdicts, shown.cut)


def win_rate(options: Mapping[str, Any]) -> Metric:
    """
    How often the judge prefers the release to its baseline, in [0, 1]: win 1, tie 0.5, loss 0. Two calls.

    0.5 on average means no difference. Details: `consistent`, `verdicts` of both orders, both `reasons`.

    Raises:
        BadInput: an unknown option; see `judge`.
    """
    chosen = parse.build(options, JudgeOptions, source="options of win_rate")

    async def rate(sample: Sample, output: Output, bench: Bench) -> Scored:
        found = await compare(bench, sample, output, _rival(output), options=chosen)
        details = {
            "consistent": found.consistent,
            "verdicts": list(found.verdicts),
            "reasons": list(found.reasons),
        }
        reason = found.reasons[0] if found.consistent else "the preference changed with the order: a tie"
        return Scored(found.value, reason, details | ({"cut": dict(found.cut)} if found.cut else {}))

    return judged("win_rate", rate, needs=needs_of(chosen), rival=True, calls=2)


async def _ask(
    bench: Bench, sample: Sample, pair: tuple[Output, Output], show: tuple[Shown, ...]
) -> tuple[str, str, Presented]:
    blocks = context(sample, pair[0], tuple(name for name in show if name != "passages"))
    task = _TASK.format(rubric=bench.judge.rubric, shown=meanings(blocks, show))
    for letter, output in zip("AB", pair, strict=True):
        if "passages" in show:
            blocks[f"passages behind answer {letter}"] = "\n\n".join(output.passages) or "(none)"
        blocks[f"answer {letter}"] = output.text
    shown = present(blocks)
    reply = await ask_json(bench, question(task, shown, _SCHEMA), _SCHEMA)
    return reply["better"], shorten(reply["reason"]), shown


def _rival(output: Output) -> Output:
    """
    The baseline's output, which stands as a plain mapping in `output.meta["rival"]`.

    Raises:
        ScoreFailed: `no_rival`: there is none, or it has no text.
    """
    plain = output.meta.get("rival")
    text = plain.get("text") if isinstance(plain, Mapping) else None
    if not isinstance(plain, Mapping) or not isinstance(text, str):
        raise ScoreFailed("no_rival", "output.meta.rival holds no output to compare with")
    return Output(0.0, text, passages=tuple(map(str, plain.get("passages") or ())))
