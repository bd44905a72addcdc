"""
Embedded Chroma: one collection in a folder of its own, written once.

Chroma's graph search (HNSW) is approximate, and scores ties in any order. Here it proposes more
candidates than asked for; their exact cosines decide. The graph is built by one thread, so the same
vectors give the same graph. Opening writes one row into Chroma's database: the folder must be
writable, and only the graph's files are verified.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import chromadb
import numpy as np
from chromadb.api.client import Client
from chromadb.api.collection_configuration import CreateHNSWConfiguration
from chromadb.config import Settings
from chromadb.errors import ChromaError

from rag.errors import IndexBroken
from rag.stores.base import Hit, ranked
from registry.ids import digest_bytes

if TYPE_CHECKING:
    from rag.embedders.base import Vectors

_COLLECTION = "passages"
_DATABASE = "chroma.sqlite3"
_SUMS = "sha256.json"
_GRAPH: CreateHNSWConfiguration = {
    "space": "cosine",
    "ef_construction": 200,
    "max_neighbors": 32,
    "ef_search": 200,
    "num_threads": 1,
}
_FLUSH_AT = 100
"""Chroma writes its graph whenever so many vectors are new. Its default of 1,000 would leave a smaller
index without a graph on disk and make one at every opening (46 ms instead of 5 for 700 vectors)."""
_SPARE = 32
_OPENING = threading.Lock()
"""chromadb keeps the opened folders in a table of the process and does not guard it."""


class ChromaStore:
    """One opened folder. Searches are safe from any thread."""

    def __init__(self, client: Client, folder: Path) -> None:
        """Search the collection of *client*, which belongs to this store from now on."""
        self._client = client
        self._folder = folder
        self._collection = client.get_collection(_COLLECTION, embedding_function=None)
        self._size = self._collection.count()

    @classmethod
    def write(cls, folder: Path, ids: Sequence[str], vectors: Vectors) -> None:
        """Make the collection in the empty *folder*. 700 vectors take 0.2 s."""
        flush_at = min(_FLUSH_AT, len(ids))
        graph: CreateHNSWConfiguration = {**_GRAPH, "batch_size": flush_at, "sync_threshold": flush_at}
        client = _connect(folder)
        try:
            collection = client.create_collection(
                _COLLECTION, embedding_function=None, configuration={"hnsw": graph}
            )
            step = client.get_max_batch_size()
            for start in range(0, len(ids), step):
                collection.add(ids=list(ids[start : start + step]), embeddings=vectors[start : start + step])
        finally:
            client.close()
        (folder / _SUMS).write_text(json.dumps(_sums(folder)))

    @classmethod
    def open(cls, folder: Path) -> ChromaStore:
        """
        Open the collection in *folder*. Opening one folder twice shares its handles.

        Raises:
            IndexBroken: there is no such collection, or its files are missing or were changed.
        """
        try:
            sums = json.loads((folder / _SUMS).read_text())
            if not (folder / _DATABASE).is_file() or sums != _sums(folder):
                raise _damaged(folder, "files are missing or were changed")
            client = _connect(folder)
        except (ChromaError, OSError, ValueError) as error:
            raise _damaged(folder, error) from error
        try:
            return cls(client, folder)
        except (ChromaError, ValueError) as error:
            client.close()
            raise _damaged(folder, error) from error

    def search(self, query: Vectors, k: int) -> list[Hit]:
        """
        The nearest of the candidates that the graph proposes: twice *k* and 32 more.

        Raises:
            IndexBroken: the files were changed after they were opened.
        """
        try:
            result = self._collection.query(
                query_embeddings=query[np.newaxis],
                n_results=min(self._size, 2 * k + _SPARE),
                include=["embeddings"],
            )
        except ChromaError as error:
            raise _damaged(self._folder, error) from error
        embeddings = cast("Sequence[Vectors]", result["embeddings"])
        return ranked(query, result["ids"][0], np.asarray(embeddings[0], dtype=np.float32), k)

    def close(self) -> None:
        """Release Chroma's threads and file handles once nobody else has this folder open."""
        with _OPENING:
            self._client.close()


def _connect(folder: Path) -> Client:
    with _OPENING:
        try:
            client = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
        except ChromaError:
            # Chroma has listed the folder before it failed, and would hand out the wreck for ever.
            if str(folder) not in Client._identifier_to_refcount:  # noqa: SLF001
                Client._identifier_to_system.pop(str(folder), None)  # noqa: SLF001
            raise
    return cast("Client", client)


def _damaged(folder: Path, error: object) -> IndexBroken:
    return IndexBroken(f"{folder} is damaged ({error}); delete it and run `rag build` again")


def _sums(folder: Path) -> dict[str, str]:
    """The digest of each file of the graph: Chroma's native code dies with the process on a cut one."""
    return {
        path.relative_to(folder).as_posix(): digest_bytes(path.read_bytes())
        for path in sorted(folder.glob("*/*"))
    }
