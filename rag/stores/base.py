"""What a vector store is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from registry import plugins

if TYPE_CHECKING:
    import numpy as np

    from rag.embedders.base import Vectors


@dataclass(frozen=True, slots=True)
class Hit:
    """One id that a search found, and its cosine in [-1, 1], rounded to 6 decimals."""

    id: str
    score: float


class Store(Protocol):
    """An opened, read-only set of vectors. Searches are safe from any thread."""

    def search(self, query: Vectors, k: int) -> list[Hit]:
        """
        The *k* ids nearest to the unit vector *query* (d,), fewer when there are not so many.

        Sorted by score from high to low, then by id: the same query gives the same hits.
        """
        ...

    def close(self) -> None:
        """Let go of files and memory. Idempotent; nothing may be searched afterwards."""
        ...


class StoreType(Protocol):
    """The plug-in: how such a set is written once, and opened."""

    def write(self, folder: Path, ids: Sequence[str], vectors: Vectors) -> None:
        """Put unit rows *vectors* (n, d), n at least 1, named by the unique *ids*, into an empty folder."""
        ...

    def open(self, folder: Path) -> Store:
        """
        Open what `write` left in *folder*.

        Raises:
            IndexBroken: the folder does not hold it.
        """
        ...


def load(name: str) -> StoreType:
    """
    The store registered as *name* in `sluicegate.stores`.

    Raises:
        NotFound: no such store; the message lists those there are.
        MissingExtra: its dependencies are not installed.
    """
    return cast("StoreType", plugins.load("stores", name))


def ranked(query: Vectors, ids: Sequence[str], vectors: Vectors, k: int) -> list[Hit]:
    """The *k* best of the candidates *ids* with unit rows *vectors* (n, d), as `Store.search` sorts them."""
    scores: np.ndarray = vectors @ query
    hits = (
        Hit(key, max(-1.0, min(1.0, round(float(score), 6)))) for key, score in zip(ids, scores, strict=True)
    )
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]
