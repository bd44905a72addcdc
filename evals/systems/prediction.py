"""Ask a classical release for labels through the Open Inference Protocol, version 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from evals.dataset import Sample, feature_types
from evals.errors import BadAnswer, BadDataset
from evals.systems.base import Call, Options, Output, pick
from registry.entities import ReleaseContent

BATCH = 64


class PredictionSystem:
    """Rows in batches of 64, one tensor a feature, missing values as null."""

    def __init__(self, options: Options) -> None:
        """Send columns of the types in *options*; others by their values."""
        self.features = options.features
        self.meta = {"classes": list(options.classes)} if options.classes else {}
        self.batch = 1 if options.alone else BATCH

    def suits(self, release: ReleaseContent) -> str | None:
        """None for prediction releases."""
        return None if release.kind == "prediction" else f"a {release.kind} release does not predict"

    def call(self, model: str, samples: Sequence[Sample]) -> Call:
        """
        `POST /v2/models/{model}/infer`: text as BYTES, numbers as FP64, null where missing.

        Raises:
            BadDataset: a value is not of its feature's type.
        """
        types = {**feature_types(samples), **self.features}
        names = list(dict.fromkeys(name for sample in samples for name in sample.features or {}))
        inputs = [
            {
                "name": name,
                "shape": [len(samples)],
                "datatype": "BYTES" if types[name] == "text" else "FP64",
                "data": [_value(sample, name, types[name]) for sample in samples],
            }
            for name in names
        ]
        return Call(f"/v2/models/{quote(model, safe='@:')}/infer", {"inputs": inputs})

    def read(self, body: Any, samples: Sequence[Sample], latency_ms: float) -> list[Output]:  # noqa: ANN401
        """The tensors `label` and, where there is one, `probability`, split by row."""
        tensors = {pick(tensor, "name", kind=str): tensor for tensor in pick(body, "outputs", kind=list)}
        labels = _flat(pick(tensors, "label", "data", kind=list))
        if len(labels) != len(samples) or not all(isinstance(label, str) for label in labels):
            raise BadAnswer(f"the answer's label tensor has not one text for each of {len(samples)} rows")
        shares = _flat(pick(tensors, "probability", "data", kind=list)) if "probability" in tensors else []
        width = len(shares) // len(samples)
        if len(shares) != width * len(samples) or not all(isinstance(p, int | float) for p in shares):
            raise BadAnswer("the answer's probability tensor has not the same numbers for each row")
        return [
            Output(
                latency_ms=latency_ms,
                label=label,
                probabilities=tuple(map(float, shares[row * width : (row + 1) * width])),
                meta=self.meta,
            )
            for row, label in enumerate(labels)
        ]


def _value(sample: Sample, name: str, kind: str) -> str | float | None:
    value = (sample.features or {}).get(name)
    if value is None or isinstance(value, str) == (kind == "text"):
        return value
    if kind == "text" and isinstance(value, int):
        return str(value)
    raise BadDataset(f"sample {sample.id!r}: feature {name!r} is {value!r}, but the model takes {kind}")


def _flat(data: list[Any]) -> list[Any]:
    """A tensor's data may be nested or flat, by the protocol."""
    return [item for row in data for item in (row if isinstance(row, list) else [row])]
