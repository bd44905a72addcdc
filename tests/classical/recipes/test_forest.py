from __future__ import annotations

from classical.params import FeatureParams, ModelParams
from classical.recipes import forest

FEATURES = FeatureParams("y", ("a",), ("b",))


def test_every_parameter_reaches_the_trees() -> None:
    model = ModelParams(
        "random_forest",
        3,
        "balanced",
        n_estimators=7,
        max_depth=2,
        min_samples_split=4,
        min_samples_leaf=2,
    )
    settings = forest.build(model, FEATURES, jobs=2)[-1].get_params()
    expected = {
        "random_state": 3,
        "class_weight": "balanced",
        "n_estimators": 7,
        "max_depth": 2,
        "min_samples_split": 4,
        "min_samples_leaf": 2,
        "n_jobs": 2,
    }
    assert expected == {name: settings[name] for name in expected}
