"""What an embedder is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from registry import plugins

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """
    Pure and thread-safe: the vector of a text depends on that text alone, not on its neighbours.

    *digest* names weights and algorithm: equal digests mean interchangeable vectors.
    """

    @property
    def name(self) -> str:
        """Name of the plug-in."""
        ...

    @property
    def digest(self) -> str:
        """`sha256:` and 64 hex digits."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The float32 vectors (n, dimension) of *texts*, in order, rows of unit length."""
        ...


def load(name: str, cache: Path, *, threads: int = 1) -> Embedder:
    """
    The embedder registered as *name* in `sluicegate.embedders`.

    Args:
        cache: folder for converted weights; made when needed.
        threads: how many it may use, at least 1.

    Raises:
        NotFound: no such embedder; the message lists those there are.
        MissingExtra: its dependencies are not installed.
        WeightsUnavailable: its weights are missing or were changed.
    """
    build = cast("Callable[..., Embedder]", plugins.load("embedders", name))
    return build(cache, threads=threads)
