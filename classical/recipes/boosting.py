"""
`algorithm: gradient_boosting`: shallow trees, each fitted to what those before it got wrong.

Source: Friedman 2001, Annals of Statistics 29(5), 1189-1232. The exact splitter is taken, not the one
over histograms: it reads 32-bit numbers as the packaged model does, so both take every branch alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from classical.params import FeatureParams, ModelParams
from classical.recipes import base

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

DEPTH = 3
"""Levels of a tree where `model.max_depth` is null: boosting wants weak trees, a forest deep ones."""


def build(model: ModelParams, features: FeatureParams, *, jobs: int) -> Pipeline:  # noqa: ARG001 - each tree needs the one before
    """Unfitted boosted trees behind the shared preprocessing."""
    from sklearn.ensemble import GradientBoostingClassifier

    boosting = GradientBoostingClassifier(
        n_estimators=model.n_estimators,
        learning_rate=model.learning_rate,
        max_depth=DEPTH if model.max_depth is None else model.max_depth,
        min_samples_split=model.min_samples_split,
        min_samples_leaf=model.min_samples_leaf,
        random_state=model.random_state,
    )
    return base.pipeline(features, boosting)
