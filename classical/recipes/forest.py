"""`algorithm: random_forest`: bagged decision trees (Breiman 2001, Machine Learning 45, 5-32)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classical.params import FeatureParams, ModelParams
from classical.recipes import base

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def build(model: ModelParams, features: FeatureParams, *, jobs: int) -> Pipeline:
    """An unfitted random forest behind the shared preprocessing; trees grow on *jobs* threads."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(
        n_estimators=model.n_estimators,
        max_depth=model.max_depth,
        min_samples_split=model.min_samples_split,
        min_samples_leaf=model.min_samples_leaf,
        class_weight=model.class_weight,
        random_state=model.random_state,
        n_jobs=jobs,
    )
    return base.pipeline(features, forest)
