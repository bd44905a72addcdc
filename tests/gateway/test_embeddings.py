"""Local embeddings and search, through the official client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from gateway.dataplane.table import Route
from tests.fakes.parts import (
    DIGEST,
    DataPlane,
    FixedSources,
    FoundPassage,
    LetterEmbedder,
    ListRetriever,
    table_of,
)
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.fakes.upstream import Upstream

TOWER = FoundPassage("tower#0", "tower", "The tower", "A tower in Paris.", 0.875)


@pytest.fixture(scope="module")
def books() -> Iterator[Stand]:
    routes = {
        "books": Route(name="books", digest=DIGEST, retriever=ListRetriever((TOWER,))),
        "bare": Route(name="bare", digest=DIGEST),
    }
    sources = FixedSources(table_of(routes), embedders={"letters/small": LetterEmbedder()})
    stand = Stand("", Upstream())
    with serving(DataPlane(sources, stand.records.append)) as stand.url:
        yield stand
        stand.client.close()


@pytest.mark.parametrize("model", ["books", "books@production", "letters/small"])
def test_the_official_client_gets_the_same_vectors_as_base64_and_as_floats(books: Stand, model: str) -> None:
    texts = ["aaa", "b"]
    expected = LetterEmbedder().embed(texts).tolist()
    for encoding in ("base64", "float"):
        options: Any = {} if encoding == "base64" else {"encoding_format": "float"}
        answer = books.client.embeddings.create(model=model, input=texts, **options)
        assert [item.embedding for item in answer.data] == [pytest.approx(row, abs=1e-7) for row in expected]
        assert (answer.model, answer.usage.prompt_tokens) == (model, 2)


@pytest.mark.parametrize(
    ("model", "options", "status"),
    [
        ("books", {"input": []}, 400),
        ("books", {"input": ""}, 400),
        ("books", {"input": [[1, 2]]}, 400),
        ("books", {"input": "a", "dimensions": 2}, 400),
        ("books", {"input": "a", "encoding_format": "hex"}, 400),
        ("books", {"input": ["a"] * 5}, 413),
        ("bare", {"input": "a"}, 400),
        ("nope", {"input": "a"}, 404),
        ("nope/x", {"input": "a"}, 404),
        ("broken/embedder", {"input": "a"}, 503),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    books: Stand, model: str, options: dict[str, Any], status: int
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        books.client.embeddings.create(model=model, **options)
    assert caught.value.status_code == status


def test_the_official_client_searches_a_release(books: Stand) -> None:
    page = books.client.vector_stores.search("books", query="which tower?", max_num_results=3)
    assert page.model_dump(exclude_none=True) == {
        "object": "vector_store.search_results.page",
        "search_query": ["which tower?"],
        "data": [
            {
                "file_id": "tower",
                "filename": "The tower",
                "score": 0.875,
                "attributes": {"passage_id": "tower#0"},
                "content": [{"type": "text", "text": "A tower in Paris."}],
            }
        ],
        "has_more": False,
    }


@pytest.mark.parametrize(
    ("release", "options", "status"),
    [
        ("books", {"query": ""}, 400),
        ("books", {"query": "x", "max_num_results": 0}, 400),
        ("books", {"query": "x", "max_num_results": 51}, 400),
        ("bare", {"query": "x"}, 400),
        ("nope", {"query": "x"}, 404),
    ],
)
def test_what_cannot_be_searched_is_refused(
    books: Stand, release: str, options: dict[str, Any], status: int
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        books.client.vector_stores.search(release, **options)
    assert caught.value.status_code == status
