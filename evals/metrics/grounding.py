"""
How well an answer stands on its passages, and the passages on the question: by claims, one call each.

Every metric here is defined for every answer: what a judge cannot say is an error, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evals.dataset import Sample
from evals.judging.base import Bench
from evals.judging.claims import MOST_CLAIMS, numbered, support
from evals.judging.verdict import ask_json, present, question, shorten, struct
from evals.metrics.base import Metric, Scored
from evals.metrics.judge import judged
from evals.systems.base import Output

_GROUNDED = "You check whether the block `answer` rests on the passages it was written from."
_RECALLED = (
    "You check whether passages hold what a good answer needs. The block `reference` is an accepted answer "
    "to `question`; where it is a bare name, number or yes/no, read it as a full sentence that answers it."
)

_STATEMENTS = struct(
    statements={
        "type": "array",
        "maxItems": MOST_CLAIMS,
        "items": struct(
            statement={"type": "string", "minLength": 1, "maxLength": 2_000},
            bears={"type": "boolean"},
        ),
    },
    reason={"type": "string", "minLength": 1},
    answered={"type": "string", "enum": ["no", "partly", "fully"]},
)
_RELEVANCE = f"""\
You judge whether the block `answer` answers the block `question`. Whether it is true is not your concern.

1. statements: every statement of the answer, in order, at most {MOST_CLAIMS}; bears is true only if the \
statement helps to answer this question. An answer that is empty has no statements.
2. reason: in at most two sentences, what was asked and what of it the answer gives.
3. answered: `fully` if every part of the question is answered, `partly` if some part is, `no` if none is: \
an answer that refuses, evades or only says that it does not know is `no`."""
_PORTION = {"no": 0.0, "partly": 0.5, "fully": 1.0}

_PRECISION = """\
You judge passages that a search returned for the block `question`. {goal}

