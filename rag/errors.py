"""
Errors of retrieval.

    PlatformError
    ├── BadInput
    │   └── BadCorpus             a document cannot be read, is empty or is there twice
    ├── WeightsUnavailable        the embedder's weights are missing or not the published ones
    ├── EmbeddingCacheBroken      the file of remembered vectors cannot be used
    ├── IndexNotBuilt             this machine has no finished folder for the index
    ├── IndexBroken               the folder of the index is not what its manifest says
    ├── EmbedderMismatch          the vectors were made by another embedder
    └── RetrieverClosed           asked after `close`
"""

from __future__ import annotations

from registry.errors import BadInput, PlatformError


class BadCorpus(BadInput):
    """The corpus cannot be read. Correct the document that the message names."""

    code = "bad_corpus"


class WeightsUnavailable(PlatformError):
    """The embedder's weights are missing or were changed. Install them again."""

    code = "weights_unavailable"


class EmbeddingCacheBroken(PlatformError):
    """The remembered vectors cannot be used. Delete the file; the next build makes them again."""

    code = "embedding_cache_broken"


class IndexNotBuilt(PlatformError):
    """The index is registered but not built on this machine. Run `rag build` on its corpus."""

    code = "index_not_built"


class IndexBroken(PlatformError):
    """The index's folder was changed after it was built. Delete it and run `rag build` again."""

    code = "index_broken"


class EmbedderMismatch(PlatformError):
    """The index was made by another embedder than the one installed. Build it again."""

    code = "embedder_mismatch"


class RetrieverClosed(PlatformError):
    """The retriever was closed. Open it again before asking."""

    code = "retriever_closed"
