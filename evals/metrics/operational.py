"""What an answer costs in time."""

from __future__ import annotations

import math

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.metrics.base import Metric, Score
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


def _ttft_ms(_sample: Sample, output: Output, _k: int | None) -> float:
    if output.ttft_ms is None:
        raise ScoreFailed("not_streamed")
    return output.ttft_ms


def _cost_usd(_sample: Sample, output: Output, _k: int | None) -> float:
    if output.cost_usd is None:
        raise ScoreFailed("unpriced")
    return output.cost_usd


def _completion_tokens(_sample: Sample, output: Output, _k: int | None) -> float:
    _require_usage(output)
    return float(output.completion_tokens)


def _prompt_tokens(_sample: Sample, output: Output, _k: int | None) -> float:
    _require_usage(output)
    return float(output.prompt_tokens)


def _output_tokens_per_s(_sample: Sample, output: Output, _k: int | None) -> float:
    _require_usage(output)
    if output.latency_ms <= 0:
        raise ScoreFailed("no_latency")
    return output.completion_tokens / output.latency_ms * 1000


def _require_usage(output: Output) -> None:
    """Raise ScoreFailed where no tokens were reported: no request has none at all."""
    if not output.prompt_tokens + output.completion_tokens:
        raise ScoreFailed("no_usage")


def _operational(name: str, score: Score, digits: int = 0, *, more: bool = False) -> Metric:
    return Metric(name, ("chat",), (), high=math.inf, higher_is_better=more, digits=digits, score=score)


ttft_ms = _operational("ttft_ms", _ttft_ms)
"""Milliseconds to the first token, where the answer was streamed."""
cost_usd = _operational("cost_usd", _cost_usd, 6)
"""Dollars an answer cost, as the gateway says; no score where it knows no price."""
completion_tokens = _operational("completion_tokens", _completion_tokens)
"""Tokens of the answer, as the model reported; no score where it reported none."""
prompt_tokens = _operational("prompt_tokens", _prompt_tokens)
"""Tokens of the prompt, as the model reported; no score where it reported none."""
output_tokens_per_s = _operational("output_tokens_per_s", _output_tokens_per_s, 1, more=True)
"""Tokens of the answer a second, over the whole time from sending the request to the last byte."""
