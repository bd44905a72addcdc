"""Questions that a model writes for passages of a corpus: checked against them, and marked synthetic."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.curate.dedupe import Index, Rarity, Shingles, words
from evals.errors import ScoreFailed
from evals.judging.base import Bench
from evals.judging.verdict import ask_json, present, question, struct
from registry.errors import BadInput
from registry.ids import digest

TASK = (
    "The passage of the next message is from a collection of documents that people search. Write one "
    "question that somebody who has not seen the passage might ask, that this passage answers completely, "
    "and that makes sense without it: name what it is about instead of saying this passage or the text. Do "
    "not copy a sentence of the passage. Write in the passage's language. Give the shortest complete answer, "
    "and quote word for word the part of the passage that supports it."
)
SCHEMA = struct(
    question={"type": "string", "minLength": 1},
    answer={"type": "string", "minLength": 1},
    quote={"type": "string", "minLength": 1},
)
COPIED = 6
"""So many words in a row of the passage make a question a copy of it."""
ALIKE = 0.8
"""Similarity from which a question repeats an earlier one."""
_LEAST_QUESTION_WORDS = 3
_MOST_QUESTION = 400
_AT_ONCE = 32
_MOST_TOKENS = 400


@dataclass(frozen=True, slots=True)
class Source:
    """A passage to ask about."""

    id: str
    document_id: str
    """What retrieval is judged by: the row's `relevant`."""
    text: str


@dataclass(frozen=True, slots=True)
class Synthesis:
    """Rows, and what was not fit to be one."""

    rows: tuple[Mapping[str, Any], ...]
    asked: int
    """Passages that a question was asked for."""
    dropped: Mapping[str, int]
    """
    Reason → passages: `quote_not_in_passage`, `answer_not_supported`, `copies_passage`, `repeats_another`,
    `too_short`, `too_long`, or the kind of a failed call such as `judge_malformed`.
    """


async def synthesize(
    bench: Bench,
    passages: Sequence[Source],
    n: int,
    *,
    seed: str = "",
    done: Callable[[int], None] = lambda _count: None,
) -> Synthesis:
    """
    Up to *n* rows, one a passage, of passages in an order that *seed* alone decides; fewer when they run out.

    A row has `query`, `answers` and `relevant`, is marked `synthetic: true`, and keeps under `provenance` the
    generator's model, the digest of its instructions, the passage and the quote. The same answers give the
    same rows, in whatever order they arrive.

    Args:
        done: told how many rows were added.

    Raises:
        BadInput: *n* is below 1, or there are no passages.
        CostCapReached: the purse of *bench* is empty; what was paid for is in its cache.
    """
    if n < 1 or not passages:
        raise BadInput(f"n is {n}, of {len(passages)} passages; both must be 1 or more")
    key = hashlib.sha256(seed.encode()).digest()
    order = sorted(
        passages, key=lambda one: hashlib.blake2b(one.id.encode(), key=key, digest_size=16).digest()
    )
    accepted = _Accepted(bench)
    asked = 0
    while asked < len(order) and len(accepted.rows) < n:
        wave = order[asked : asked + min(n - len(accepted.rows), _AT_ONCE)]
        asked += len(wave)
        found = await asyncio.gather(*(_write(bench, one) for one in wave), return_exceptions=True)
        broken = [one for one in found if isinstance(one, BaseException) and not isinstance(one, ScoreFailed)]
        if broken:
            raise broken[0]
        before = len(accepted.rows)
        for passage, written in zip(wave, found, strict=True):
            if isinstance(written, ScoreFailed):
                accepted.drop(written.kind)
            elif isinstance(written, dict):
                accepted.consider(passage, written)
        done(len(accepted.rows) - before)
    return Synthesis(tuple(accepted.rows), asked, dict(sorted(accepted.dropped.items())))


async def _write(bench: Bench, passage: Source) -> dict[str, str]:
    messages = question(TASK, present({"passage": passage.text}), SCHEMA)
    own = bench.judge.parameters
    most: dict[str, Any] = (
        {} if {"max_tokens", "max_completion_tokens"} & own.keys() else {"max_tokens": _MOST_TOKENS}
    )
    found: dict[str, str] = await ask_json(bench, messages, SCHEMA, **most)
    return found


class _Accepted:
    """Rows so far, and why others are none."""

    def __init__(self, bench: Bench) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.dropped: dict[str, int] = {}
        self._judge = bench.judge
        self._prompt = digest({"task": TASK, "schema": SCHEMA})
        self._shingles = Shingles()
        self._index = Index(ALIKE, Rarity())

    def drop(self, reason: str) -> None:
        """Count a passage without a row."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def consider(self, passage: Source, written: Mapping[str, str]) -> None:
        """Make a row of what was written, or count why not."""
        reason = fault(passage.text, written)
        hashes = self._shingles.of(written["question"])
        if reason is None and self._index.matches(hashes):
            reason = "repeats_another"
        if reason is not None:
            self.drop(reason)
            return
        self._index.add(len(self.rows), hashes)
        self.rows.append(
            {
                "id": f"synthetic-{digest([passage.id, written['question']])[7:23]}",
                "query": written["question"].strip(),
                "answers": [written["answer"].strip()],
                "relevant": [passage.document_id],
                "synthetic": True,
                "provenance": {
                    "generator": self._judge.model,
                    "prompt": self._prompt,
                    "passage": passage.id,
                    "passage_digest": digest(passage.text),
                    "quote": written["quote"].strip(),
                },
            }
        )


def fault(passage: str, written: Mapping[str, str]) -> str | None:
    """
    Why a question, answer and quote are no row for *passage*, or None: see `Synthesis.dropped`.

    Case, punctuation and white space do not count.

    >>> written = {"question": "What is the fee?", "answer": "5 euros", "quote": "6 euros"}
    >>> fault("The fee is 5 euros.", written)
    'quote_not_in_passage'
    """
    text, asked = words(passage), words(written["question"])
    quote, answer = words(written["quote"]), words(written["answer"])
    if not quote or not _stands_in(quote, text):
        return "quote_not_in_passage"
    if not answer or not set(answer) & set(text):
        return "answer_not_supported"
    if len(asked) < _LEAST_QUESTION_WORDS and len(written["question"].strip()) < 8:
        return "too_short"
    if len(written["question"]) > _MOST_QUESTION:
        return "too_long"
    grams = {tuple(text[i : i + COPIED]) for i in range(len(text) - COPIED + 1)}
    if any(tuple(asked[i : i + COPIED]) in grams for i in range(len(asked) - COPIED + 1)):
        return "copies_passage"
    return None


def _stands_in(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether the words of *part* stand in *whole* one after the other."""
    size = len(part)
    return any(whole[start : start + size] == part for start in range(len(whole) - size + 1))
