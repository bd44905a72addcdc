"""What a recipe is, and the preprocessing that built-in recipes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from classical.params import FeatureParams, ModelParams

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline


class Recipe(Protocol):
    """
    Builds an unfitted scikit-learn Pipeline that skl2onnx can convert.

    Its input is a frame of `features.columns`: text cells are str, missing ones ""; number cells
    are float32, missing ones NaN. Its last step is a classifier with `predict_proba`. Everything
    random in it is seeded from `model.random_state`; *jobs* threads may not change the result.
    """

    def __call__(self, model: ModelParams, features: FeatureParams, *, jobs: int) -> Pipeline:
        """The pipeline for these parameters."""
        ...


def pipeline(
    features: FeatureParams,
    estimator: BaseEstimator,
    *,
    number_steps: Sequence[tuple[str, BaseEstimator]] = (),
) -> Pipeline:
    """
    One-hot text, numbers with gaps filled by the training median, then *estimator*.

    A category that training never saw becomes all zeros. *number_steps* follow the imputation.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    numbers = Pipeline([("fill", SimpleImputer(strategy="median")), *number_steps])
    both = [
        ("text", OneHotEncoder(handle_unknown="ignore"), list(features.categorical_features)),
        ("number", numbers, list(features.numerical_features)),
    ]
    columns = ColumnTransformer([part for part in both if part[2]])
    return Pipeline([("columns", columns), ("model", estimator)])
