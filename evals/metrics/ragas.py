"""
RAGAS 0.4.3, its own prompts and arithmetic, over the suite's judge.

Install the extra `ragas`. Nothing is sent but through the judge; RAGAS' telemetry is off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
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

_ENVIRONMENT = {"RAGAS_DO_NOT_TRACK": "true"}
_BITS = ("verdict", "attributed", "noncommittal")
"""Fields that RAGAS declares as any integer and means as 0 or 1."""
_Ascore = Callable[[Any, Sample, Output, Ear], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class NoOptions:
    """This metric takes no options."""


@dataclass(frozen=True, slots=True)
class RelevancyOptions:
    """Options of `ragas_answer_relevancy`."""

    strictness: int = 3
    """How many questions are guessed from the answer, 1 to 10."""

    def __post_init__(self) -> None:
        """Refuse a strictness that asks nothing, or too much."""
        if not 1 <= self.strictness <= 10:
            raise BadInput(f"strictness is {self.strictness}; it is 1 to 10")


@dataclass(frozen=True, slots=True)
class FactualOptions:
    """Options of `ragas_factual_correctness`, as RAGAS names them."""

    mode: Literal["f1", "precision", "recall"] = "f1"
    atomicity: Literal["low", "high"] = "low"
    coverage: Literal["low", "high"] = "low"


def faithfulness(options: Mapping[str, Any]) -> Metric:
    """
    RAGAS 0.4.3 Faithfulness: the share of the answer's statements that the passages support, in [0, 1].

    Two calls. No statement in the answer, or no verdict, is `ragas_nan`.
    """
    _build(options, NoOptions, "ragas_faithfulness")

    async def ascore(library: Any, sample: Sample, output: Output, ear: Ear) -> Any:  # noqa: ANN401
        return await library.Faithfulness(llm=_model(ear)).ascore(
            user_input=sample.query, response=_answer(output), retrieved_contexts=_passages(output)
        )

    return _metric("ragas_faithfulness", ascore, needs=("query",), calls=2)


def answer_relevancy(options: Mapping[str, Any]) -> Metric:
    """
    RAGAS 0.4.3 AnswerRelevancy: how near questions guessed from the answer are to the one asked, as the mean
    cosine in [-1, 1]; 0 where the answer commits to nothing.

    Up to `strictness` calls and two of the embedder; one call where the judge's temperature is 0, because its
    answers would be equal. A judge that guesses no question at all is `ragas_no_verdicts`.
    """
    chosen = _build(options, RelevancyOptions, "ragas_answer_relevancy")

    async def ascore(library: Any, sample: Sample, output: Output, ear: Ear) -> Any:  # noqa: ANN401
        metric = library.AnswerRelevancy(
            llm=_model(ear), embeddings=_embeddings(ear, {}), strictness=chosen.strictness
        )
        found = await metric.ascore(user_input=sample.query, response=_answer(output))
        if not any(reply["question"] for reply in ear.heard):
            raise ScoreFailed("ragas_no_verdicts", "the judge guessed no question")
        return found

    calls = chosen.strictness + 2
    return _metric("ragas_answer_relevancy", ascore, needs=("query",), calls=calls, embeds=True, low=-1.0)


def context_precision(options: Mapping[str, Any]) -> Metric:
    """
    RAGAS 0.4.3 ContextPrecision: whether useful passages stand before useless ones, as average precision in
    [0, 1], judged by the first accepted answer. One call a passage.
    """
    _build(options, NoOptions, "ragas_context_precision")

    async def ascore(library: Any, sample: Sample, output: Output, ear: Ear) -> Any:  # noqa: ANN401
        return await library.ContextPrecision(llm=_model(ear)).ascore(
            user_input=sample.query, reference=sample.answers[0], retrieved_contexts=_passages(output)
        )

    return _metric("ragas_context_precision", ascore, needs=("query", "answers"), calls=5)


def context_recall(options: Mapping[str, Any]) -> Metric:
    """
    RAGAS 0.4.3 ContextRecall: the share of the first accepted answer's statements that the passages hold, in
    [0, 1]. One call.
    """
    _build(options, NoOptions, "ragas_context_recall")

    async def ascore(library: Any, sample: Sample, output: Output, ear: Ear) -> Any:  # noqa: ANN401
        return await library.ContextRecall(llm=_model(ear)).ascore(
            user_input=sample.query, reference=sample.answers[0], retrieved_contexts=_passages(output)
        )

    return _metric("ragas_context_recall", ascore, needs=("query", "answers"))


def factual_correctness(options: Mapping[str, Any]) -> Metric:
    """
    RAGAS 0.4.3 FactualCorrectness: agreement of the answer's claims with those of the first accepted answer,
    in [0, 1], rounded by RAGAS to two decimals.

    Four calls; two in mode `precision`. Claims that were found but not judged, or no claims at all, are
    `ragas_no_verdicts`: RAGAS would score 0.
    """
    chosen = _build(options, FactualOptions, "ragas_factual_correctness")

    async def ascore(library: Any, sample: Sample, output: Output, ear: Ear) -> Any:  # noqa: ANN401
        metric = library.FactualCorrectness(
            llm=_model(ear), mode=chosen.mode, atomicity=chosen.atomicity, coverage=chosen.coverage
        )
        found = await metric.ascore(response=_answer(output), reference=sample.answers[0])
        if not any(reply.get("statements") for reply in ear.heard):
            raise ScoreFailed("ragas_no_verdicts", "the judge found no claim")
        return found

    calls = 2 if chosen.mode == "precision" else 4
    return _metric("ragas_factual_correctness", ascore, needs=("answers",), calls=calls)


def semantic_similarity(options: Mapping[str, Any]) -> Metric:
    """
    RAGAS 0.4.3 SemanticSimilarity: the cosine of the embeddings of the answer and the first accepted answer,
    in [-1, 1]. One call of the embedder, none of the judge.
    """
    _build(options, NoOptions, "ragas_semantic_similarity")

    async def ascore(library: Any, sample: Sample, output: Output, ear: Ear) -> Any:  # noqa: ANN401
        texts = [sample.answers[0], _answer(output)]
        known = dict(zip(texts, await ear.vectors(texts), strict=True))
        metric = library.SemanticSimilarity(embeddings=_embeddings(ear, known))
        return await metric.ascore(reference=sample.answers[0], response=_answer(output))

    return _metric("ragas_semantic_similarity", ascore, needs=("answers",), embeds=True, low=-1.0)


def _build(options: Mapping[str, Any], shape: type[Any], name: str) -> Any:  # noqa: ANN401
    require("ragas")
    return parse.build(options, shape, source=f"options of {name}")


def _metric(name: str, ascore: _Ascore, *, needs: tuple[str, ...], low: float = 0.0, **more: Any) -> Metric:  # noqa: ANN401
    async def rate(sample: Sample, output: Output, bench: Bench) -> Scored:
        library = load("ragas.metrics.collections", _ENVIRONMENT)
        ear = Ear(bench, "ragas")
        ear.check = _Counter(ear).wrong
        found = await ear.listen(ascore(library, sample, output, ear))
        value = ear.number(found.value, low, 1.0)
        version = load("ragas", _ENVIRONMENT).__version__
        details = {"library": f"ragas {version}", "replies": ear.heard}
        return Scored(value, shorten(found.reason or ""), details)

    return Metric(name, ("chat", "rag"), needs, low=low, rate=rate, **more)


@dataclass(slots=True)
class _Counter:
    """Finds replies that RAGAS would score though they do not answer its question."""

    ear: Ear

    def wrong(self, reply: Any) -> str | None:  # noqa: ANN401
        """Verdicts are 0 or 1, and there is one for each statement that was just found."""
        found = reply.model_dump()
        rows = [found, *(row for rows in found.values() if isinstance(rows, list) for row in rows)]
        for row in rows:
            if isinstance(row, dict) and any(row.get(key, 0) not in (0, 1) for key in _BITS):
                return "verdicts are 0 or 1"
        asked = _texts(self.ear.heard[-1]) if self.ear.heard else []
        if asked and len(found.get("statements", ())) != len(asked):
            return f"there are {len(asked)} statements to judge"
        return None


def _texts(reply: Mapping[str, Any]) -> Sequence[str]:
    """The statements or claims in a reply that lists them unjudged."""
    listed = reply.get("statements", reply.get("claims", []))
    return listed if listed and isinstance(listed[0], str) else []


def _answer(output: Output) -> str:
    if not output.text.strip():
        raise ScoreFailed("ragas_empty_answer", "the answer is empty")
    return output.text


def _passages(output: Output) -> list[str]:
    if not output.passages:
        raise ScoreFailed("ragas_no_passages", "the output holds no passages")
    return list(output.passages)


def _model(ear: Ear) -> Any:  # noqa: ANN401
    return _classes()[0](ear)


def _embeddings(ear: Ear, known: Mapping[str, list[float]]) -> Any:  # noqa: ANN401
    return _classes()[1](ear, known)


@cache
def _classes() -> tuple[type[Any], type[Any]]:
    """A model and an embedder that RAGAS takes as its own."""
    llms = load("ragas.llms.base", _ENVIRONMENT)
    embeddings = load("ragas.embeddings.base", _ENVIRONMENT)

    class BenchModel(llms.InstructorBaseRagasLLM):  # type: ignore[name-defined, misc]
        def __init__(self, ear: Ear) -> None:
            self.ear = ear

        def generate(self, *_prompt: Any, **_more: Any) -> Any:  # noqa: ANN401
            raise ScoreFailed("ragas_failed", "RAGAS made a blocking call")

        async def agenerate(self, prompt: str, response_model: Any) -> Any:  # noqa: ANN401
            return await self.ear.ask(prompt, response_model)

    class BenchEmbeddings(embeddings.BaseRagasEmbedding):  # type: ignore[name-defined, misc]
        def __init__(self, ear: Ear, known: Mapping[str, list[float]]) -> None:
            super().__init__()
            self.ear = ear
            self.known = known

        def embed_text(self, text: str, **_more: Any) -> list[float]:  # noqa: ANN401
            return self.known[text]

        async def aembed_text(self, text: str, **_more: Any) -> list[float]:  # noqa: ANN401
            return (await self.ear.vectors([text]))[0]

        async def aembed_texts(self, texts: list[str], **_more: Any) -> list[list[float]]:  # noqa: ANN401
            return await self.ear.vectors(texts)

    return BenchModel, BenchEmbeddings
