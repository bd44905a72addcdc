from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rag import build
from rag.build import Built, Plan
from rag.documents import Document, chunks_from_lines
from rag.embedders.hashing import HashingEmbedder
from rag.errors import BadCorpus, IndexBroken
from registry import entities, plugins
from registry.artifacts import Artifacts
from registry.entities import Chunker
from registry.ids import digest_bytes

CHUNKER = Chunker(max_chars=60)


class Counting(HashingEmbedder):
    """Hashing that counts the texts it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def embed(self, texts: Sequence[str]) -> Any:
        self.seen.extend(texts)
        return super().embed(texts)


def planned(home: Path, documents: Sequence[Document], store: str = "memory") -> Plan:
    return build.plan(
        documents, name="handbook", chunker=CHUNKER, embedder=HashingEmbedder(), store_name=store, home=home
    )


def built(
    home: Path, documents: Sequence[Document], embedder: HashingEmbedder, store: str = "memory"
) -> Built:
    return build.carry_out(
        planned(home, documents, store), embedder=embedder, artifacts=Artifacts(home / "artifacts")
    )


def test_the_plan_is_the_content_and_writes_nothing(tmp_path: Path) -> None:
    found = planned(tmp_path, [Document("b", "Two."), Document("a", "One.", "T")])
    hashing = HashingEmbedder()
    corpus = b'{"id":"a","text":"One.","title":"T"}\n{"id":"b","text":"Two.","title":""}\n'
    passages = (
        b'{"document_id":"a","id":"a#0","text":"One.","title":"T"}\n'
        b'{"document_id":"b","id":"b#0","text":"Two.","title":""}\n'
    )
    expected = entities.IndexContent(
        corpus_digest=digest_bytes(corpus),
        chunker=CHUNKER,
        embedder=entities.Embedder("hashing", hashing.digest, 1024),
        documents=2,
        passages=2,
        passages_digest=digest_bytes(passages),
    )
    assert found.content == expected
    assert list(tmp_path.iterdir()) == []


def test_equal_content_has_one_digest_wherever_and_in_whatever_order(
    tmp_path: Path, articles: list[Document]
) -> None:
    here = planned(tmp_path / "here", articles)
    there = planned(tmp_path / "there", articles[::-1], store="chroma")
    assert (here.digest, here.content) == (there.digest, there.content)
    changed = [*articles[:-1], Document("volcano", "Other text.")]
    assert planned(tmp_path, changed).digest != here.digest


@pytest.mark.parametrize("store", plugins.names("stores"))
def test_building_again_embeds_nothing(tmp_path: Path, articles: list[Document], store: str) -> None:
    embedder = Counting()
    first = built(tmp_path, articles, embedder, store)
    assert (first.embedded, first.reused) == (first.content.passages, 0)
    assert len(embedder.seen) == first.embedded
    again = built(tmp_path, articles, embedder, store)
    assert again == Built(first.content, 0, first.content.passages, first.folder)
    assert len(embedder.seen) == first.embedded


def test_only_changed_passages_are_embedded(tmp_path: Path, articles: list[Document]) -> None:
    first = built(tmp_path, articles, HashingEmbedder())
    embedder = Counting()
    second = built(tmp_path, [*articles, Document("new", "One more thing.", "New")], embedder)
    assert embedder.seen == ["New: One more thing."]
    assert (second.embedded, second.reused) == (1, first.content.passages)
    assert first.folder.is_dir()


def test_a_lost_folder_is_made_again_from_remembered_vectors(
    tmp_path: Path, articles: list[Document]
) -> None:
    first = built(tmp_path, articles, HashingEmbedder())
    (first.folder / build.MANIFEST).unlink()
    with pytest.raises(IndexBroken, match="delete the folder"):
        built(tmp_path, articles, HashingEmbedder())
    for path in first.folder.iterdir():
        path.unlink()
    first.folder.rmdir()
    embedder = Counting()
    assert built(tmp_path, articles, embedder) == Built(
        first.content, 0, first.content.passages, first.folder
    )
    assert embedder.seen == []


def test_missing_says_what_carrying_out_would_embed(tmp_path: Path, articles: list[Document]) -> None:
    embedder = HashingEmbedder()
    plan = planned(tmp_path, articles)
    assert build.missing(plan, embedder) == plan.content.passages
    built(tmp_path, articles, embedder)
    assert build.missing(plan, embedder) == 0
    assert build.missing(planned(tmp_path, articles, store="chroma"), embedder) == 0
    assert build.missing(planned(tmp_path, [*articles, Document("x", "New.")]), embedder) == 1


def test_equal_passages_are_embedded_once(tmp_path: Path) -> None:
    embedder = Counting()
    result = built(tmp_path, [Document("a", "Same."), Document("b", "Same.")], embedder)
    assert (embedder.seen, result.embedded, result.reused) == (["Same."], 1, 1)


def test_progress_adds_up_to_the_passages(tmp_path: Path, articles: list[Document]) -> None:
    plan = planned(tmp_path, [*articles, Document("twin", articles[0].text, articles[0].title)])
    for _ in range(2):
        done: list[int] = []
        build.carry_out(
            plan,
            embedder=HashingEmbedder(),
            artifacts=Artifacts(tmp_path / "artifacts"),
            on_progress=done.append,
            batch_size=2,
        )
        assert sum(done) == plan.content.passages


def test_passages_lie_in_the_artifact_store_sorted_by_id(
    tmp_path: Path, articles: list[Document], artifacts: Artifacts
) -> None:
    result = build.build(
        articles,
        name="handbook",
        chunker=CHUNKER,
        embedder=HashingEmbedder(),
        store_name="memory",
        home=tmp_path,
        artifacts=artifacts,
    )
    chunks = chunks_from_lines(artifacts.get(result.content.passages_digest))
    assert [chunk.id for chunk in chunks] == sorted(chunk.id for chunk in chunks)
    assert len(chunks) == result.content.passages
    for article in articles:
        parts = [chunk.text for chunk in chunks if chunk.document_id == article.id]
        assert "".join(parts) == article.text


def test_the_manifest_names_what_lies_in_the_folder(tmp_path: Path, articles: list[Document]) -> None:
    result = built(tmp_path, articles, HashingEmbedder())
    plan = planned(tmp_path, articles)
    assert result.folder == tmp_path / "indexes" / plan.digest[7:31] / "memory"
    assert build.read_manifest(result.folder) == {
        "format": 1,
        "index": plan.digest,
        "name": "handbook",
        "store": "memory",
        "embedder": {"name": "hashing", "digest": HashingEmbedder().digest, "dimension": 1024},
        "passages": plan.content.passages,
    }


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '"text"'])
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / build.MANIFEST).write_text(text)
    with pytest.raises(IndexBroken, match="`rag build` again"):
        build.read_manifest(tmp_path)


def test_a_corpus_without_documents_or_with_one_id_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match="'handbook' needs at least one document"):
        planned(tmp_path, [])
    with pytest.raises(BadCorpus, match="two documents have the id 'a'"):
        planned(tmp_path, [Document("a", "x"), Document("b", "y"), Document("a", "z")])


KILLED = """
import json, os, signal, sys
from dataclasses import replace
from pathlib import Path
from rag import build
from rag.documents import Document
from rag.embedders.hashing import HashingEmbedder
from registry.artifacts import Artifacts
from registry.entities import Chunker

