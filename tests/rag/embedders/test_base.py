"""The contract of every registered embedder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rag.embedders import base
from registry import plugins
from registry.errors import NotFound
from registry.ids import is_digest

TEXTS = ["How do I rotate a key?", "Lava is magma at the surface.", "", "x", "重新启动。", "long " * 3000]


@pytest.fixture(params=plugins.names("embedders"))
def embedder(request: pytest.FixtureRequest, models: Path) -> base.Embedder:
    return base.load(request.param, models)


def test_vectors_are_float32_rows_of_unit_length(embedder: base.Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert ((len(TEXTS), embedder.dimension), "float32") == (vectors.shape, str(vectors.dtype))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_vector_does_not_depend_on_its_neighbours(embedder: base.Embedder) -> None:
    together = embedder.embed(TEXTS)
    alone = np.stack([embedder.embed([text])[0] for text in reversed(TEXTS)])[::-1]
    assert np.array_equal(together, alone)


def test_no_text_gives_no_row(embedder: base.Embedder) -> None:
    assert (0, embedder.dimension) == embedder.embed([]).shape


def test_threads_get_the_same_vectors(embedder: base.Embedder) -> None:
    expected = embedder.embed(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(expected, found) for found in pool.map(embedder.embed, [TEXTS] * 8))


def test_name_and_digest_say_what_it_is(embedder: base.Embedder, tmp_path: Path) -> None:
    other = base.load(embedder.name, tmp_path / "elsewhere", threads=2)
    assert (embedder.name, embedder.digest) == (other.name, other.digest)
    assert embedder.name in plugins.names("embedders")
    assert is_digest(embedder.digest)
    assert not (tmp_path / "elsewhere").exists()


def test_a_text_is_closer_to_its_words_than_to_others(embedder: base.Embedder) -> None:
    question, near, far = embedder.embed(
        ["rotating an api key", "how to rotate the key of an api", "volcanoes throw ash into the air"]
    )
    assert question @ near > question @ far + 0.1


def test_an_unknown_embedder_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match=r"no plug-in 'bert' in sluicegate.embedders; there are: hashing, minilm"
    ):
        base.load("bert", tmp_path)
