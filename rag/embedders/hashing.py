"""
Feature hashing of word n-grams: no weights, no download, exact on every machine.

    v[h(g) mod d] += s(g) · (1 + ln tf(g)) · w(g), then divided by its length

g runs over words and pairs of neighbouring words, tf counts g in the text, h and s (±1) come from
BLAKE2b of g. w is 1 for a pair and 1 - 0.9/length for a word: short words say little.

Source: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning", equation 1;
1 + ln tf from Manning et al. 2008, "Introduction to Information Retrieval", section 6.4.1.
Deviation: the weight w. It finds shared words, not shared meaning: a baseline and a stand-in.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from registry.ids import digest

if TYPE_CHECKING:
    from rag.embedders.base import Vectors

_DIMENSION = 1024
_WORD = re.compile(r"\w+")


class HashingEmbedder:
    """Word n-grams hashed to 1024 numbers. Holds no state; safe from any thread."""

    name = "hashing"
    dimension = _DIMENSION

    @property
    def digest(self) -> str:
        """Digest of the algorithm's parameters."""
        return digest({"algorithm": "hashing-1", "dimension": _DIMENSION, "ngrams": [1, 2]})

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit rows (n, 1024). A text without a word gets the first axis."""
        vectors = np.zeros((len(texts), _DIMENSION), dtype=np.float64)
        for row, text in enumerate(texts):
            for gram, count in Counter(_grams(text)).items():
                code = int.from_bytes(blake2b(gram.encode(), digest_size=8).digest(), "big")
                sign = 1.0 if code & 1 else -1.0
                weight = 1.0 if " " in gram else 1.0 - 0.9 / len(gram)
                vectors[row, (code >> 1) % _DIMENSION] += sign * weight * (1 + math.log(count))
            if not vectors[row].any():
                vectors[row, 0] = 1.0
        unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit


def load(cache: Path, *, threads: int = 1) -> HashingEmbedder:
    """The hashing embedder; it needs neither *cache* nor *threads*."""
    del cache, threads
    return HashingEmbedder()


def _grams(text: str) -> Iterator[str]:
    words: list[str] = _WORD.findall(text.casefold())
    yield from words
    yield from (f"{left} {right}" for left, right in pairwise(words))
