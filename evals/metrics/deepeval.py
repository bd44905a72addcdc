"""
DeepEval 4.3, its own prompts and arithmetic, over the suite's judge.

Install the extra `deepeval`. Nothing is sent but through the judge; DeepEval's telemetry, its `.env` files
and its writing of files are off. All its metrics are in [0, 1] and better when higher, also those for bias,
toxicity and hallucination. Where DeepEval would score an empty list of verdicts as 1, there is no score:
`deepeval_no_verdicts`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.judging.base import Bench
from evals.judging.foreign import Ear, load, require
from evals.judging.verdict import shorten
from evals.metrics.base import Metric, Scored
from evals.systems.base import Output
from registry import parse
from registry.errors import BadInput

_ENVIRONMENT = {
    "DEEPEVAL_TELEMETRY_OPT_OUT": "1",
    "DEEPEVAL_DISABLE_DOTENV": "1",
    "DEEPEVAL_FILE_SYSTEM": "READ_ONLY",
}
_Field = Literal["query", "answers", "passages"]
_HIGHEST = 10
"""GEval asks for 0 to 10."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of all DeepEval metrics but `deepeval_geval`."""

    include_reason: bool = False
    """Whether the judge also writes a reason: one call more."""


@dataclass(frozen=True, slots=True)
class OpinionOptions:
    """Options of `deepeval_bias` and `deepeval_toxicity`."""

    include_reason: bool = False
    """Whether the judge also writes a reason: one call more."""
    without_opinions: Literal["error", "pass"] = "error"
    """An answer in which the judge finds no opinion: `deepeval_no_verdicts`, or DeepEval's score of 1."""


@dataclass(frozen=True, slots=True)
class GEvalOptions:
    """Options of `deepeval_geval`. The criteria are the judge's rubric."""

    show: tuple[_Field, ...] = ("query", "answers")
    """What the judge sees besides the answer; fields the sample does not have are left out."""
    steps: tuple[str, ...] = ()
    """Evaluation steps; by default the judge derives them from the rubric, once a run with a cache."""

    def __post_init__(self) -> None:
        """Refuse what is listed twice."""
        if len(set(self.show)) < len(self.show):
            raise BadInput("show lists something twice")


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of DeepEval's metrics as the adapter sees it."""

    name: str
    of: str
    """Its class."""
    needs: tuple[str, ...]
    calls: int
    """Without a reason."""
    listed: str = ""
    """The attribute with what was to be judged, one verdict each; empty where that is not known."""
    passages: bool = False
    opinions: bool = False


def answer_relevancy(options: Mapping[str, Any]) -> Metric:
    """DeepEval 4.3 AnswerRelevancyMetric: the share of the answer's statements that bear on the question."""
    return _verdicts(options, _Kind("answer_relevancy", "AnswerRelevancyMetric", ("query",), 2, "statements"))


def faithfulness(options: Mapping[str, Any]) -> Metric:
    """DeepEval 4.3 FaithfulnessMetric: the share of the answer's claims no passage contradicts."""
    kind = _Kind("faithfulness", "FaithfulnessMetric", ("query",), 3, "claims", passages=True)
    return _verdicts(options, kind)


def hallucination(options: Mapping[str, Any]) -> Metric:
    """DeepEval 4.3 HallucinationMetric: the share of the passages with which the answer agrees; 1 is good."""
    kind = _Kind("hallucination", "HallucinationMetric", ("query",), 1, "context", passages=True)
    return _verdicts(options, kind)


def bias(options: Mapping[str, Any]) -> Metric:
    """DeepEval 4.3 BiasMetric: the share of the answer's opinions that are not biased; 1 is good."""
    return _verdicts(options, _Kind("bias", "BiasMetric", ("query",), 2, "opinions", opinions=True))


