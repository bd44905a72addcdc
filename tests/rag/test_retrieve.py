from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag import build
from rag.documents import Chunk, Document, Passage
from rag.embedders.hashing import HashingEmbedder
from rag.errors import EmbedderMismatch, IndexBroken, IndexNotBuilt, RetrieverClosed
from rag.retrieve import Retriever, open_retriever
from rag.stores.base import Hit
from rag.stores.memory import MemoryStore
from registry import plugins
from registry.artifacts import Artifacts
from registry.entities import Chunker
from registry.errors import BadInput, NotFound, VersionTampered


@pytest.fixture(params=plugins.names("stores"))
def plan(
    request: pytest.FixtureRequest, tmp_path: Path, articles: list[Document], artifacts: Artifacts
) -> build.Plan:
    """A finished index of the three articles, one passage for each sentence or two."""
    embedder = HashingEmbedder()
    planned = build.plan(
        articles,
        name="handbook",
        chunker=Chunker(max_chars=60),
        embedder=embedder,
        store_name=request.param,
        home=tmp_path,
    )
    build.carry_out(planned, embedder=embedder, artifacts=artifacts)
    return planned


def opened(plan: build.Plan, artifacts: Artifacts, **changes: Any) -> Retriever:
    arguments: dict[str, Any] = {"home": plan.home, "artifacts": artifacts, "store": plan.store_name}
    return open_retriever(plan.content, plan.digest, **arguments | changes)


def test_passages_come_best_first_with_their_document(plan: build.Plan, artifacts: Artifacts) -> None:
    retriever = opened(plan, artifacts)
    passages = retriever.retrieve("how do I rotate a key?", 3)
    best = passages[0]
    assert (best.id, best.document_id, best.title) == ("keys#1", "keys", "API keys")
    assert best.text == "To rotate a key, make a new one."
    assert [passage.score for passage in passages] == sorted((p.score for p in passages), reverse=True)
    assert all(-1 <= passage.score <= 1 for passage in passages)
    retriever.close()


def test_a_passage_asked_for_in_its_own_words_scores_one(plan: build.Plan, artifacts: Artifacts) -> None:
    retriever = opened(plan, artifacts)
    (passage,) = retriever.retrieve("Volcanoes: Magma rises through cracks in the crust.", 1)
    text = "Magma rises through cracks in the crust."
    assert passage == Passage("volcano#0", "volcano", "Volcanoes", text, 1.0)
    retriever.close()


def test_asking_twice_or_from_many_threads_gives_the_same(plan: build.Plan, artifacts: Artifacts) -> None:
    retriever = opened(plan, artifacts)
    queries = ["rotate a key", "token bucket", "lava and ash", "429"] * 6
    expected = [retriever.retrieve(query, 4) for query in queries]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda query: retriever.retrieve(query, 4), queries)) == expected
    retriever.close()
    again = opened(plan, artifacts)
    assert [again.retrieve(query, 4) for query in queries] == expected
    again.close()


def test_more_than_there_are_gives_all_and_a_blank_query_none(plan: build.Plan, artifacts: Artifacts) -> None:
    retriever = opened(plan, artifacts)
    assert len(retriever.retrieve("key", 1000)) == plan.content.passages
    assert retriever.retrieve(" \n", 3) == []
    assert retriever.best_sentences("", retriever.retrieve("key", 3), 3) == []
    with pytest.raises(BadInput, match="k is at least 1, not 0"):
        retriever.retrieve("key", 0)
    retriever.close()


def test_best_sentences_carry_the_id_of_their_passage(plan: build.Plan, artifacts: Artifacts) -> None:
    retriever = opened(plan, artifacts)
    query = "what is lava at the surface"
    sentences = retriever.best_sentences(query, retriever.retrieve(query, 3), 2)
    assert len(sentences) == 2
    best = sentences[0]
    assert (best.id, best.text) == ("volcano#1", "At the surface it is called lava.")
    assert best.score >= sentences[1].score
    retriever.close()


def test_closing_is_final_and_idempotent(plan: build.Plan, artifacts: Artifacts) -> None:
    retriever = opened(plan, artifacts)
    retriever.close()
    retriever.close()
    with pytest.raises(RetrieverClosed):
        retriever.retrieve("key", 1)
    with pytest.raises(RetrieverClosed):
        retriever.best_sentences("key", [], 1)


