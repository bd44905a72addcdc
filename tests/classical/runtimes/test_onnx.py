from __future__ import annotations

import math
from dataclasses import replace

import pytest

from classical.errors import ModelUnusable
from classical.runtimes import onnx
from tests.classical.conftest import Model


def test_probabilities_come_per_row_and_sum_to_one(model: Model) -> None:
    content = model.trained.content
    scorer = onnx.load(model.artifacts.get(content.artifact), content, threads=2)
    rows = scorer([["red", ""], ["basic", "full plan"], [70.0, 20.0], [math.nan, 5.0]])
    assert [round(sum(row), 5) for row in rows] == [1.0, 1.0]
    assert rows[0][0] > 0.5 > rows[1][0]


@pytest.mark.parametrize("data", [b"", b"not onnx", b"\x80\x04\x95pickle"])
def test_other_bytes_are_refused(model: Model, data: bytes) -> None:
    with pytest.raises(ModelUnusable, match="not a loadable ONNX file"):
        onnx.load(data, model.trained.content, threads=1)


def test_a_model_with_other_inputs_or_classes_is_refused(model: Model) -> None:
    content = model.trained.content
    data = model.artifacts.get(content.artifact)
    with pytest.raises(ModelUnusable, match="its 4 inputs are not the 3 registered features"):
        onnx.load(data, replace(content, features=content.features[1:]), threads=1)
    with pytest.raises(ModelUnusable, match="its 4 inputs are not the 4 registered features"):
        onnx.load(data, replace(content, features=content.features[::-1]), threads=1)
    with pytest.raises(ModelUnusable, match="2 probabilities for 3 registered classes"):
        onnx.load(data, replace(content, classes=("a", "b", "c")), threads=1)
