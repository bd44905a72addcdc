"""Answers that people have judged, read from a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any, Literal

from evals.dataset import Sample
from evals.errors import BadDataset
from evals.systems.base import Output

Scale = Literal["binary", "likert", "score", "pairwise"]
CLASSES: Mapping[Scale, tuple[str, ...]] = {
    "binary": ("bad", "good"),
    "likert": tuple(map(str, range(1, 6))),
    "score": tuple(map(str, range(11))),
    "pairwise": ("first", "tie", "second"),
}
"""The labels of each scale, in order."""
_SAME: Mapping[str, str] = {
    **dict.fromkeys(("good", "pass", "true", "yes", "1", "correct", "right"), "good"),
    **dict.fromkeys(("bad", "fail", "false", "no", "0", "incorrect", "wrong"), "bad"),
}
_SAME_PAIR: Mapping[str, str] = {"first": "first", "1": "first", "second": "second", "2": "second",
                                 "tie": "tie", "0": "tie"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer, or two to choose from, with what people said."""

    sample: Sample
    output: Output
    labels: Mapping[str, str]
    """Who gave which label; people without names are `person 1` and so on."""
    label: str | None
    """What most said (on a scale of numbers the lower median); None where they are split evenly."""
    rival: Output | None = None
    """The second answer, where people chose between two."""


def labelled(samples: Iterable[Sample], scale: Scale) -> list[Labelled]:
    """
    The samples as people judged them.

    Each row has `id`, `answer` and `label`, or `labels` where several people judged: a list, or a mapping by
    name. `query`, `answers` (accepted ones) and `passages` (or one text `context`) are shown to the judge as
    its rubric asks. `rival` is the second answer where people chose between two. Labels are good or bad (also
    pass/fail, true/false, yes/no, 1/0), whole numbers of the judge's scale, or first, second or tie (also
    1, 2, 0).

    Raises:
        BadDataset: names the row's id and its field.
    """
    return [_row(sample, scale) for sample in samples]


def scale_of_labels(sample: Sample, scale: str) -> Scale:
    """The judge's *scale*, or `pairwise` where the row holds two answers."""
    if sample.has("rival"):
        return "pairwise"
    return "likert" if scale == "likert" else "score" if scale == "score" else "binary"


def settled(labels: Sequence[str], scale: Scale) -> str | None:
    """
    The one label for several people's: what most said, or the lower median of numbers.

    >>> settled(["good", "bad", "good"], "binary"), settled(["good", "bad"], "binary")
    ('good', None)
    """
    if scale in ("likert", "score"):
        return str(median_low([int(label) for label in labels]))
    (top, most), *rest = Counter(labels).most_common(2)
    return None if rest and rest[0][1] == most else top


def _row(sample: Sample, scale: Scale) -> Labelled:
    at = f"row {sample.id!r}"
    answer = sample.get("answer")
    if not isinstance(answer, str):
        raise BadDataset(f"{at}: answer must be text, the answer that people judged")
    rival = sample.get("rival")
    if (scale == "pairwise") != isinstance(rival, str):
        raise BadDataset(f"{at}: rival must be text in every row or in none")
    labels = _labels(sample, scale, at)
    passages = _passages(sample, at)
    return Labelled(
        sample,
        Output(0.0, answer, passages=passages),
        labels,
        settled(list(labels.values()), scale),
        Output(0.0, rival, passages=passages) if isinstance(rival, str) else None,
    )


def _labels(sample: Sample, scale: Scale, at: str) -> dict[str, str]:
    several, one = sample.get("labels"), sample.get("label")
    if (several is None) == (one is None):
        raise BadDataset(f"{at}: give either label or labels")
    named: Iterable[tuple[str, Any]]
    if several is None:
        named = [("person 1", one)]
    elif isinstance(several, Mapping):
        named = several.items()
    elif isinstance(several, list):
        named = [(f"person {number}", value) for number, value in enumerate(several, 1)]
    else:
        raise BadDataset(f"{at}: labels must be a list or a mapping by name")
    found = {str(name): _label(value, scale, at) for name, value in named if value is not None}
    if not found:
        raise BadDataset(f"{at}: labels is empty")
    return found


def _label(value: object, scale: Scale, at: str) -> str:
    plain = str(value).strip().lower() if isinstance(value, str | int) else ""
    same = _SAME if scale == "binary" else _SAME_PAIR if scale == "pairwise" else {}
    plain = same.get(plain, plain)
    if plain not in CLASSES[scale]:
        raise BadDataset(f"{at}: label {str(value)[:40]!r} is none of {', '.join(CLASSES[scale])}")
    return plain


def _passages(sample: Sample, at: str) -> tuple[str, ...]:
    value = sample.get("passages") if sample.has("passages") else sample.get("context")
    if value is None:
        return ()
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise BadDataset(f"{at}: passages must be a list of text, context one text")
    return tuple(found)
