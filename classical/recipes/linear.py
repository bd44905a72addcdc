"""`algorithm: linear`: logistic regression with an L2 penalty on standardised numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classical.params import FeatureParams, ModelParams
from classical.recipes import base

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def build(model: ModelParams, features: FeatureParams, *, jobs: int) -> Pipeline:  # noqa: ARG001 - one thread does
    """An unfitted logistic regression (solver lbfgs) behind the shared preprocessing and a scaler."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(
        C=model.c,
        class_weight=model.class_weight,
        max_iter=model.max_iter,
        random_state=model.random_state,
    )
    return base.pipeline(features, regression, number_steps=[("scale", StandardScaler())])
