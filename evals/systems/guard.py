"""Ask a guard about a text through OpenAI's moderations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evals.dataset import Sample
from evals.errors import BadAnswer
from evals.systems.base import Call, Options, Output, pick
from registry.entities import ReleaseContent


class GuardSystem:
    """One text a sample; the guard says whether it stops it, and how risky each category is."""

    batch = 1

    def __init__(self, options: Options) -> None:
        """Needs nothing of *options*."""
        self.options = options

    def suits(self, release: ReleaseContent) -> str | None:
        """A reason: releases are not served as moderations. A guard is a model behind a URL of its own."""
        return f"a {release.kind} release is no guard; name the guard's URL and model as the target"

    def call(self, model: str, samples: Sequence[Sample]) -> Call:
        """`POST /v1/moderations` with the sample's text."""
        (sample,) = samples
        return Call("/v1/moderations", {"model": model, "input": sample.query})

    def read(self, body: Any, samples: Sequence[Sample], latency_ms: float) -> list[Output]:  # noqa: ANN401, ARG002
        """
        Whether the first result is flagged; its risk is the highest of its categories' scores.

        The risk is None where the guard gives no scores. `meta` holds the category behind the risk.
        """
        result = pick(body, "results", 0, kind=dict)
        flagged = pick(result, "flagged", kind=bool)
        scores = result.get("category_scores") or {}
        if not isinstance(scores, dict) or not all(map(_is_share, scores.values())):
            raise BadAnswer("the answer's results.0.category_scores are not numbers from 0 to 1")
        worst = max(scores, key=lambda category: (scores[category], category), default=None)
        return [
            Output(
                latency_ms=latency_ms,
                flagged=flagged,
                risk=float(scores[worst]) if worst is not None else None,
                meta={"category": worst} if worst is not None else {},
            )
        ]


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
