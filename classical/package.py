"""
Package a fitted pipeline as ONNX: one file with its preprocessing inside, and no pickle.

Equal pipelines give equal bytes: names come from positions, operator sets are pinned, and nothing
of the machine or the hour is written. The file is then proven to answer like what was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from classical import data, quality, train
from classical.errors import ParityFailed
from classical.params import Params
from classical.predict import Predictor
from classical.train import Fitted
from registry import plugins
from registry.entities import Feature, ModelContent

if TYPE_CHECKING:
    import pandas as pd

OPSETS = {"": 21, "ai.onnx.ml": 3}
"""Newest operator sets a packaged model may use: ONNX 1.16 and later run them."""
TOLERANCE = 1e-4
"""Largest difference of a probability that 32-bit arithmetic may cause."""
MAX_VALUES = 256
"""A text feature with more categories than this is recorded as open."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely the packaged model repeats the trained one on the hold-out."""

    rows: int
    max_delta: float
    """Largest absolute difference of a probability."""
    ties: int
    """Rows where both models give two classes the same probability within the tolerance, and so
    may name either."""


def to_onnx(fitted: Fitted, params: Params) -> bytes:
    """
    The fitted pipeline as an ONNX model with one `(n, 1)` input per feature, in their order.

    Outputs are the position of the class, and probabilities `(n, classes)`.

    Raises:
        MissingExtra: skl2onnx is not installed.
    """
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "classical") from error

    features = params.features
    inputs = [(name, StringTensorType([None, 1])) for name in features.categorical_features]
    inputs += [(name, FloatTensorType([None, 1])) for name in features.numerical_features]
    model = convert_sklearn(
        fitted.pipeline,
        name="sluicegate",
        initial_types=inputs,
        target_opset=OPSETS,
        options={id(fitted.pipeline[-1]): {"zipmap": False}},
    )
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:]
    opsets = sorted(model.opset_import, key=lambda opset: opset.domain)  # the converter's order is random
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    packed: bytes = model.SerializeToString(deterministic=True)
    return packed


def features_of(frame: pd.DataFrame, params: Params) -> tuple[Feature, ...]:
    """What each input of the model may hold, as seen in the training side *frame*."""
    text = (_text_feature(frame[name], params) for name in params.features.categorical_features)
    numbers = (
        Feature(
            name,
            "number",
            nullable=quality.nullable(name, params),
            minimum=float(frame[name].min()),
            maximum=float(frame[name].max()),
        )
        for name in params.features.numerical_features
    )
    return (*text, *numbers)


def content_of(
    fitted: Fitted, frame: pd.DataFrame, artifact: str, params: Params, training: Mapping[str, Any]
) -> ModelContent:
    """The content of the ModelVersion: *artifact* and everything needed to call it."""
    return ModelContent("onnx", artifact, features_of(frame, params), fitted.classes, training)


def check_parity(
    fitted: Fitted, predictor: Predictor, holdout: pd.DataFrame, params: Params
) -> tuple[Parity, tuple[tuple[float, ...], ...]]:
    """
    Compare both models on every held-out row.

    Returns:
        The comparison, and the packaged model's probabilities: what a caller will be served.

    Raises:
        ParityFailed: a label differs although the classes are not tied, or a probability differs
            by more than 0.0001.
    """
    rows = data.plain_rows(holdout, params)
    served = predictor.predict(rows).probabilities
    trained = fitted.pipeline.predict_proba(train.matrix(holdout, params.features)).tolist()
    max_delta, ties, different = 0.0, 0, 0
    for here, there in zip(served, trained, strict=True):
        max_delta = max(max_delta, *(abs(a - b) for a, b in zip(here, there, strict=True)))
        tied = _margin(there) <= 2 * TOLERANCE
        ties += tied
        different += not tied and here.index(max(here)) != there.index(max(there))
    if different or max_delta > TOLERANCE:
        raise ParityFailed(
            f"the packaged model differs from the trained one on the hold-out: {different} labels, "
            f"probabilities by up to {max_delta:.2g} (allowed: {TOLERANCE:g}); numbers too large for "
            "32 bits are the usual cause: rescale those columns"
        )
    return Parity(len(rows), max_delta, ties), served


def _margin(probabilities: Sequence[float]) -> float:
    first, second = sorted(probabilities, reverse=True)[:2]
    return first - second


def _text_feature(column: pd.Series, params: Params) -> Feature:
    name = str(column.name)
    values = sorted(column.dropna().unique())
    known = tuple(values) if len(values) <= MAX_VALUES else ()
    return Feature(name, "text", nullable=quality.nullable(name, params), values=known)
