from __future__ import annotations

from classical.params import FeatureParams, ModelParams
from classical.recipes import linear


def test_every_parameter_reaches_the_regression() -> None:
    model = ModelParams("linear", 3, "balanced", c=0.5, max_iter=50)
    settings = linear.build(model, FeatureParams("y", ("a",), ("b",)), jobs=4)[-1].get_params()
    expected = {"random_state": 3, "class_weight": "balanced", "C": 0.5, "max_iter": 50}
    assert expected == {name: settings[name] for name in expected}
