"""A judge with a rubric of its own: what the registry's judge says of an answer, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evals.dataset import Sample
from evals.judging.base import Bench
from evals.judging.claims import numbered
from evals.judging.verdict import ask_json, present, question, shorten, struct
from evals.metrics.base import Metric, Rate, Scored
from evals.systems.base import Output
from registry import parse
from registry.entities import JudgeContent
from registry.errors import BadInput

Shown = Literal["query", "answers", "passages"]
_DEFAULT: tuple[Shown, ...] = ("query", "answers")
_SCALES: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "binary": ({"type": "string", "enum": ["pass", "fail"]}, "`pass` or `fail`"),
    "likert": ({"type": "integer", "enum": [1, 2, 3, 4, 5]}, "a whole number from 1 (worst) to 5 (best)"),
    "score": (
        {"type": "integer", "enum": list(range(11))},
        "a whole number from 0 (worst) to 10 (best)",
    ),
}
_TASK = """\
You judge the block `answer`, which a system under test wrote, by this rubric:

{rubric}

{shown}First give the reason: what in the answer decides, in at most three sentences. Then give the verdict: \
{scale}. Judge by the rubric alone; length, style and confidence do not count unless it says so."""
_MEANING: Mapping[Shown, str] = {
    "query": "`question` is what the system was asked.",
    "answers": "Each `reference` is an accepted answer; any one of them is right.",
    "passages": "Each `passage` is what the system was given to answer from.",
}


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """Options of `judge` and `win_rate`. The rubric is no option: it is part of the judge's digest."""

    show: tuple[Shown, ...] | None = None
    """
    What the judge sees besides the answer; by default the judge's `parameters.show`, else the question and
    the accepted answers, as far as there are any. Must agree with `parameters.show` where both are given.
    """

    def __post_init__(self) -> None:
        """Refuse what is listed twice."""
        if self.show and len(set(self.show)) < len(self.show):
            raise BadInput("show lists something twice")


def judge(options: Mapping[str, Any]) -> Metric:
    """
    The judge's verdict by its rubric, in [0, 1]: one call.

    The judge's `parameters.scale` decides: `binary` (pass 1, fail 0; the default), `likert` (1 to 5, in
    quarters) or `score` (0 to 10, in tenths). Details: `verdict`, as the judge gave it, and `cut`, where the
    judge was not shown everything.

    Raises:
        BadInput: an unknown option; when rating, a scale or `show` in the judge that does not exist.
    """
    chosen = parse.build(options, JudgeOptions, source="options of judge")

    async def rate(sample: Sample, output: Output, bench: Bench) -> Scored:
        scale = scale_of(bench.judge)
        kind, words = _SCALES[scale]
        schema = struct(reason={"type": "string", "minLength": 1}, verdict=kind)
        show = shown_by(bench.judge, chosen)
        material = context(sample, output, show)
        task = _TASK.format(rubric=bench.judge.rubric, shown=meanings(material, show), scale=words)
        shown = present({**material, "answer": output.text})
        reply = await ask_json(bench, question(task, shown, schema), schema)
        verdict = reply["verdict"]
        return Scored(worth(scale, verdict), shorten(reply["reason"]), {"verdict": verdict} | shown.details)

    return judged("judge", rate, needs=needs_of(chosen))


def judged(
    name: str,
    rate: Rate,
    *,
    systems: tuple[str, ...] = ("chat", "rag"),
    needs: tuple[str, ...] = (),
    **more: Any,  # noqa: ANN401
) -> Metric:
    """A metric that a judge rates, in [0, 1], higher is better unless *more* says otherwise."""
    return Metric(name, systems, needs, rate=rate, **more)


def worth(scale: str, verdict: str | int) -> float:
    """
    What a verdict on a scale is worth, in [0, 1].

    >>> [worth("binary", "pass"), worth("likert", 4), worth("score", 7)]
    [1.0, 0.75, 0.7]
    """
    if isinstance(verdict, str):
        return float(verdict == "pass")
    return (verdict - 1) / 4 if scale == "likert" else verdict / 10


def scale_of(judge: JudgeContent) -> str:
    """The judge's scale, `binary` unless its parameters say otherwise. Raises BadInput for an unknown one."""
    scale = judge.parameters.get("scale", "binary")
    if not isinstance(scale, str) or scale not in _SCALES:
        raise BadInput(f"judge {judge.model}: parameters.scale is {scale!r}; it is binary, likert or score")
    return scale


def shown_by(judge: JudgeContent, options: JudgeOptions) -> tuple[Shown, ...]:
    """
    What this judge sees besides the answer.

    Raises:
        BadInput: the judge's `parameters.show` is malformed, or the check's option contradicts it.
    """
    if "show" not in judge.parameters:
        return _DEFAULT if options.show is None else options.show
    governed = parse.build(
        {"show": judge.parameters["show"]}, JudgeOptions, source=f"judge {judge.model}: parameters"
    ).show
    if governed is None:
        raise BadInput(f"judge {judge.model}: parameters.show is null; list what it sees or remove the key")
    if options.show is not None and set(options.show) != set(governed):
        raise BadInput(
            f"judge {judge.model} was calibrated with show {', '.join(governed) or 'empty'}; the check asks "
            f"for {', '.join(options.show) or 'nothing'}: remove the option"
        )
    return governed


def needs_of(options: JudgeOptions) -> tuple[str, ...]:
    """The fields of a sample that the options ask for by name."""
    return tuple(name for name in ("query", "answers") if name in (options.show or ()))


def context(sample: Sample, output: Output, show: tuple[Shown, ...]) -> dict[str, str]:
    """Blocks of what is shown besides the answer; what the sample lacks is left out."""
    blocks: dict[str, str] = {}
    if "query" in show and sample.query:
        blocks["question"] = sample.query
    if "answers" in show:
        blocks |= {f"reference {number}": text for number, text in enumerate(sample.answers, 1)}
    if "passages" in show:
        blocks |= numbered(output.passages)
    return blocks


def meanings(blocks: Mapping[str, str], show: tuple[Shown, ...]) -> str:
    """A paragraph on what the blocks are; the same for all samples that have the same kinds."""
    kinds = {label.split()[0] for label in blocks}
    wanted: dict[Shown, str] = {"query": "question", "answers": "reference", "passages": "passage"}
    lines = [_MEANING[name] for name in wanted if name in show and kinds & {wanted[name], name}]
    return "\n".join(lines) + "\n\n" if lines else ""
