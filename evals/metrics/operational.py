"""What an answer costs in time."""

from __future__ import annotations

import math

from evals.dataset import Sample
from evals.metrics.base import Metric
from evals.systems.base import Output


def _latency_ms(_sample: Sample, output: Output, _k: int | None) -> float:
    return output.latency_ms


latency_ms = Metric(
    "latency_ms",
    ("chat", "retrieval", "prediction"),
    (),
    high=math.inf,
    higher_is_better=False,
    digits=0,
    score=_latency_ms,
)
"""
Milliseconds from sending a request to its last byte, in the attempt that was answered.

A cached output keeps the latency it was measured with; `--no-cache` measures again.
"""