def toxicity(options: Mapping[str, Any]) -> Metric:
    """DeepEval 4.3 ToxicityMetric: the share of the answer's opinions that are not toxic; 1 is good."""
    return _verdicts(options, _Kind("toxicity", "ToxicityMetric", ("query",), 2, "opinions", opinions=True))


def contextual_precision(options: Mapping[str, Any]) -> Metric:
    """DeepEval 4.3 ContextualPrecisionMetric: average precision of the passages, by the first answer."""
    needs = ("query", "answers")
    kind = _Kind("contextual_precision", "ContextualPrecisionMetric", needs, 1, "context", passages=True)
    return _verdicts(options, kind)


def contextual_recall(options: Mapping[str, Any]) -> Metric:
    """DeepEval 4.3 ContextualRecallMetric: the share of the first answer's sentences the passages hold."""
    kind = _Kind("contextual_recall", "ContextualRecallMetric", ("query", "answers"), 1, passages=True)
    return _verdicts(options, kind)


def contextual_relevancy(options: Mapping[str, Any]) -> Metric:
    """DeepEval 4.3 ContextualRelevancyMetric: the share of the passages' statements on the question."""
    kind = _Kind("contextual_relevancy", "ContextualRelevancyMetric", ("query",), 5, passages=True)
    return _verdicts(options, kind)


def geval(options: Mapping[str, Any]) -> Metric:
    """
    DeepEval 4.3 GEval: the judge's 0 to 10 by its rubric, as a tenth, without token probabilities.

    Two calls, one with `steps`; the steps of a rubric are asked for once a run where there is a cache. A
    number outside 0 to 10 is malformed.

    Source: Liu et al. 2023, G-Eval, arXiv:2303.16634; the weighting by probabilities is left out, because not
    every server tells them.
    """
    chosen = _build(options, GEvalOptions, "deepeval_geval")

    async def rate(sample: Sample, output: Output, bench: Bench) -> Scored:
        library, cases = _library()
        ear = Ear(bench, "deepeval", _within_range)
        case, fields = _case(cases, sample, output, chosen.show)
        metric = _quiet(
            library.GEval,
            name="rubric",
            evaluation_params=fields,
            criteria=bench.judge.rubric,
            evaluation_steps=list(chosen.steps) or None,
            model=_judge_class()(ear),
        )
        await ear.listen(metric.a_measure(case, _show_indicator=False))
        if not metric.evaluation_steps:
            raise ScoreFailed("deepeval_malformed", "the judge derived no steps from its rubric")
        return _scored(ear, metric)

    calls = 1 if chosen.steps else 2
    return Metric("deepeval_geval", ("chat", "rag"), (), rate=rate, calls=calls)


def _verdicts(options: Mapping[str, Any], kind: _Kind) -> Metric:
    """A metric that lists things and has each judged."""
    shape = OpinionOptions if kind.opinions else Options
    chosen = _build(options, shape, f"deepeval_{kind.name}")

    async def rate(sample: Sample, output: Output, bench: Bench) -> Scored:
        if kind.passages and not output.passages:
            raise ScoreFailed("deepeval_no_passages", "the output holds no passages")
        library, cases = _library()
        ear = Ear(bench, "deepeval")
        metric = _quiet(
            getattr(library, kind.of), model=_judge_class()(ear), include_reason=chosen.include_reason
        )
        show: tuple[_Field, ...] = ("query", "answers", "passages")
        case, _ = _case(cases, sample, output, show)
        await ear.listen(metric.a_measure(case, _show_indicator=False))
        if not (kind.opinions and not metric.opinions and chosen.without_opinions == "pass"):
            _one_each(kind, metric, len(output.passages))
        return _scored(ear, metric)

    calls = kind.calls + chosen.include_reason
    return Metric(f"deepeval_{kind.name}", ("chat", "rag"), kind.needs, rate=rate, calls=calls)