For every passage, in order: number, a reason of at most one sentence, and relevant: true only if the \
passage holds something that {use}. A passage on the same topic that does not is not relevant."""


@dataclass(frozen=True, slots=True)
class _Goal:
    """What a passage is judged against."""

    goal: str
    use: str


_WITH = _Goal(
    "The block `reference` is an accepted answer.", "the accepted answer states or can be derived from"
)
_WITHOUT = _Goal("No accepted answer is known.", "answers the question or a part of it")


async def _groundedness(_sample: Sample, output: Output, bench: Bench) -> Scored:
    if not output.text.strip():
        return Scored(1.0, "no factual claims", {"claims": []})
    found = await support(bench, _GROUNDED, "answer", {"answer": output.text}, output.passages)
    return Scored(_or_one(found.share), shorten(found.reason), found.details)


async def _context_recall(sample: Sample, output: Output, bench: Bench) -> Scored:
    if not output.passages:
        return Scored(0.0, "no passages")
    blocks = {"question": sample.query, "reference": sample.answers[0]}
    found = await support(bench, _RECALLED, "reference", blocks, output.passages)
    return Scored(_or_one(found.share), shorten(found.reason), found.details)


async def _answer_relevance(sample: Sample, output: Output, bench: Bench) -> Scored:
    if not output.text.strip():
        return Scored(0.0, "the answer is empty", {"statements": [], "answered": "no"})
    shown = present({"question": sample.query, "answer": output.text})
    reply = await ask_json(bench, question(_RELEVANCE, shown, _STATEMENTS), _STATEMENTS, check=_answering)
    bearing = [item["bears"] for item in reply["statements"]]
    score = balance(sum(bearing) / len(bearing) if bearing else 0.0, _PORTION[reply["answered"]])
    details = {"statements": reply["statements"], "answered": reply["answered"]}
    return Scored(score, shorten(reply["reason"]), details | shown.details)


async def _context_precision(sample: Sample, output: Output, bench: Bench) -> Scored:
    count = len(output.passages)
    if not count:
        return Scored(0.0, "no passages", {"passages": []})
    goal = _WITH if sample.answers else _WITHOUT
    blocks = {"question": sample.query}
    if sample.answers:
        blocks["reference"] = sample.answers[0]
    shown = present(blocks | numbered(output.passages))
    schema = struct(
        passages={
            "type": "array",
            "items": struct(
                number={"type": "integer"}, reason={"type": "string"}, relevant={"type": "boolean"}
            ),
        },
    )

    def every_passage_once(reply: Any) -> str | None:  # noqa: ANN401
        if [item["number"] for item in reply["passages"]] != list(range(1, count + 1)):
            return f"passages must hold the numbers 1 to {count}, in order, each once"
        return None

    task = _PRECISION.format(goal=goal.goal, use=goal.use)
    reply = await ask_json(bench, question(task, shown, schema), schema, check=every_passage_once)
    marks = [item["relevant"] for item in reply["passages"]]
    details = {"passages": [{**item, "reason": shorten(item["reason"])} for item in reply["passages"]]}
    reason = f"{sum(marks)} of {count} passages relevant"
    return Scored(average_precision(marks), reason, details | shown.details)


def average_precision(marks: Sequence[bool]) -> float:
    """
    How near the top the relevant ones of a ranking stand, in [0, 1].

        AP = Σ_k (precision@k · v_k) / Σ_k v_k,  v_k = 1 where rank k is relevant

    0 where none is relevant. Source: the ContextPrecision of RAGAS 0.4, whose 1e-10 in the denominator is
    left out. What was not retrieved does not count: that is recall.

    >>> [average_precision([True, False]), average_precision([False, True]), average_precision([False])]
    [1.0, 0.5, 0.0]
    """
    found, total = 0, 0.0
    for rank, relevant in enumerate(marks, 1):
        if relevant:
            found += 1
            total += found / rank
    return total / found if found else 0.0


def balance(bearing: float, answered: float) -> float:
    """
    The harmonic mean of the share of statements that bear on the question and of how much of it is answered.

        2 · b · a / (b + a), 0 where both are 0

    Both must be high: chatter lowers the first, evasion the second. Source: the F-measure, van Rijsbergen
    1979, Information Retrieval, chapter 7, with the two in place of precision and recall.

    >>> [balance(1.0, 1.0), balance(0.5, 1.0), balance(1.0, 0.0), balance(0.0, 0.0)]
    [1.0, 0.6666666666666666, 0.0, 0.0]
    """
    return 2 * bearing * answered / (bearing + answered) if bearing + answered else 0.0


def _answering(reply: Any) -> str | None:  # noqa: ANN401
    if reply["answered"] != "no" and not any(item["bears"] for item in reply["statements"]):
        return "if answered is partly or fully, at least one statement must bear on the question"
    return None


def _or_one(share: float | None) -> float:
    return 1.0 if share is None else share


groundedness: Metric = judged("groundedness", _groundedness, systems=("rag",))
"""
The share of the answer's atomic claims that a passage supports, by a quote that really stands there.

An answer without factual claims (empty, a refusal) is 1.0, with no claims in the details: it asserts nothing
that the passages do not bear out. Pair it with `answer_relevance`, where such an answer is 0. Claims without
any passage are 0.0. Details: each claim with `supported`, `quote` and, where a quote was made up, a `note`.
Source: the faithfulness of Es et al. 2024, EACL demonstrations ("RAGAS"), in one call and with quotes.
"""
answer_relevance: Metric = judged("answer_relevance", _answer_relevance, needs=("query",))
"""
Whether the answer answers what was asked, true or not: see `balance`. Empty answers and refusals are 0.0.

Details: each statement and whether it `bears` on the question; `answered`: no (0), partly (0.5), fully (1).
"""
context_precision: Metric = judged(
    "context_precision", _context_precision, systems=("rag",), needs=("query",)
)
"""
Whether relevant passages stand above the others: see `average_precision`. No passages is 0.0.

Relevant to the first accepted answer where the sample has one, else to the question; one call for all.
"""
context_recall: Metric = judged(
    "context_recall", _context_recall, systems=("rag",), needs=("query", "answers")
)
"""
The share of the claims in the first accepted answer that a passage supports, by a quote. No passages is 0.0.

A reference without factual claims needs nothing: 1.0.
"""
