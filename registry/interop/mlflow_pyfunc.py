"""
What MLflow runs of an exported model. Copied into each one, so it needs nothing of Sluicegate.

A DataFrame with one column per feature goes in; `label` and `probability_<class>` come out, the same
numbers that Sluicegate serves. MLflow's own ONNX wrapper cannot do that: it feeds columns of rank one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_FLOAT32_MAX = 3.4028234663852886e38


class Classifier:
    """A loaded model. Safe to call from many threads at once."""

    def __init__(self, folder: Path) -> None:
        """Load `model.onnx` and `sluicegate.json` of *folder*."""
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the library is loaded
        import onnxruntime

        content = json.loads((folder / "sluicegate.json").read_text(encoding="utf-8"))
        self.features: list[Mapping[str, Any]] = content["features"]
        self.classes: list[str] = content["classes"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = str(folder / "model.onnx")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._inputs = [given.name for given in self._session.get_inputs()]
        self._probabilities = self._session.get_outputs()[1].name

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """
        The most probable class of each row and the probability of every class; of equal ones the first.

        Args:
            params: none are known.

        Raises:
            ValueError: a value is missing where the model needs one, or is no finite number.
        """
        import numpy as np
        import pandas as pd

        if params:
            raise ValueError(f"params {sorted(params)} are unknown to this model")
        if not len(model_input):
            scores = np.empty((0, len(self.classes)), np.float32)
        else:
            feed = {}
            for name, feature in zip(self._inputs, self.features, strict=True):
                dtype = np.float32 if feature["dtype"] == "number" else object
                column = list(_column(feature, model_input))
                feed[name] = np.array(column, dtype=dtype).reshape(-1, 1)
            scores = self._session.run([self._probabilities], feed)[0]
        labels = [self.classes[index] for index in scores.argmax(axis=1)] if len(scores) else []
        columns: dict[str, Any] = {"label": np.array(labels, dtype=object)}
        for index, name in enumerate(self.classes):
            columns[f"probability_{name}"] = scores[:, index].astype("float64")
        return pd.DataFrame(columns, index=model_input.index)


def _load_pyfunc(path: str) -> Classifier:
    return Classifier(Path(path))


def _column(feature: Mapping[str, Any], table: pd.DataFrame) -> Iterable[str | float]:
    name, is_text, nullable = feature["name"], feature["dtype"] == "text", feature.get("nullable", True)
    given = table[name] if name in table.columns else [None] * len(table)
    for row, cell in enumerate(given):
        missing = cell is None or cell != cell or (is_text and not str(cell).strip())  # noqa: PLR0124 - NaN
        if missing and not nullable:
            raise ValueError(f"row {row}: {name!r} is missing")
        if is_text:
            yield "" if missing else str(cell)
            continue
        value = math.nan if missing else float(cell)
        if abs(value) > _FLOAT32_MAX:
            raise ValueError(f"row {row}: {name!r} is no number of 32 bits")
        yield value
