from __future__ import annotations

import pytest

from rag.settings import RagSettings
from registry.errors import BadInput, BadSettings
from registry.settings import load


def test_defaults_need_no_file() -> None:
    assert RagSettings("minilm", "chroma", 400, 1, 32) == load("rag", RagSettings, {})


def test_the_environment_overrides() -> None:
    environ = {"SLUICEGATE_RAG__EMBEDDER": "hashing", "SLUICEGATE_RAG__THREADS": "2"}
    assert RagSettings(embedder="hashing", threads=2) == load("rag", RagSettings, environ)


@pytest.mark.parametrize("name", ["threads", "batch_size"])
def test_numbers_outside_their_range_are_named(name: str) -> None:
    with pytest.raises(BadInput, match=rf"rag\.{name} is 1 to"):
        RagSettings(**{name: 0})  # type: ignore[arg-type]
    with pytest.raises(BadSettings, match=rf"rag\.{name} is 1 to"):
        load("rag", RagSettings, {f"SLUICEGATE_RAG__{name.upper()}": "100000"})
