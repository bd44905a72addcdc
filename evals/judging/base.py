"""What a judged metric may ask, and what may come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from registry.entities import JudgeContent

Message = Mapping[str, Any]
"""`{"role": …, "content": …}` as in OpenAI's chat completions."""


class Bench(Protocol):
    """
    One judge at work: its model, its rubric, and which repetition this is.

    Calls are bounded, retried, priced and cached behind this: equal questions in the same epoch are asked
    once. Safe for many tasks of one event loop.
    """

    @property
    def judge(self) -> JudgeContent:
        """The judge: model, rubric, parameters and calibration."""

    @property
    def epoch(self) -> int:
        """Which repetition this is, from 0: part of every cache key."""

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> str:
        """
        The model's text for *messages*, with the judge's own parameters.

        Args:
            schema: a JSON Schema to ask structured output for; the text may still violate it.
            parameters: OpenAI request fields that override the judge's, such as `max_tokens`.

        Raises:
            ScoreFailed: no usable answer after every retry; its kind is a stable code such as
                `judge_timeout`, `judge_rate_limited`, `judge_http_500`, `judge_truncated`, `judge_refused`.
        """

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, in order. Raises ScoreFailed."""