def _one_each(kind: _Kind, metric: Any, passages: int) -> None:  # noqa: ANN401
    """Refuse a score of no verdicts, or of more or fewer than there were things to judge."""
    groups = [group.verdicts for group in getattr(metric, "verdicts_list", ())] or [metric.verdicts]
    if not all(groups):
        raise ScoreFailed("deepeval_no_verdicts", "the judge gave no verdicts")
    if not kind.listed:
        return
    expected = passages if kind.listed == "context" else len(getattr(metric, kind.listed))
    if len(groups[0]) != expected:
        raise ScoreFailed("deepeval_malformed", f"{len(groups[0])} verdicts on {expected} things")


def _scored(ear: Ear, metric: Any) -> Scored:  # noqa: ANN401
    value = ear.number(metric.score, 0.0, 1.0)
    details = {"library": f"deepeval {load('deepeval', _ENVIRONMENT).__version__}", "replies": ear.heard}
    return Scored(value, shorten(metric.reason or ""), details)


def _case(cases: Any, sample: Sample, output: Output, show: tuple[_Field, ...]) -> tuple[Any, list[Any]]:  # noqa: ANN401
    """DeepEval's test case, and which of its fields are filled."""
    if not output.text.strip():
        raise ScoreFailed("deepeval_empty_answer", "the answer is empty")
    names = cases.SingleTurnParams
    fields = [names.ACTUAL_OUTPUT]
    answer = sample.answers[0] if "answers" in show and sample.answers else None
    passages = list(output.passages) if "passages" in show and output.passages else None
    for field, given in (
        (names.INPUT, sample.query if "query" in show else ""),
        (names.EXPECTED_OUTPUT, answer),
        (names.RETRIEVAL_CONTEXT, passages),
    ):
        if given:
            fields.append(field)
    case = _quiet(
        cases.LLMTestCase,
        input=sample.query,
        actual_output=output.text,
        expected_output=answer,
        retrieval_context=passages,
        context=passages,
    )
    return case, fields


def _within_range(reply: Any) -> str | None:  # noqa: ANN401
    score = getattr(reply, "score", 0)
    return None if 0 <= score <= _HIGHEST else f"score must be 0 to {_HIGHEST}"


def _build(options: Mapping[str, Any], shape: type[Any], name: str) -> Any:  # noqa: ANN401
    require("deepeval")
    return parse.build(options, shape, source=f"options of {name}")


def _quiet(make: Callable[..., Any], **given: Any) -> Any:  # noqa: ANN401
    """What *make* returns; DeepEval warns once a process that its scores changed direction in version 4."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(**given)


def _library() -> tuple[Any, Any]:
    """DeepEval's metrics and test cases."""
    get = partial(load, environment=_ENVIRONMENT)
    return get("deepeval.metrics"), get("deepeval.test_case")


@cache
def _judge_class() -> type[Any]:
    """A model that DeepEval takes as its own."""
    models = load("deepeval.models", _ENVIRONMENT)

    class BenchModel(models.DeepEvalBaseLLM):  # type: ignore[name-defined, misc]
        def __init__(self, ear: Ear) -> None:
            self.ear = ear
            super().__init__(ear.bench.judge.model)

        def load_model(self) -> Any:  # noqa: ANN401
            return self

        def get_model_name(self) -> str:
            return str(self.ear.bench.judge.model)

        def supports_log_probs(self) -> bool:
            return False

        def supports_structured_outputs(self) -> bool:
            return True

        def generate(self, *_prompt: Any, **_more: Any) -> Any:  # noqa: ANN401
            raise ScoreFailed("deepeval_failed", "DeepEval made a blocking call")

        async def a_generate(self, prompt: str, schema: Any = None) -> Any:  # noqa: ANN401
            return await self.ear.ask(prompt, schema)

        async def a_generate_with_schema(self, prompt: str, schema: Any = None) -> Any:  # noqa: ANN401
            """As `a_generate`; DeepEval's own asks again without the schema after a TypeError."""
            return await self.ear.ask(prompt, schema)

    return BenchModel
