"""The contract of every registered store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rag.errors import IndexBroken
from rag.stores import base
from rag.stores.base import Hit
from registry import plugins
from registry.errors import NotFound

DIMENSION = 24


def unit(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    vectors: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return vectors


def exact(query: np.ndarray, ids: list[str], vectors: np.ndarray, k: int) -> list[Hit]:
    hits = [Hit(name, round(float(vector @ query), 6)) for name, vector in zip(ids, vectors, strict=True)]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]


@pytest.fixture(params=plugins.names("stores"))
def store_type(request: pytest.FixtureRequest) -> base.StoreType:
    return base.load(request.param)


def test_a_search_finds_the_nearest_best_first(store_type: base.StoreType, tmp_path: Path) -> None:
    ids, vectors = [f"p#{n}" for n in range(300)], unit(300, 1)
    store_type.write(tmp_path, ids, vectors)
    store = store_type.open(tmp_path)
    for query in unit(20, 2):
        found, expected = store.search(query, 5), exact(query, ids, vectors, 5)
        assert [hit.id for hit in found] == [hit.id for hit in expected]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=2e-6)
    store.close()


def test_equal_scores_are_ordered_by_id(store_type: base.StoreType, tmp_path: Path) -> None:
    vectors = np.vstack([np.tile(unit(1, 3), (5, 1)), unit(60, 4)])
    ids = ["e", "b", "d", "a", "c", *(f"other {n}" for n in range(60))]
    store_type.write(tmp_path, ids, vectors)
    store = store_type.open(tmp_path)
    assert store.search(vectors[0], 3) == [Hit("a", 1.0), Hit("b", 1.0), Hit("c", 1.0)]
    store.close()


def test_asking_for_more_than_there_is_gives_all(store_type: base.StoreType, tmp_path: Path) -> None:
    store_type.write(tmp_path, ["only"], unit(1, 5))
    store = store_type.open(tmp_path)
    assert store.search(unit(1, 5)[0], 50) == [Hit("only", 1.0)]
    store.close()


def test_the_same_query_gives_the_same_hits_after_reopening(
    store_type: base.StoreType, tmp_path: Path
) -> None:
    store_type.write(tmp_path, [f"p{n}" for n in range(250)], unit(250, 6))
    answers = []
    for _ in range(2):
        store = store_type.open(tmp_path)
        answers.append([store.search(query, 7) for query in unit(10, 7)])
        store.close()
        store.close()
    assert answers[0] == answers[1]


def test_threads_may_search_at_once(store_type: base.StoreType, tmp_path: Path) -> None:
    store_type.write(tmp_path, [f"p{n}" for n in range(120)], unit(120, 8))
    store = store_type.open(tmp_path)
    queries = list(unit(40, 9))
    expected = [store.search(query, 3) for query in queries]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda query: store.search(query, 3), queries)) == expected
    store.close()


def test_two_openings_do_not_disturb_each_other(store_type: base.StoreType, tmp_path: Path) -> None:
    store_type.write(tmp_path, ["a", "b"], unit(2, 10))
    first, second = store_type.open(tmp_path), store_type.open(tmp_path)
    first.close()
    assert second.search(unit(2, 10)[1], 1) == [Hit("b", 1.0)]
    second.close()


def test_a_folder_without_an_index_is_refused(store_type: base.StoreType, tmp_path: Path) -> None:
    with pytest.raises(IndexBroken, match="run `rag build` again"):
        store_type.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_store_is_refused_with_those_there_are() -> None:
    with pytest.raises(NotFound, match=r"no plug-in 'faiss' in sluicegate.stores; there are: chroma, memory"):
        base.load("faiss")
