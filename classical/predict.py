"""
Predictions of a registered model: validate rows, turn them into columns, score them.

Needs the model's runtime and nothing of what trained it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from classical.errors import BadFeatures
from classical.runtimes.base import FLOAT32_MAX, Column, Runtime, Scorer
from registry import plugins
from registry.artifacts import Artifacts
from registry.entities import Feature, ModelContent


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers in the order of the rows."""

    labels: tuple[str, ...]
    """The most probable class of each row; of equal ones the first."""
    indices: tuple[int, ...]
    """The same as positions in the model's classes."""
    probabilities: tuple[tuple[float, ...], ...]
    """One per class and row, in the order of the model's classes."""


class Predictor:
    """
    A loaded model. Every method may be called from many threads at once.

    Attributes:
        features: what each row must hold, in the order of the model's inputs.
        classes: what a row may turn out to be.
    """

    def __init__(self, content: ModelContent, scorer: Scorer) -> None:
        """Serve *scorer* under the names of *content*; see `load_predictor`."""
        self.features: tuple[Feature, ...] = content.features
        self.classes: tuple[str, ...] = content.classes
        self._names = frozenset(feature.name for feature in content.features)
        self._scorer = scorer

    def predict(self, rows: Sequence[Mapping[str, object]]) -> Predictions:
        """
        Predict *rows*: feature name → text, number, or None where the feature is nullable.

        Blank text counts as missing, as it did in training. A category that training never saw is
        taken. The number of rows is the caller's to bound; time and memory grow linearly with it.

        Raises:
            BadFeatures: a feature is missing, unknown, of the wrong type, null where it must not
                be, or a number that is not finite; the message names row and feature.
        """
        if not rows:
            return Predictions((), (), ())
        for index, row in enumerate(rows):
            if row.keys() != self._names:
                self._refuse_names(index, row)
        columns = [_column(feature, rows) for feature in self.features]
        probabilities = tuple(map(tuple, self._scorer(columns)))
        indices = tuple(row.index(max(row)) for row in probabilities)
        return Predictions(tuple(self.classes[index] for index in indices), indices, probabilities)

    def warm(self) -> None:
        """Score one empty row, so that the first real one does not pay for lazy set-up."""
        self._scorer([[""] if feature.dtype == "text" else [float("nan")] for feature in self.features])

    def _refuse_names(self, index: int, row: Mapping[str, object]) -> None:
        for feature in self.features:
            if feature.name not in row:
                raise BadFeatures(index, feature.name, f"missing; expected {_expected(feature)}")
        unknown = min(str(name) for name in row if name not in self._names)
        raise BadFeatures(index, unknown, "unknown; the model does not have it")


def load_predictor(content: ModelContent, artifacts: Artifacts, *, threads: int = 1) -> Predictor:
    """
    The model of *content*, read from *artifacts* and verified against its digest.

    Args:
        threads: worker threads of one prediction; more only pays for large batches.

    Raises:
        NotFound: the model's bytes are not in the store, or nothing runs its format.
        VersionTampered: the bytes were changed.
        ModelUnusable: the runtime cannot load them.
        MissingExtra: the runtime's own dependency is not installed.
    """
    data = artifacts.get(content.artifact)
    runtime = cast("Runtime", plugins.load("runtimes", content.format))
    return Predictor(content, runtime(data, content, threads=threads))


def _column(feature: Feature, rows: Sequence[Mapping[str, object]]) -> Column:
    cells = (row[feature.name] for row in rows)
    if feature.dtype == "text":
        return [_text(cell, index, feature) for index, cell in enumerate(cells)]
    return [_number(cell, index, feature) for index, cell in enumerate(cells)]


def _text(cell: object, index: int, feature: Feature) -> str:
    if cell is None:
        cell = ""
    if not isinstance(cell, str):
        raise BadFeatures(index, feature.name, f"expected {_expected(feature)}, got {_kind(cell)}")
    if cell and not cell.isspace():
        return cell
    if not feature.nullable:
        raise BadFeatures(index, feature.name, f"expected {_expected(feature)}, got nothing")
    return ""


def _number(cell: object, index: int, feature: Feature) -> float:
    if cell is None and feature.nullable:
        return float("nan")
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        raise BadFeatures(index, feature.name, f"expected {_expected(feature)}, got {_kind(cell)}")
    if not -FLOAT32_MAX <= cell <= FLOAT32_MAX:
        raise BadFeatures(index, feature.name, "expected a finite number of at most 3.4e38; null is missing")
    return float(cell)


def _expected(feature: Feature) -> str:
    return feature.dtype + (" or null" if feature.nullable else "")


def _kind(cell: object) -> str:
    names = {str: "text", bool: "true/false", type(None): "null", int: "a number", float: "a number"}
    return names.get(type(cell), type(cell).__name__)
