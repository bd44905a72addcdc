"""
Fit a recipe on the training side and judge it by cross-validation.

Everything random is seeded and linear algebra runs on one thread, so equal rows and parameters give
equal models on one machine whatever its load; only trees grow in parallel, which cannot change them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from classical import data
from classical.errors import BadData
from classical.params import FeatureParams, Params
from classical.recipes.base import Recipe
from registry import plugins

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from sklearn.pipeline import Pipeline

DIGITS = 6
"""Decimals a metric is rounded to: beyond them lies the noise of floating-point sums."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model fitted on the whole training side."""

    pipeline: Pipeline
    """Predicts positions in *classes*."""
    classes: tuple[str, ...]
    """Sorted, the positive class last."""
    metrics: Mapping[str, float]
    """`cv_<metric>_mean` and `_std` over the folds, `validation_<metric>`, `<metric>` elsewhere."""


def fit(
    frame: pd.DataFrame, params: Params, *, jobs: int = 1, tick: Callable[[int], None] = lambda _done: None
) -> Fitted:
    """
    The recipe of `model.algorithm` fitted on *frame*, with what cross-validation says about it.

    Args:
        frame: the training side; never the hold-out.
        jobs: threads that grow trees.
        tick: called with 1 after each of the `steps(params)` fits.

    Raises:
        BadData: fewer than two classes, a class with fewer rows than folds, or a numerical column
            without any value.
        NotFound: no recipe has that name.
        MissingExtra: scikit-learn is not installed.
    """
    recipe = cast("Recipe", plugins.load("recipes", params.model.algorithm))
    classes = _classes(frame, params)
    expected = frame[params.features.target].map(classes.index).to_numpy()
    rows = matrix(frame, params.features)

    def fitted(rows: pd.DataFrame, expected: np.ndarray) -> Pipeline:
        pipeline = recipe(params.model, params.features, jobs=jobs).fit(rows, expected)
        pipeline.set_params(**{key: 1 for key in pipeline.get_params() if key.endswith("__n_jobs")})
        tick(1)
        return pipeline

    try:
        threads = importlib.import_module("threadpoolctl")
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "classical") from error
    with threads.threadpool_limits(limits=1):
        metrics = _cross_validated(rows, expected, params, classes, fitted)
        metrics |= _validated(frame, rows, expected, params, classes, fitted)
        return Fitted(fitted(rows, expected), classes, metrics)


def steps(params: Params) -> int:
    """How many fits `fit` makes: one per fold, one for the validation split, one on everything."""
    return params.training.cross_validation_folds + bool(params.training.validation_split) + 1


def matrix(frame: pd.DataFrame, features: FeatureParams) -> pd.DataFrame:
    """The model's input columns as it will get them when it serves: text, and 32-bit numbers."""
    text = frame[list(features.categorical_features)].fillna("")
    return text.join(frame[list(features.numerical_features)].astype("float32"))


def score(
    expected: Sequence[int], probabilities: Sequence[Sequence[float]], params: Params, classes: Sequence[str]
) -> dict[str, float]:
    """
    The metrics of `training.metrics` for the most probable class of each row, in [0, 1].

    Plain precision, recall and f1 are averaged over classes weighted by their rows, `_macro` ones
    unweighted; a class never predicted counts 0. With a positive class also `<metric>_positive`
    and `roc_auc`, the probability that a positive row scores above a negative one.

    Source: Sokolova and Lapalme 2009, Information Processing & Management 45(4), 427-437; ROC AUC
    as the Mann-Whitney statistic, Hanley and McNeil 1982, Radiology 143(1), 29-36.
    """
    from sklearn import metrics

    predicted = [list(row).index(max(row)) for row in probabilities]
    scorers = {"precision": metrics.precision_score, "recall": metrics.recall_score, "f1": metrics.f1_score}
    result: dict[str, float] = {}
    for name in params.training.metrics:
        if name == "accuracy":
            result[name] = float(metrics.accuracy_score(expected, predicted))
            continue
        measure, _, average = name.partition("_")
        value = scorers[measure](expected, predicted, average=average or "weighted", zero_division=0)
        result[name] = float(value)
    positive = params.features.positive_class
    if positive is not None:
        which = classes.index(positive)
        truth = [index == which for index in expected]
        for name, scorer in scorers.items():
            claimed = [index == which for index in predicted]
            result[f"{name}_positive"] = float(scorer(truth, claimed, zero_division=0))
        if 0 < sum(truth) < len(truth):
            result["roc_auc"] = float(metrics.roc_auc_score(truth, [row[which] for row in probabilities]))
    return rounded(result)


