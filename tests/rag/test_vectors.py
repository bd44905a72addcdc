from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag.embedders.hashing import HashingEmbedder
from rag.errors import EmbeddingCacheBroken
from rag.vectors import EmbeddingCache


class OtherEmbedder(HashingEmbedder):
    digest = "sha256:" + "0" * 64


def test_what_was_kept_is_found_by_another_opening(tmp_path: Path, hashing: HashingEmbedder) -> None:
    vectors = dict(zip(["one", "two"], hashing.embed(["one", "two"]), strict=True))
    EmbeddingCache(tmp_path, hashing).keep(vectors)
    found = EmbeddingCache(tmp_path, hashing).find(["two", "three", "one"])
    assert {"one", "two"} == set(found)
    assert all(np.array_equal(vectors[text], found[text]) for text in vectors)


def test_nothing_is_found_before_anything_was_kept(tmp_path: Path, hashing: HashingEmbedder) -> None:
    assert EmbeddingCache(tmp_path / "absent", hashing).find(["one"]) == {}
    assert not (tmp_path / "absent").exists()


def test_vectors_of_another_embedder_are_not_mixed_in(tmp_path: Path, hashing: HashingEmbedder) -> None:
    EmbeddingCache(tmp_path, hashing).keep({"one": hashing.embed(["one"])[0]})
    assert EmbeddingCache(tmp_path, OtherEmbedder()).find(["one"]) == {}


def test_more_texts_than_one_statement_takes_are_all_found(tmp_path: Path, hashing: HashingEmbedder) -> None:
    texts = [f"text {n}" for n in range(1203)]
    cache = EmbeddingCache(tmp_path, hashing)
    cache.keep(dict(zip(texts, hashing.embed(texts), strict=True)))
    assert set(texts) == set(cache.find(texts))


def test_a_vector_of_the_wrong_length_is_made_again(tmp_path: Path, hashing: HashingEmbedder) -> None:
    cache = EmbeddingCache(tmp_path, hashing)
    cache.keep({"one": np.ones(3, dtype=np.float32)})
    assert cache.find(["one"]) == {}


def test_a_damaged_file_is_named_with_its_remedy(tmp_path: Path, hashing: HashingEmbedder) -> None:
    (tmp_path / "vectors.db").write_bytes(b"not a database" * 100)
    with pytest.raises(EmbeddingCacheBroken, match=r"vectors\.db cannot be used .* delete the file"):
        EmbeddingCache(tmp_path, hashing).find(["one"])
