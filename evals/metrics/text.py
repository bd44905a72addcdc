"""How near an answer's text is to the accepted answers."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.dataset import Sample
from evals.metrics.base import Metric
from evals.systems.base import Output
from registry import parse

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """
    The words that count: lower case, without ASCII punctuation and English articles.

    Source: the normalisation of the SQuAD 1.1 evaluation script, Rajpurkar et al. 2016, EMNLP.

    >>> words("The Eiffel-Tower, in Paris.")
    ['eiffeltower', 'in', 'paris']
    """
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def overlap_f1(answer: str, accepted: Sequence[str]) -> float:
    """
    The best harmonic mean of word precision and recall against any accepted answer, in [0, 1].

    Source: Rajpurkar et al. 2016, EMNLP, section 6.1. Where either side has no words left the score
    is 1 if both have none, else 0, as in the SQuAD 2.0 script.

    >>> overlap_f1("It is in Paris.", ["Paris", "Paris, France"])
    0.4
    """
    return max((_f1(words(answer), words(gold)) for gold in accepted), default=0.0)


def _f1(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    common = (Counter(answer) & Counter(gold)).total()
    return 2 * common / (len(answer) + len(gold))


def holds_answer(answer: str, accepted: Sequence[str]) -> bool:
    """
    Whether the words of any accepted answer stand together, in order, in *answer*.

    >>> holds_answer("That was the Eiffel Tower!", ["Eiffel tower"])
    True
    """
    found = f" {' '.join(words(answer))} "
    return any(gold and f" {' '.join(gold)} " in found for gold in map(words, accepted))


def is_answer(answer: str, accepted: Sequence[str]) -> bool:
    """
    Whether *answer* has exactly the words of an accepted answer. Source: SQuAD's exact match.

    Punctuation and articles do not count: 1.5 is 15, -5 is 5, and no text is A. Where they matter,
    use `equals`, `numeric` or `choice`.
    """
    return any(words(answer) == words(gold) for gold in accepted)


def _token_f1(sample: Sample, output: Output, _k: int | None) -> float:
    return overlap_f1(output.text, sample.answers)


def _contains(sample: Sample, output: Output, _k: int | None) -> float:
    return float(holds_answer(output.text, sample.answers))


def _exact(sample: Sample, output: Output, _k: int | None) -> float:
    return float(is_answer(output.text, sample.answers))


@dataclass(frozen=True, slots=True)
class EqualsOptions:
    """Options of `equals`."""

    case_sensitive: bool = True
    strip: bool = True
    """Whether white space around the text does not count."""


def equals(options: Mapping[str, Any]) -> Metric:
    """1 where the text is an accepted answer, character for character, else 0."""
    chosen = parse.build(options, EqualsOptions, source="options of equals")

    def plain(text: str) -> str:
        text = text.strip() if chosen.strip else text
        return text if chosen.case_sensitive else text.casefold()

    def score(sample: Sample, output: Output, _k: int | None) -> float:
        return float(plain(output.text) in map(plain, sample.answers))

    return Metric("equals", ("chat",), ("answers",), score=score)


token_f1 = Metric("token_f1", ("chat",), ("answers",), score=_token_f1)
"""SQuAD F1 in [0, 1]: see `overlap_f1`."""
contains = Metric("contains", ("chat",), ("answers",), score=_contains)
"""1 where an accepted answer stands in the text, else 0: see `holds_answer`."""
exact = Metric("exact", ("chat",), ("answers",), score=_exact)
"""1 where the text is an accepted answer, else 0: see `is_answer`."""
