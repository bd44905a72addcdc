"""How much text two answers share: ROUGE-L by our own count, BLEU and chrF by sacrebleu."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from evals.dataset import Sample
from evals.metrics.base import Metric
from evals.systems.base import Output
from registry import plugins

_WORD = re.compile(r"[a-z0-9]+")


def rouge_l_f(answer: str, accepted: Sequence[str]) -> float:
    """
    The best F-measure of the longest common subsequence of words with any accepted answer, in [0, 1].

    Words are runs of a-z and 0-9 in lower case, without stemming, as in Google's `rouge_score`: text of
    other alphabets has none, and scores 0 even where it is equal. Use `chrf` there.

    Source: Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries, ACL workshop, section 3.

    >>> round(rouge_l_f("police killed the gunman", ["police kill the gunman"]), 2)
    0.75
    """
    words = _WORD.findall(answer.lower())
    return max((_f(words, _WORD.findall(gold.lower())) for gold in accepted), default=0.0)


def _f(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return 0.0
    common = _common(answer, gold)
    return 2 * common / (len(answer) + len(gold))


def _common(first: list[str], second: list[str]) -> int:
    """
    The length of the longest common subsequence, one row of the table in one integer.

    Source: Hyyrö 2004, Australasian Workshop on Combinatorial Algorithms, 16-27.
    """
    places: dict[str, int] = {}
    for at, word in enumerate(second):
        places[word] = places.get(word, 0) | 1 << at
    whole = (1 << len(second)) - 1
    row = whole
    for word in first:
        kept = row & places.get(word, 0)
        row = (row + kept | row - kept) & whole
    return len(second) - row.bit_count()


@cache
def _scorer(name: str) -> Any:  # noqa: ANN401
    try:
        import sacrebleu
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "evals") from error
    if name == "bleu":
        return sacrebleu.BLEU(effective_order=True)
    return sacrebleu.CHRF()


def _rouge_l(sample: Sample, output: Output, _k: int | None) -> float:
    return rouge_l_f(output.text, sample.answers)


def _bleu(sample: Sample, output: Output, _k: int | None) -> float:
    return _percent(_scorer("bleu").sentence_score(output.text, list(sample.answers)).score)


def _chrf(sample: Sample, output: Output, _k: int | None) -> float:
    return _percent(_scorer("chrf").sentence_score(output.text, list(sample.answers)).score)


def _percent(score: float) -> float:
    return min(max(float(score) / 100, 0.0), 1.0)


rouge_l = Metric("rouge_l", ("chat",), ("answers",), score=_rouge_l)
"""ROUGE-L F-measure in [0, 1]: see `rouge_l_f`."""
bleu = Metric("bleu", ("chat",), ("answers",), score=_bleu, cpu_heavy=True)
"""
Sentence BLEU against all accepted answers, in [0, 1], with effective order and exponential smoothing.

Source: Papineni et al. 2002, ACL; Post 2018, WMT, for sacrebleu, whose code runs (extra `evals`).
"""
chrf = Metric("chrf", ("chat",), ("answers",), score=_chrf, cpu_heavy=True)
"""
Character n-gram F-score (chrF2) against the accepted answers, in [0, 1], by sacrebleu (extra `evals`).

Source: Popović 2015, WMT.
"""
