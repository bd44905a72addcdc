from __future__ import annotations

from typing import cast

import pandas as pd
import pytest

from classical.params import FeatureParams, ModelParams
from classical.recipes.base import Recipe
from registry import plugins

FEATURES = FeatureParams("y", ("colour",), ("size",))
ROWS = pd.DataFrame({"colour": ["red", "", "blue", "red"], "size": [1.0, None, 3.0, 5.0]}).astype(
    {"size": "float32"}
)


@pytest.mark.parametrize("name", plugins.names("recipes"))
def test_a_recipe_takes_text_gaps_and_unseen_categories(name: str) -> None:
    recipe = cast("Recipe", plugins.load("recipes", name))
    pipeline = recipe(ModelParams(name, n_estimators=5), FEATURES, jobs=1).fit(ROWS, [0, 1, 1, 0])
    unseen = ROWS.assign(colour="never seen")
    assert pipeline.predict_proba(unseen).shape == (4, 2)


@pytest.mark.parametrize("name", plugins.names("recipes"))
def test_a_recipe_is_seeded(name: str) -> None:
    recipe = cast("Recipe", plugins.load("recipes", name))
    answers = [
        recipe(ModelParams(name, n_estimators=5), FEATURES, jobs=jobs)
        .fit(ROWS, [0, 1, 1, 0])
        .predict_proba(ROWS)
        .tolist()
        for jobs in (1, 2)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", plugins.names("recipes"))
def test_a_missing_number_counts_as_the_training_median(name: str) -> None:
    recipe = cast("Recipe", plugins.load("recipes", name))
    pipeline = recipe(ModelParams(name, n_estimators=5), FEATURES, jobs=1).fit(ROWS, [0, 1, 1, 0])
    gap, median = ROWS.iloc[[1]], ROWS.iloc[[1]].assign(size=3.0).astype({"size": "float32"})
    assert pipeline.predict_proba(gap).tolist() == pipeline.predict_proba(median).tolist()
