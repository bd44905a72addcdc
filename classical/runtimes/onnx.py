"""`format: onnx`: ONNX Runtime on the CPU, without telemetry and without idle spinning threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from classical.errors import ModelUnusable
from classical.runtimes.base import Column, Scorer
from registry import plugins
from registry.entities import ModelContent

if TYPE_CHECKING:
    import onnxruntime as ort

_TYPES = {"text": "tensor(string)", "number": "tensor(float)"}


def load(data: bytes, content: ModelContent, *, threads: int) -> Scorer:
    """
    A scorer over an ONNX classifier.

    Inputs are bound by position, one `(n, 1)` tensor per feature, so column names may be anything.
    Of its two outputs, label and probabilities, only the probabilities are read.

    Args:
        threads: worker threads of one call, at least 1; calls from several threads add up.

    Raises:
        ModelUnusable: not ONNX, or its inputs and classes are not those of *content*.
        MissingExtra: onnxruntime is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the library is loaded
    try:
        import numpy as np
        import onnxruntime as ort
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "classical") from error

    options = ort.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelUnusable(f"model {content.artifact}: not a loadable ONNX file") from error
    names, probabilities = _signature(session, content)
    dtypes = [np.float32 if feature.dtype == "number" else object for feature in content.features]

    def score(columns: Sequence[Column]) -> list[list[float]]:
        feed = {
            name: np.array(column, dtype=dtype).reshape(-1, 1)
            for name, dtype, column in zip(names, dtypes, columns, strict=True)
        }
        rows: list[list[float]] = session.run([probabilities], feed)[0].tolist()
        return rows

    return score


def _signature(session: ort.InferenceSession, content: ModelContent) -> tuple[list[str], str]:
    """Names of the inputs in order, and of the output that holds the probabilities."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if [item.type for item in inputs] != [_TYPES[feature.dtype] for feature in content.features]:
        raise ModelUnusable(
            f"model {content.artifact}: its {len(inputs)} inputs are not the "
            f"{len(content.features)} registered features"
        )
    if len(outputs) != 2 or outputs[1].type != "tensor(float)":
        raise ModelUnusable(f"model {content.artifact}: its outputs are not label and probabilities")
    if outputs[1].shape[-1] not in (None, len(content.classes)):
        raise ModelUnusable(
            f"model {content.artifact}: {outputs[1].shape[-1]} probabilities for "
            f"{len(content.classes)} registered classes"
        )
    return [item.name for item in inputs], outputs[1].name
