"""What every handler is given: where tables come from, what counts and bounds, and worker threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from gateway.dataplane.admission import Admission
from gateway.dataplane.cache import Cache
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.idempotency import Answers
from gateway.dataplane.journal import Journal
from gateway.dataplane.limits import Limiter
from gateway.dataplane.stored import Stored
from gateway.dataplane.table import Embedder, RouteTable, Target
from gateway.dataplane.usage import UsageRecord
from gateway.dataplane.work import Work

if TYPE_CHECKING:
    from gateway.dataplane.mcp_proxy import ToolServer
from registry.entities import Feedback, UsageEntry


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

    def known(self, model: str) -> Target | None:
        """The target of a `provider/model` that was used before, if all its parts are there still."""
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


class Mirroring(Protocol):
    """Asks the shadows of releases."""

    def offer(self, exchange: Exchange) -> None:
        """A request that has a shadow was answered. Returns at once and raises nothing."""


class Records(Protocol):
    """What is on record of finished requests."""

    async def find(self, request_id: str) -> UsageEntry | None:
        """
        The record of one request, whoever made it.

        Raises:
            StoreUnavailable: the registry cannot be reached.
            Overloaded: too many ask already.
        """
        ...

    async def give(self, entry: UsageEntry, said: Feedback) -> tuple[str, bool]:
        """
        Note what was said of *entry*; its id, and whether it is new.

        Raises:
            BadInput: a row that the request did not predict.
            StoreUnavailable, Overloaded: as `find`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one request may ask for."""

    max_body_bytes: int
    body_timeout_s: float
    max_batch_rows: int
    default_max_tokens: int = 1024
    unknown_price: Literal["warn", "refuse"] = "warn"


@dataclass(frozen=True, slots=True)
class Services:
    """Shared by all requests of one gateway."""

    sources: Sources
    work: Work
    limits: Limits
    default_predict: str = ""
    default_prediction: bool = False
    """Whether `/predict` answers a flagged default while its model is left alone."""
    admission: Admission = field(default_factory=lambda: Admission(4096, 1.0))
    limiter: Limiter | None = None
    """None where nothing is limited."""
    answers: Answers | None = None
    """Answers kept for Idempotency-Keys; None keeps none."""
    journal: Journal | None = None
    """Where usage is kept; None where it is not."""
    cache: Cache | None = None
    """Answers given again to equal requests; None keeps none."""
    responses: Stored | None = None
    """Responses kept for `previous_response_id`; None keeps none."""
    mirrors: Mirroring | None = None
    """None asks no shadow."""
    records: Records | None = None
    """What finished requests used; None knows of none."""
    span: Callable[[UsageRecord], bytes] | None = None
    """The `traceparent` that upstreams are sent, where spans are exported; None passes the client's on."""
    tool_servers: Mapping[str, ToolServer] = field(default_factory=dict)
    """Other servers whose tools are offered at `/mcp`, by name."""
