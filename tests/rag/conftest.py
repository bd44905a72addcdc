from __future__ import annotations

from pathlib import Path

import pytest

from rag.documents import Document
from rag.embedders.hashing import HashingEmbedder
from registry.artifacts import Artifacts

ARTICLES = {
    "keys": (
        "API keys",
        "Every caller needs a virtual key. A key is shown once. To rotate a key, make a new one.",
    ),
    "limits": (
        "Rate limits",
        "Each key has a token bucket. A request beyond the limit gets status 429 and a Retry-After header.",
    ),
    "volcano": (
        "Volcanoes",
        "Magma rises through cracks in the crust. At the surface it is called lava. Ash grounds planes.",
    ),
}


@pytest.fixture
def articles() -> list[Document]:
    return [Document(key, text, title) for key, (title, text) in ARTICLES.items()]


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


@pytest.fixture
def hashing() -> HashingEmbedder:
    return HashingEmbedder()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted weights, made once for all tests."""
    return tmp_path_factory.mktemp("models")
