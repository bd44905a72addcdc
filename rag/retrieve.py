"""Query → Passages."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rag import sentences
from rag.build import folder_of, read_manifest
from rag.documents import Chunk, Passage, chunks_from_lines, titled
from rag.errors import EmbedderMismatch, IndexBroken, IndexNotBuilt, RetrieverClosed
from registry import entities
from registry.artifacts import Artifacts
from registry.errors import BadInput

if TYPE_CHECKING:
    from rag.embedders.base import Embedder, Vectors
    from rag.stores.base import Store

_REMEMBERED = 4096
"""Vectors of queries and sentences kept in memory: 6 MB at 384 dimensions."""
_CLOSE_TIMEOUT_S = 10.0


class Retriever:
    """
    An opened index. Every method is safe from any thread; none is asynchronous.

    A query costs one embedding and one search: about 3 ms with minilm and Chroma.
    """

    def __init__(self, chunks: Sequence[Chunk], embedder: Embedder, store: Store) -> None:
        """Search *chunks* through *store*, which belongs to this retriever from now on."""
        self.embedder = embedder
        self._chunks = {chunk.id: chunk for chunk in chunks}
        self._store = store
        self._remembered: OrderedDict[str, Vectors] = OrderedDict()
        self._state = threading.Condition()
        self._busy = 0
        self._closed = False

    def retrieve(self, query: str, k: int) -> list[Passage]:
        """
        The *k* passages closest to *query*, by score from high to low, then by id.

        Fewer when the index holds fewer; none for a blank query.

        Raises:
            BadInput: *k* is below 1.
            RetrieverClosed: after `close`.
        """
        if k < 1:
            message = f"k is at least 1, not {k}"
            raise BadInput(message)
        with self._in_use():
            if not query.strip():
                return []
            hits = self._store.search(self._embed([query])[0], k)
            return [_passage(self._chunks[hit.id], hit.score) for hit in hits]

    def best_sentences(self, query: str, passages: Sequence[Passage], n: int) -> list[Passage]:
        """
        The *n* sentences of *passages* that support *query* best, best first.

        Each is a Passage whose text is the sentence, whose id is that of its passage and whose score
        is its own cosine. A sentence that stands in several passages counts once.

        Raises:
            RetrieverClosed: after `close`.
        """
        with self._in_use():
            if not query.strip():
                return []
            said = [
                replace(passage, text=text.strip())
                for passage in passages
                for text in sentences.split(passage.text)
            ]
            vectors = self._embed([query, *(titled(one.title, one.text) for one in said)])
            return sentences.best(said, vectors[1:] @ vectors[0], n)

    def close(self) -> None:
        """Wait up to 10 s for searches under way, then release files and memory. Idempotent."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._state.wait_for(lambda: self._busy == 0, timeout=_CLOSE_TIMEOUT_S)
        self._store.close()
        self._remembered.clear()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._state:
            if self._closed:
                raise RetrieverClosed
            self._busy += 1
        try:
            yield
        finally:
            with self._state:
                self._busy -= 1
                self._state.notify_all()

    def _embed(self, texts: Sequence[str]) -> Vectors:
        """Rows for *texts*; those seen lately are not computed again."""
        import numpy as np

        with self._state:
            known = {text: self._remembered[text] for text in texts if text in self._remembered}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known |= zip(new, self.embedder.embed(new), strict=True)
        with self._state:
            for text in texts:
                self._remembered[text] = known[text]
                self._remembered.move_to_end(text)
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        return np.stack([known[text] for text in texts])


def open_retriever(
    content: entities.IndexContent,
    digest: str,
    *,
    home: Path,
    artifacts: Artifacts,
    threads: int = 1,
    store: str = "chroma",
) -> Retriever:
    """
    Open the index *content* whose registry digest is *digest*; embedder and store are warm after it.

    Takes about 2 s in a process that has not yet loaded chromadb and onnxruntime.

    Args:
        home: the folder `rag build` wrote to.
        threads: how many the embedder may use.

    Raises:
        IndexNotBuilt: no finished folder here; run `rag build` on the corpus.
        IndexBroken: the folder is not what its manifest or the registry says.
        EmbedderMismatch: the installed embedder is not the one that made the index.
        NotFound, VersionTampered: the passages are not in *artifacts*, or were changed there.
        MissingExtra, WeightsUnavailable: embedder or store cannot run here.
    """
    folder = folder_of(home, digest, store)
    if not folder.exists():
        raise IndexNotBuilt(_how_to_build(content, digest, folder, store))
    manifest = read_manifest(folder)
    if manifest.get("index") != digest or manifest.get("passages") != content.passages:
        message = f"{folder} holds another index than {digest}; delete it and run `rag build` again"
        raise IndexBroken(message)

    from rag.embedders import base as embedders  # plug-ins bring heavy libraries
    from rag.stores import base as stores

    embedder = embedders.load(content.embedder.name, home / "models", threads=threads)
    installed = entities.Embedder(embedder.name, embedder.digest, embedder.dimension)
    for wanted in (manifest.get("embedder"), asdict(content.embedder)):
        if wanted != asdict(installed):
            message = (
                f"index {digest} needs vectors of {wanted}, installed is {installed}: `rag build` it again"
            )
            raise EmbedderMismatch(message)
    chunks = chunks_from_lines(artifacts.get(content.passages_digest))
    retriever = Retriever(chunks, embedder, stores.load(store).open(folder))
    try:
        retriever.retrieve("warm", 1)
    except KeyError as error:
        retriever.close()
        message = f"{folder} names passage {error}, which the index does not have; delete it and build again"
        raise IndexBroken(message) from error
    except BaseException:
        retriever.close()
        raise
    return retriever


def _passage(chunk: Chunk, score: float) -> Passage:
    return Passage(chunk.id, chunk.document_id, chunk.title, chunk.text.strip(), score)


def _how_to_build(content: entities.IndexContent, digest: str, folder: Path, store: str) -> str:
    chunker, embedder = content.chunker, content.embedder
    return (
        f"index {digest} is not built on this machine ({folder} is missing): run `rag build PATH --name NAME "
        f"--max-chars {chunker.max_chars} --overlap {chunker.overlap_sentences} "
        f"--embedder {embedder.name} --store {store}` with its corpus of {content.documents} documents"
    )
