"""Ask a release's index for documents through OpenAI's vector store search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from evals.dataset import Sample
from evals.systems.base import Call, Options, Output, pick
from registry.entities import ReleaseContent

MAX_RESULTS = 50
"""Most passages one search returns, in OpenAI's API."""


class RetrievalSystem:
    """The documents behind the passages found, best first, each counted once."""

    batch = 1

    def __init__(self, options: Options) -> None:
        """Ask for five passages per document wanted, since documents repeat; at most 50."""
        self.results = min(5 * options.depth, MAX_RESULTS)

    def suits(self, release: ReleaseContent) -> str | None:
        """None for releases with an index."""
        return None if release.index else "the release has no index to search"

    def call(self, model: str, samples: Sequence[Sample]) -> Call:
        """`POST /v1/vector_stores/{model}/search`."""
        (sample,) = samples
        path = f"/v1/vector_stores/{quote(model, safe='@:')}/search"
        return Call(path, {"query": sample.query, "max_num_results": self.results})

    def read(self, body: Any, samples: Sequence[Sample], latency_ms: float) -> list[Output]:  # noqa: ANN401, ARG002
        """Distinct `file_id`s in the order of the answer."""
        data = pick(body, "data", kind=list)
        found = (pick(data, rank, "file_id", kind=str) for rank in range(len(data)))
        return [Output(latency_ms=latency_ms, documents=tuple(dict.fromkeys(found)))]
