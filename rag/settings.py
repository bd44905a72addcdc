"""The `rag` section of the settings."""

from __future__ import annotations

from dataclasses import dataclass

from registry.errors import BadInput


@dataclass(frozen=True, slots=True)
class RagSettings:
    """How indexes are built and searched on this machine; what they contain lies in the registry."""

    embedder: str = "minilm"
    """Plug-in of `sluicegate.embedders` for new indexes; an existing index names its own."""
    store: str = "chroma"
    """Plug-in of `sluicegate.stores` that holds the vectors."""
    max_chars: int = 400
    """Longest passage of a new index, in characters."""
    threads: int = 1
    """Threads of the embedder, 1 to 64. More than the idle cores makes it slower."""
    batch_size: int = 32
    """Passages embedded between two saves while building, 1 to 4096."""

    def __post_init__(self) -> None:
        """Refuse numbers outside their ranges."""
        if not 1 <= self.threads <= 64:
            message = f"rag.threads is 1 to 64, not {self.threads}"
            raise BadInput(message)
        if not 1 <= self.batch_size <= 4096:
            message = f"rag.batch_size is 1 to 4096, not {self.batch_size}"
            raise BadInput(message)
