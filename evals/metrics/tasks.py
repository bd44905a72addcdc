"""Task benchmarks whose answers can be checked: multiple choice, and sums worked out in words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.metrics.base import Metric
from evals.metrics.structure import last_number
from evals.metrics.text import words
from evals.systems.base import Output

_LETTERS = "ABCDEFGHIJ"
_STATED = re.compile(r"(?:answer|choice|option)\s*(?:is|:|=)?\s*\**\s*\(?([A-J])\b\)?", re.IGNORECASE)
_ALONE = re.compile(r"^\W*\(?([A-Ja-j])\)?(?:[.):,\s]|$)")
_MARK = "####"


def chosen_letter(text: str, choices: Sequence[str]) -> str | None:
    """
    The letter that an answer to a multiple choice question names; None where it names none, or two.

    In this order: "answer is B" or "choice: (B)", a letter alone at the start, the whole text of one choice.

    >>> chosen_letter("The answer is (B).", ["red", "blue"]), chosen_letter("blue", ["red", "blue"])
    ('B', 'B')
    >>> chosen_letter("red or blue", ["red", "blue"]) is None
    True
    """
    letters = _LETTERS[: len(choices)]
    stated = {letter.upper() for letter in _STATED.findall(text)} & set(letters)
    if len(stated) == 1:
        return str(stated.pop())
    if len(stated) > 1:
        return None
    alone = _ALONE.match(text.strip())
    if alone and alone[1].upper() in letters and (alone[1].isupper() or len(text.strip()) <= 3):
        return str(alone[1]).upper()
    body = f" {' '.join(words(text))} "
    named = [
        letter
        for letter, choice in zip(letters, choices, strict=False)
        if (plain := " ".join(words(choice))) and f" {plain} " in body
    ]
    return named[0] if len(named) == 1 else None


def _choice(sample: Sample, output: Output, _k: int | None) -> float:
    choices = sample.get("choices")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(_LETTERS):
        raise ScoreFailed("no_choices")
    wanted = str(sample.expected).strip().upper()
    letter = _LETTERS[int(wanted)] if wanted.isdecimal() and int(wanted) < len(choices) else wanted
    return float(chosen_letter(output.text, [str(choice) for choice in choices]) == letter)


def final_number(text: str) -> float | None:
    """
    The number after the last `####`, else the last number of all: how GSM8K's solutions end.

    Source: Cobbe et al. 2021, arXiv 2110.14168.

    >>> final_number("5 * 2 = 10, so 10 dollars. #### 10")
    10.0
    """
    tail = text.rpartition(_MARK)[2] if _MARK in text else text
    return last_number(tail.replace("$", ""))


def _gsm8k(sample: Sample, output: Output, _k: int | None) -> float:
    found = final_number(output.text)
    wanted = [final_number(gold) for gold in sample.answers]
    return float(
        found is not None
        and any(number is not None and math.isclose(found, number, rel_tol=1e-9) for number in wanted)
    )


choice = Metric("choice", ("chat",), ("choices", "expected"), score=_choice)
"""
1 where the answer names the right choice alone, else 0.

A row holds `choices` (2 to 10 texts) and `expected`: the right one's letter, or its position from 0.
"""
gsm8k = Metric("gsm8k", ("chat",), ("answers",), score=_gsm8k)
"""1 where the answer ends in the right number, else 0: see `final_number`."""
