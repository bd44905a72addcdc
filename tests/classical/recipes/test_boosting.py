from __future__ import annotations

import pytest

from classical.params import FeatureParams, ModelParams
from classical.recipes import boosting
from registry.errors import BadInput

FEATURES = FeatureParams("y", ("a",), ("b",))


def test_every_parameter_reaches_the_trees() -> None:
    model = ModelParams(
        "gradient_boosting",
        3,
        n_estimators=7,
        max_depth=2,
        min_samples_split=4,
        min_samples_leaf=2,
        learning_rate=0.5,
    )
    settings = boosting.build(model, FEATURES, jobs=2)[-1].get_params()
    expected = {
        "random_state": 3,
        "n_estimators": 7,
        "max_depth": 2,
        "min_samples_split": 4,
        "min_samples_leaf": 2,
        "learning_rate": 0.5,
    }
    assert expected == {name: settings[name] for name in expected}


def test_no_depth_means_weak_trees() -> None:
    model = ModelParams("gradient_boosting", max_depth=None)
    assert boosting.build(model, FEATURES, jobs=1)[-1].get_params()["max_depth"] == 3


def test_class_weights_are_refused_since_nothing_would_read_them() -> None:
    with pytest.raises(BadInput, match=r"class_weight 'balanced': gradient_boosting weighs no classes"):
        ModelParams("gradient_boosting", class_weight="balanced")


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5])
def test_a_learning_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(BadInput, match="learning_rate"):
        ModelParams("gradient_boosting", learning_rate=rate)
