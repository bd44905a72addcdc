"""What every handler is given: where tables come from, worker threads, and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.dataplane.table import Embedder, RouteTable, Target
from gateway.dataplane.work import Work


class Sources(Protocol):
    """The control plane as the data plane sees it."""

    @property
    def table(self) -> RouteTable:
        """The table in force; a request reads it once."""
        ...

    @property
    def ready(self) -> bool:
        """Whether every release in production can answer."""
        ...

    async def direct(self, model: str) -> Target:
        """
        A target for `provider/model`, constructed at its first use.

        Raises:
            UnknownModel: no such provider, or a name that no client may choose.
            NotReady: the provider cannot be made.
        """
        ...

    async def embedder(self, model: str) -> Embedder | None:
        """The local embedder that `minilm/…` names; None when *model* names none."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one request may ask for."""

    max_body_bytes: int
    body_timeout_s: float
    max_batch_rows: int


@dataclass(frozen=True, slots=True)
class Services:
    """Shared by all requests of one gateway."""

    sources: Sources
    work: Work
    limits: Limits
    default_predict: str = ""
