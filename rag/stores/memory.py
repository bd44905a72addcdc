"""Exact search over vectors in memory: the reference, and enough for some ten thousand passages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag.errors import IndexBroken
from rag.stores.base import Hit, ranked

if TYPE_CHECKING:
    from rag.embedders.base import Vectors

_IDS, _VECTORS = "ids.json", "vectors.npy"


class MemoryStore:
    """All vectors in one array; a search costs n·d multiplications. Safe from any thread."""

    def __init__(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Search the unit rows *vectors* (n, d), named by *ids*."""
        self._ids = ids
        self._vectors = vectors

    @classmethod
    def write(cls, folder: Path, ids: Sequence[str], vectors: Vectors) -> None:
        """Write two files: the ids as JSON, the vectors in NumPy's format."""
        (folder / _IDS).write_text(json.dumps(list(ids)))
        np.save(folder / _VECTORS, vectors, allow_pickle=False)

    @classmethod
    def open(cls, folder: Path) -> MemoryStore:
        """
        Read both files.

        Raises:
            IndexBroken: one of them is missing, damaged, or does not fit the other.
        """
        try:
            ids = json.loads((folder / _IDS).read_text())
            vectors = np.load(folder / _VECTORS, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            message = f"{folder} cannot be read; delete it and run `rag build` again"
            raise IndexBroken(message) from error
        if len(ids) != len(vectors):
            message = f"{folder} names {len(ids)} of {len(vectors)} vectors; delete it and run `rag build`"
            raise IndexBroken(message)
        return cls(ids, vectors)

    def search(self, query: Vectors, k: int) -> list[Hit]:
        """The exact *k* nearest."""
        return ranked(query, self._ids, self._vectors, k)

    def close(self) -> None:
        """Drop the vectors."""
        self._ids, self._vectors = [], self._vectors[:0]