def majority_accuracy(train: Sequence[str], holdout: Sequence[str]) -> float:
    """
    Accuracy on *holdout* of always answering the most frequent class of *train*; ties by name.

    >>> majority_accuracy(["no", "no", "yes"], ["no", "yes", "yes", "no"])
    0.5
    """
    most = min(set(train), key=lambda name: (-list(train).count(name), name))
    return round(sum(name == most for name in holdout) / len(holdout), DIGITS)


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics to six decimals, so that they may enter a digest."""
    return {name: round(value, DIGITS) for name, value in metrics.items()}


def _classes(frame: pd.DataFrame, params: Params) -> tuple[str, ...]:
    target, positive = params.features.target, params.features.positive_class
    counts = {str(name): int(count) for name, count in frame[target].value_counts().items()}
    if len(counts) < 2:
        raise BadData(f"column {target!r} holds {len(counts)} class; a classifier needs two")
    if positive is not None and positive not in counts:
        raise BadData(f"positive_class {positive!r} is not in column {target!r}: {', '.join(sorted(counts))}")
    folds = params.training.cross_validation_folds
    rare = min(counts, key=lambda name: (counts[name], name))
    if counts[rare] < folds:
        raise BadData(
            f"class {rare!r} has {counts[rare]} training rows, fewer than the {folds} folds of "
            "training.cross_validation_folds"
        )
    for column in params.features.numerical_features:
        if frame[column].isna().all():
            raise BadData(f"numerical column {column!r} has no value in the training rows; leave it out")
    return tuple(sorted(counts, key=lambda name: (name == positive, name)))


Fit = Callable[["pd.DataFrame", "np.ndarray"], "Pipeline"]


def _cross_validated(
    rows: pd.DataFrame, expected: np.ndarray, params: Params, classes: Sequence[str], fitted: Fit
) -> dict[str, float]:
    """Mean and population deviation of each metric over stratified, shuffled folds."""
    from statistics import fmean, pstdev

    from sklearn.model_selection import StratifiedKFold

    folds = params.training.cross_validation_folds
    if not folds:
        return {}
    seen: dict[str, list[float]] = {}
    order = StratifiedKFold(folds, shuffle=True, random_state=params.data.random_state)
    for inside, outside in order.split(rows, expected):
        model = fitted(rows.iloc[inside], expected[inside])
        answers = model.predict_proba(rows.iloc[outside])
        for name, value in score(expected[outside].tolist(), answers.tolist(), params, classes).items():
            seen.setdefault(name, []).append(value)
    means = {f"cv_{name}_mean": fmean(values) for name, values in seen.items()}
    return rounded(means | {f"cv_{name}_std": pstdev(values) for name, values in seen.items()})


def _validated(
    frame: pd.DataFrame,
    rows: pd.DataFrame,
    expected: np.ndarray,
    params: Params,
    classes: Sequence[str],
    fitted: Fit,
) -> dict[str, float]:
    """Each metric on `training.validation_split` of the training rows, chosen by hash of the id."""
    import numpy as np

    share = params.training.validation_split
    if not share:
        return {}
    outside = np.array(data.held_out(frame, share, params, purpose="validation"))
    if outside.all() or len(set(expected[~outside])) < len(classes):
        raise BadData(f"training.validation_split {share:g} leaves a class without rows; add rows")
    if not outside.any():
        raise BadData(f"training.validation_split {share:g} holds no row; add rows")
    answers = fitted(rows[~outside], expected[~outside]).predict_proba(rows[outside])
    scores = score(expected[outside].tolist(), answers.tolist(), params, classes)
    return {f"validation_{name}": value for name, value in scores.items()}