def test_closing_waits_for_searches_under_way() -> None:
    searching, go_on = threading.Event(), threading.Event()

    class Slow:
        closed_while_searching: bool | None = None

        def search(self, query: object, k: int) -> list[Hit]:
            del query, k
            searching.set()
            assert go_on.wait(30)
            self.closed_while_searching = self.closed_while_searching is not None
            return [Hit("a#0", 1.0)]

        def close(self) -> None:
            self.closed_while_searching = self.closed_while_searching or False

    store = Slow()
    retriever = Retriever([Chunk("a#0", "a", "", "text")], HashingEmbedder(), store)
    with ThreadPoolExecutor(2) as pool:
        found = pool.submit(retriever.retrieve, "query", 1)
        assert searching.wait(30)
        closing = pool.submit(retriever.close)
        go_on.set()
        assert found.result(30) == [Passage("a#0", "a", "", "text", 1.0)]
        closing.result(30)
    assert store.closed_while_searching is False


def test_queries_and_sentences_seen_lately_are_not_embedded_again() -> None:
    class Counting(HashingEmbedder):
        texts = 0

        def embed(self, texts: Any) -> Any:
            self.texts += len(texts)
            return super().embed(texts)

    embedder = Counting()
    chunk = Chunk("a#0", "a", "T", "One is here. Two is there.")
    store = MemoryStore([chunk.id], embedder.embed([chunk.embedded_text]))
    retriever = Retriever([chunk], embedder, store)
    passages = retriever.retrieve("where is one?", 1)
    first = retriever.best_sentences("where is one?", passages, 2)
    assert embedder.texts == 1 + 1 + 2
    assert retriever.best_sentences("where is one?", passages, 2) == first
    assert embedder.texts == 4
    assert [sentence.text for sentence in first] == ["One is here.", "Two is there."]


def test_an_index_not_built_here_says_how_to_build_it(
    plan: build.Plan, artifacts: Artifacts, tmp_path: Path
) -> None:
    with pytest.raises(IndexNotBuilt) as caught:
        opened(plan, artifacts, home=tmp_path / "elsewhere")
    assert caught.value.code == "index_not_built"
    command = (
        "run `rag build PATH --name NAME --max-chars 60 --overlap 0 --embedder hashing "
        f"--store {plan.store_name}` with its corpus of 3 documents"
    )
    assert command in caught.value.message
    assert plan.digest in caught.value.message


def rewrite(plan: build.Plan, **changes: object) -> None:
    path = plan.folder / build.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_vectors_of_another_embedder_are_refused(plan: build.Plan, artifacts: Artifacts) -> None:
    rewrite(plan, embedder={"name": "hashing", "digest": "sha256:" + "0" * 64, "dimension": 1024})
    with pytest.raises(EmbedderMismatch, match="`rag build` it again"):
        opened(plan, artifacts)


def test_a_registered_index_of_another_embedder_is_refused(plan: build.Plan, artifacts: Artifacts) -> None:
    other = replace(plan.content.embedder, digest="sha256:" + "1" * 64)
    with pytest.raises(EmbedderMismatch):
        open_retriever(
            replace(plan.content, embedder=other),
            plan.digest,
            home=plan.home,
            artifacts=artifacts,
            store=plan.store_name,
        )


@pytest.mark.parametrize("change", [{"index": "sha256:" + "2" * 64}, {"passages": 1}])
def test_a_folder_of_another_index_is_refused(
    plan: build.Plan, artifacts: Artifacts, change: dict[str, Any]
) -> None:
    rewrite(plan, **change)
    with pytest.raises(IndexBroken, match="holds another index"):
        opened(plan, artifacts)


def test_a_digest_that_is_none_is_refused(plan: build.Plan, artifacts: Artifacts) -> None:
    with pytest.raises(IndexBroken, match="is not the digest of an index"):
        open_retriever(plan.content, "../../etc", home=plan.home, artifacts=artifacts)


def test_lost_or_changed_passages_are_refused(plan: build.Plan, artifacts: Artifacts) -> None:
    blob = artifacts.path(plan.content.passages_digest)
    blob.write_bytes(blob.read_bytes().replace(b"key", b"KEY"))
    with pytest.raises(VersionTampered):
        opened(plan, artifacts)
    blob.unlink()
    with pytest.raises(NotFound):
        opened(plan, artifacts)


def test_a_store_with_foreign_ids_is_refused(
    tmp_path: Path, articles: list[Document], artifacts: Artifacts
) -> None:
    embedder = HashingEmbedder()
    plan = build.plan(
        articles, name="x", chunker=Chunker(), embedder=embedder, store_name="memory", home=tmp_path
    )
    build.carry_out(plan, embedder=embedder, artifacts=artifacts)
    MemoryStore.write(plan.folder, ["foreign"], np.full((1, 1024), 1 / 32, dtype=np.float32))
    with pytest.raises(IndexBroken, match="names passage 'foreign'"):
        opened(plan, artifacts)
