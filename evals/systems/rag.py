"""Ask a release a question, and its index for the passages behind the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from evals.dataset import Sample
from evals.errors import BadAnswer
from evals.systems.base import Call, Options, Output, pick
from evals.systems.chat import ChatSystem
from registry.entities import ReleaseContent


class RagSystem:
    """
    The chat's answer with the passages that the same release retrieves for the same question.

    Two calls a sample; the latency is the chat's alone. Judges what chat and retrieval are judged by.
    """

    batch = 1

    def __init__(self, options: Options) -> None:
        """Read as many passages as the release puts before its model."""
        self.chat = ChatSystem(options)
        self.passages = options.passages

    def suits(self, release: ReleaseContent) -> str | None:
        """None for chat releases with an index."""
        return self.chat.suits(release) or (None if release.index else "the release has no index to search")

    def call(self, model: str, samples: Sequence[Sample]) -> tuple[Call, ...]:
        """`POST /v1/chat/completions`, then `POST /v1/vector_stores/{model}/search`."""
        (sample,) = samples
        path = f"/v1/vector_stores/{quote(model, safe='@:')}/search"
        search = Call(path, {"query": sample.query, "max_num_results": self.passages})
        return self.chat.call(model, samples), search

    def read(self, body: Any, samples: Sequence[Sample], latency_ms: float) -> list[Output]:  # noqa: ANN401
        """The chat's output with the texts and documents found."""
        if not isinstance(body, list) or len(body) != 2:
            raise BadAnswer("not two answers")
        (output,) = self.chat.read(body[0], samples, latency_ms)
        data = pick(body[1], "data", kind=list)
        texts = tuple(_text(pick(row, "content", kind=list)) for row in data)
        documents = dict.fromkeys(pick(row, "file_id", kind=str) for row in data)
        return [replace(output, passages=texts, documents=tuple(documents))]


def _text(parts: list[Any]) -> str:
    return "\n".join(pick(part, "text", kind=str) for part in parts)
