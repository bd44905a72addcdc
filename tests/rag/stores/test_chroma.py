from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from rag.errors import IndexBroken
from rag.stores.chroma import ChromaStore


def vectors(count: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def open_files(folder: Path) -> list[str]:
    names = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            names.append(str(handle.readlink()))
        except FileNotFoundError:  # the handle of this very listing
            continue
    return [name for name in names if name.startswith(str(folder))]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_closed_store_holds_no_file(tmp_path: Path) -> None:
    ChromaStore.write(tmp_path, [str(n) for n in range(150)], vectors(150))
    store = ChromaStore.open(tmp_path)
    store.search(vectors(1)[0], 3)
    assert open_files(tmp_path) != []
    store.close()
    for _ in range(200):  # Chroma's own threads let go of their handles a moment later
        gc.collect()
        if not open_files(tmp_path):
            break
        os.sched_yield()
    assert open_files(tmp_path) == []


def test_a_renamed_folder_opens_at_its_new_place(tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    ChromaStore.write(tmp_path / "aside", ["a", "b"], vectors(2))
    (tmp_path / "aside").rename(tmp_path / "final")
    store = ChromaStore.open(tmp_path / "final")
    assert [hit.id for hit in store.search(vectors(2)[1], 1)] == ["b"]
    store.close()


def test_a_database_that_is_none_is_refused_until_it_is_built_again(tmp_path: Path) -> None:
    ChromaStore.write(tmp_path, ["a"], vectors(1))
    (tmp_path / "chroma.sqlite3").write_bytes(b"not a database" * 400)
    for _ in range(2):
        with pytest.raises(IndexBroken, match=r"is damaged .*file is not a database"):
            ChromaStore.open(tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    ChromaStore.write(tmp_path, ["a"], vectors(1))
    store = ChromaStore.open(tmp_path)
    assert [hit.id for hit in store.search(vectors(1)[0], 1)] == ["a"]
    store.close()


def test_a_database_without_the_collection_is_refused(tmp_path: Path) -> None:
    ChromaStore.write(tmp_path, ["a"], vectors(1))
    (tmp_path / "chroma.sqlite3").write_bytes(b"")
    with pytest.raises(IndexBroken, match="is damaged"):
        ChromaStore.open(tmp_path)


@pytest.mark.parametrize("name", ["data_level0.bin", "header.bin", "length.bin", "link_lists.bin"])
def test_a_cut_graph_is_refused_before_chroma_reads_it(tmp_path: Path, name: str) -> None:
    ChromaStore.write(tmp_path, [str(n) for n in range(150)], vectors(150))
    graph = next(tmp_path.glob(f"*/{name}"))
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(IndexBroken, match="files are missing or were changed"):
        ChromaStore.open(tmp_path)


def test_a_lost_graph_is_refused(tmp_path: Path) -> None:
    ChromaStore.write(tmp_path, [str(n) for n in range(150)], vectors(150))
    shutil.rmtree(next(path for path in tmp_path.iterdir() if path.is_dir()))
    with pytest.raises(IndexBroken, match="files are missing or were changed"):
        ChromaStore.open(tmp_path)


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 450])
def test_searching_leaves_the_graph_as_it_was(tmp_path: Path, count: int) -> None:
    ChromaStore.write(tmp_path, [str(n) for n in range(count)], vectors(count))
    for _ in range(3):
        store = ChromaStore.open(tmp_path)
        store.search(vectors(1)[0], 3)
        store.close()
