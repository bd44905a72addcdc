"""
Corpus → index: plan what it will be, embed what is new, write it aside, rename it into place.

What the index *is* (documents, chunker, embedder, passages) has a digest; where it lies on this
machine follows from that digest. A version on disk is never changed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from rag.chunk import chunk
from rag.documents import Chunk, Document, to_lines
from rag.errors import BadCorpus, IndexBroken
from rag.folders import made_aside
from registry import entities
from registry.artifacts import Artifacts
from registry.ids import canonical, digest, digest_bytes, is_digest

if TYPE_CHECKING:
    from rag.embedders.base import Embedder, Vectors
    from rag.vectors import EmbeddingCache

MANIFEST = "index.json"
_FORMAT = 1
_FOLDER = "indexes"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an index will be, before anything is written."""

    name: str
    content: entities.IndexContent
    digest: str
    """The digest under which the registry will know it."""
    chunks: tuple[Chunk, ...]
    """The passages, sorted by id."""
    store_name: str
    home: Path

    @property
    def folder(self) -> Path:
        """Where it will lie."""
        return folder_of(self.home, self.digest, self.store_name)


@dataclass(frozen=True, slots=True)
class Built:
    """A finished index on this machine."""

    content: entities.IndexContent
    embedded: int
    """Vectors computed now."""
    reused: int
    """Passages that needed no new vector."""
    folder: Path


def build(
    documents: Iterable[Document],
    *,
    name: str,
    chunker: entities.Chunker,
    embedder: Embedder,
    store_name: str,
    home: Path,
    artifacts: Artifacts,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> Built:
    """
    The index of *documents* on this machine: `plan`, then `carry_out`. Idempotent.

    Raises:
        as those two.
    """
    planned = plan(documents, name=name, chunker=chunker, embedder=embedder, store_name=store_name, home=home)
    return carry_out(planned, embedder=embedder, artifacts=artifacts, on_progress=on_progress)


def plan(
    documents: Iterable[Document],
    *,
    name: str,
    chunker: entities.Chunker,
    embedder: Embedder,
    store_name: str,
    home: Path,
) -> Plan:
    """
    Cut *documents* and say what their index will be; nothing is written, no weights are read.

    Raises:
        BadCorpus: no document, or two with one id.
    """
    from registry.versions import plain  # loads SQLAlchemy

    ordered = sorted(documents, key=lambda document: document.id)
    for before, after in pairwise(ordered):
        if before.id == after.id:
            message = f"two documents have the id {after.id!r}; give each its own"
            raise BadCorpus(message)
    if not ordered:
        message = f"index {name!r} needs at least one document"
        raise BadCorpus(message)
    chunks = tuple(sorted(chunk(ordered, chunker), key=lambda part: part.id))
    content = entities.IndexContent(
        corpus_digest=digest_bytes(to_lines(ordered)),
        chunker=chunker,
        embedder=entities.Embedder(embedder.name, embedder.digest, embedder.dimension),
        documents=len(ordered),
        passages=len(chunks),
        passages_digest=digest_bytes(to_lines(chunks)),
    )
    return Plan(name, content, digest(plain(content)), chunks, store_name, home)


def missing(planned: Plan, embedder: Embedder) -> int:
    """How many vectors `carry_out` would compute: 0 when the index is on this machine."""
    if planned.folder.exists():
        return 0
    texts = {part.embedded_text for part in planned.chunks}
    return len(texts) - len(_cache(planned.home, embedder).find(texts))


def carry_out(
    planned: Plan,
    *,
    embedder: Embedder,
    artifacts: Artifacts,
    on_progress: Callable[[int], None] = lambda _done: None,
    batch_size: int = 32,
) -> Built:
    """
    Put the planned index on this machine and its passages into *artifacts*.

    Only passages never embedded before are embedded. Killed at any point, it leaves the finished
    indexes as they were, and the next run goes on after the last *batch_size* passages.

    Args:
        on_progress: called with the number of passages done since the last call.

    Raises:
        StoreUnavailable, EmbeddingCacheBroken: the disk cannot be written.
        MissingExtra, WeightsUnavailable: the embedder or the store cannot run.
    """
    from rag.stores import base  # so that `plan` loads no numerical library

    artifacts.put(to_lines(planned.chunks))
    total = len(planned.chunks)
    if planned.folder.exists():
        read_manifest(planned.folder)
        on_progress(total)
        return Built(planned.content, 0, total, planned.folder)
    store = base.load(planned.store_name)
    texts = [part.embedded_text for part in planned.chunks]
    vectors, embedded = _vectors(texts, planned.home, embedder, batch_size, on_progress)
    with made_aside(planned.folder, planned.home / _FOLDER) as aside:
        store.write(aside, [part.id for part in planned.chunks], vectors)
        manifest = {
            "format": _FORMAT,
            "index": planned.digest,
            "name": planned.name,
            "store": planned.store_name,
            "embedder": asdict(planned.content.embedder),
            "passages": total,
        }
        (aside / MANIFEST).write_bytes(canonical(manifest) + b"\n")
    return Built(planned.content, embedded, total - embedded, planned.folder)


def folder_of(home: Path, index_digest: str, store_name: str) -> Path:
    """Where the index of *index_digest* lies under *home*, whether or not it is there."""
    if not is_digest(index_digest):
        message = f"{index_digest!r} is not the digest of an index"
        raise IndexBroken(message)
    return home / _FOLDER / index_digest.removeprefix("sha256:")[:24] / store_name


def read_manifest(folder: Path) -> dict[str, object]:
    """
    The manifest of a finished index.

    Raises:
        IndexBroken: it is missing or damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] == _FORMAT:
            return dict(manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder} has no readable {MANIFEST}; delete the folder and run `rag build` again"
        raise IndexBroken(message) from error
    message = f"{folder} has format {manifest['format']}, not {_FORMAT}; delete it and run `rag build` again"
    raise IndexBroken(message)


def _vectors(
    texts: Sequence[str],
    home: Path,
    embedder: Embedder,
    batch_size: int,
    on_progress: Callable[[int], None],
) -> tuple[Vectors, int]:
    """A unit row for each text, in order, and how many had to be computed."""
    import numpy as np

    uses = Counter(texts)
    cache = _cache(home, embedder)
    known = cache.find(uses)
    on_progress(sum(uses[text] for text in known))
    new = [text for text in uses if text not in known]
    for start in range(0, len(new), batch_size):
        batch = new[start : start + batch_size]
        made = dict(zip(batch, embedder.embed(batch), strict=True))
        cache.keep(made)
        known |= made
        on_progress(sum(uses[text] for text in batch))
    return np.stack([known[text] for text in texts]), len(new)


def _cache(home: Path, embedder: Embedder) -> EmbeddingCache:
    from rag.vectors import EmbeddingCache  # loads NumPy

    return EmbeddingCache(home / "embeddings", embedder)