home, store, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

class Deadly(tuple):
    rounds = 0
    def __iter__(self):
        Deadly.rounds += 1
        # First the passages are stored, then their texts read, then their ids written to the index.
        if moment == "writing" and Deadly.rounds == 3:
            assert list((home / "indexes").glob(".making-*"))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__iter__()

calls = []

def on_progress(done):
    calls.append(done)  # the first call reports what was already there
    if moment == "embedding" and len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

documents = [Document(*fields) for fields in json.loads(sys.stdin.read())]
plan = build.plan(documents, name="handbook", chunker=Chunker(max_chars=60), embedder=HashingEmbedder(),
                  store_name=store, home=home)
build.carry_out(replace(plan, chunks=Deadly(plan.chunks)), embedder=HashingEmbedder(),
                artifacts=Artifacts(home / "artifacts"), on_progress=on_progress, batch_size=1)
"""


@pytest.mark.parametrize(
    ("store", "moment"), [("memory", "embedding"), *((name, "writing") for name in plugins.names("stores"))]
)
def test_a_killed_build_leaves_the_previous_version_and_resumes(
    tmp_path: Path, articles: list[Document], store: str, moment: str
) -> None:
    previous = built(tmp_path, articles[:2], HashingEmbedder(), store)
    documents = json.dumps([[one.id, one.text, one.title] for one in articles])
    command = [sys.executable, "-c", KILLED, str(tmp_path), store, moment]
    killed = subprocess.run(command, input=documents, text=True, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    plan = planned(tmp_path, articles, store)
    assert not plan.folder.exists()
    assert build.read_manifest(previous.folder)["index"] == planned(tmp_path, articles[:2], store).digest

    embedder = Counting()
    finished = built(tmp_path, articles, embedder, store)
    new = plan.content.passages - previous.content.passages
    assert finished.embedded == (0 if moment == "writing" else new - 1)
    assert [path.name for path in (tmp_path / "indexes").glob(".making-*")] == []


def test_two_processes_may_build_the_same_index_at_once(tmp_path: Path, articles: list[Document]) -> None:
    documents = json.dumps([[one.id, one.text, one.title] for one in articles])
    command = [sys.executable, "-c", KILLED, str(tmp_path), "memory", "never"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        process.communicate(documents, timeout=60)
    assert [process.returncode for process in processes] == [0, 0]
    plan = planned(tmp_path, articles)
    assert build.read_manifest(plan.folder)["index"] == plan.digest
    assert sorted(path.name for path in (tmp_path / "indexes").iterdir()) == [".lock", plan.digest[7:31]]
