"""What a runtime is: model bytes in, a function from columns to probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from registry.entities import ModelContent

FLOAT32_MAX = 3.4028234663852886e38
"""Largest magnitude a number may have: models take 32-bit inputs."""

Column = Sequence[str] | Sequence[float]
"""One feature over all rows: text with "" where missing, or numbers with NaN where missing."""


class Scorer(Protocol):
    """A loaded model. Safe to call from many threads at once."""

    def __call__(self, columns: Sequence[Column]) -> list[list[float]]:
        """
        Probabilities, one list per row in the order of the model's classes.

        Args:
            columns: one per feature in the order of the model's features, all of equal length,
                which is at least 1.
        """
        ...


class Runtime(Protocol):
    """Loads one format of model."""

    def __call__(self, data: bytes, content: ModelContent, *, threads: int) -> Scorer:
        """
        A scorer over *data*, whose digest the caller has verified.

        Raises:
            ModelUnusable: the bytes do not fit *content* or this runtime.
            MissingExtra: the runtime's own dependency is not installed.
        """
        ...
