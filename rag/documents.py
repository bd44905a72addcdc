"""The nouns of retrieval: Document, Chunk, Passage."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from registry.ids import canonical


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a corpus, in its canonical form: NFC, Unix line ends, no outer white space."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of one document, short enough to embed and to show to a model."""

    id: str
    """`<document id>#<n>`, n counting from 0."""
    document_id: str
    title: str
    text: str

    @property
    def embedded_text(self) -> str:
        """What the embedder reads; see `titled`."""
        return titled(self.title, self.text)


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk, or one sentence of it, that was found for a query."""

    id: str
    """Id of the chunk."""
    document_id: str
    title: str
    text: str
    score: float
    """Cosine between query and text, in [-1, 1]."""


def titled(title: str, text: str) -> str:
    """
    *text* with its title in front: what is embedded, so that "it was" says what it was.

    Measured on 688 questions over 240 articles: the passage is found as often with the title as
    without (0.920 and 0.913 at rank 1), the best sentence holds the answer more often (0.727, 0.709).

    >>> titled("Super_Bowl_50", "It was played in February. ")
    'Super Bowl 50: It was played in February.'
    """
    title = title.replace("_", " ").strip()
    return f"{title}: {text.strip()}" if title else text.strip()


def to_lines(items: Iterable[Document | Chunk]) -> bytes:
    """*items* as canonical JSON Lines, in the order given: equal items, equal bytes."""
    return b"".join(canonical(asdict(item)) + b"\n" for item in items)


def chunks_from_lines(data: bytes) -> list[Chunk]:
    """The chunks that `to_lines` wrote."""
    return [Chunk(**json.loads(line)) for line in data.splitlines()]
