"""Vectors made before, kept in one SQLite file: a passage that did not change is not embedded again."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag.errors import EmbeddingCacheBroken

if TYPE_CHECKING:
    from rag.embedders.base import Embedder, Vectors

_BUSY_TIMEOUT_S = 30
_AT_ONCE = 500  # variables in one statement; SQLite allows 999 even in old builds
_LITTLE_ENDIAN = np.dtype("<f4")


class EmbeddingCache:
    """
    Text → vector for one embedder. Safe for many processes; may be deleted at any time.

    Keyed by the embedder's digest and the SHA-256 of the text: the text itself is not stored.
    """

    def __init__(self, folder: Path, embedder: Embedder) -> None:
        """Use the file `vectors.db` of *folder*; it is made at the first `keep`."""
        self.path = folder / "vectors.db"
        self._digest = embedder.digest
        self._bytes = embedder.dimension * _LITTLE_ENDIAN.itemsize

    def find(self, texts: Iterable[str]) -> dict[str, Vectors]:
        """
        The remembered vectors (d,) of those *texts* that have one.

        Raises:
            EmbeddingCacheBroken: the file is damaged or locked for more than 30 s.
        """
        if not self.path.exists():
            return {}
        by_key = {_key(text): text for text in texts}
        keys = list(by_key)
        found: dict[str, Vectors] = {}
        with self._open() as database:
            for start in range(0, len(keys), _AT_ONCE):
                part = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT text, vector FROM vectors WHERE embedder = ? AND text IN ({marks})"  # noqa: S608 - marks only
                for key, data in database.execute(query, (self._digest, *part)):
                    if len(data) == self._bytes:
                        found[by_key[key]] = np.frombuffer(data, _LITTLE_ENDIAN).astype(np.float32)
        return found

    def keep(self, vectors: Mapping[str, Vectors]) -> None:
        """
        Remember the vector (d,) of each text, all of them or none. Idempotent.

        Raises:
            EmbeddingCacheBroken: the file is damaged, locked for more than 30 s, or the disk is full.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            (self._digest, _key(text), vector.astype(_LITTLE_ENDIAN).tobytes())
            for text, vector in vectors.items()
        ]
        with self._open() as database, database:
            database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S)) as database:
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=NORMAL")  # whole after a crash, perhaps not newest
                database.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (embedder TEXT, text BLOB, vector BLOB,"
                    " PRIMARY KEY (embedder, text)) WITHOUT ROWID"
                )
                yield database
        except sqlite3.Error as error:
            message = f"the remembered vectors in {self.path} cannot be used ({error}); delete the file"
            raise EmbeddingCacheBroken(message) from error


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
