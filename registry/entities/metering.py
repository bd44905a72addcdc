"""Keys, limits, prices and what was used."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from registry.errors import BadInput

BudgetPeriod = Literal["day", "month", "total"]
SubjectKind = Literal["key", "team", "user", "session", "model"]
"""Whom a limit counts: a key's account, its team, the end user or session it names, a model or release."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one subject may use; None is no limit."""

    rpm: int | None = None
    """Requests in any 60 seconds."""
    tpm: int | None = None
    """Tokens, prompt and completion together, in any 60 seconds."""
    concurrency: int | None = None
    """Requests at the same time."""
    budget_microusd: int | None = None
    """Money in each *budget_period*, in millionths of a US dollar."""
    budget_period: BudgetPeriod = "month"
    """Days and months are those of UTC."""

    def __post_init__(self) -> None:
        """Refuse limits that say nothing sensible."""
        for name in ("rpm", "tpm", "concurrency"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 10**12:
                message = f"{name}: {value} is not 1 to 10^12; leave it out for no limit"
                raise BadInput(message)
        if self.budget_microusd is not None and not 0 <= self.budget_microusd <= 10**15:
            message = f"budget: {self.budget_microusd} micro-USD is not 0 to 10^15"
            raise BadInput(message)

    @property
    def unlimited(self) -> bool:
        """Whether nothing is bounded."""
        return (self.rpm, self.tpm, self.concurrency, self.budget_microusd) == (None, None, None, None)


@dataclass(frozen=True, slots=True)
class LimitRule:
    """Limits of a subject that is not a key."""

    kind: Literal["team", "user", "session", "model"]
    subject: str
    """Its name; `*` is each one of that kind that has no rule of its own, counted separately."""
    limits: Limits


@dataclass(frozen=True, slots=True)
class Price:
    """What a provider's model costs from some moment on, in pico-USD (10^-12) per token."""

    model: str
    """`provider/model`, or a pattern such as `ollama/*`; the longest that fits wins."""
    effective_from: datetime
    input_picousd: int
    output_picousd: int
    cached_input_picousd: int | None = None
    """For prompt tokens that the provider read from its cache; None: as other prompt tokens."""
    withdrawn: bool = False
    """From that moment on *model* has no price of its own: a shorter pattern's applies, or none."""

    def __post_init__(self) -> None:
        """Refuse negative prices, and a withdrawal that names one."""
        if self.withdrawn and (self.input_picousd, self.output_picousd, self.cached_input_picousd) != (
            0, 0, None,
        ):  # fmt: skip
            message = f"price of {self.model}: what is withdrawn has none"
            raise BadInput(message)
        if min(self.input_picousd, self.output_picousd, self.cached_input_picousd or 0) < 0:
            message = f"price of {self.model}: must not be negative"
            raise BadInput(message)

    def cost_microusd(self, prompt: int, completion: int, cached: int = 0) -> int:
        """
        The cost of so many tokens in micro-USD, rounded up; *cached* ones are part of *prompt*.

        >>> from registry.clock import from_text
        >>> since = from_text("2026-01-01T00:00:00.000000Z")
        >>> Price("openai/gpt-4o-mini", since, 150_000, 600_000, 75_000).cost_microusd(1000, 10, 400)
        126
        """
        cached_price = self.input_picousd if self.cached_input_picousd is None else self.cached_input_picousd
        picousd = (prompt - cached) * self.input_picousd + cached * cached_price
        return -(-(picousd + completion * self.output_picousd) // 1_000_000)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a virtual key: never the key itself."""

    id: str
    name: str
    prefix: str
    digest: str
    """SHA-256 of the whole key, hex."""
    models: tuple[str, ...]
    """Release names or `provider/*` patterns it may call; `*` is all."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    routes: tuple[str, ...] = ("*",)
    """Paths or patterns such as `/v1/*` it may call; `*` is all."""
    team: str = ""
    limits: Limits = field(default_factory=Limits)
    account: str = ""
    """What its use is counted under: the id of the first key of a chain of rotations."""


class UsageEntry(NamedTuple):
    """
    What is stored of one request that used something. Users and sessions are pseudonyms.

    A tuple in the order of the table's columns, since nothing is stored as often.
    """

    request_id: str
    at: str
    """When it arrived, as `clock.to_text` writes it."""
    account: str
    key_id: str = ""
    team: str = ""
    user: str = ""
    session: str = ""
    release: str = ""
    """Release name, or `provider/*` for a model called directly."""
    digest: str = ""
    model: str = ""
    """`provider/model` that answered."""
    route: str = ""
    status: int = 0
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    rows: int = 0
    """Predictions made."""
    estimated: bool = False
    cost_microusd: int | None = None
    """None when no price was known."""


@dataclass(frozen=True, slots=True)
class Spending:
    """What one subject used in one period."""

    kind: SubjectKind
    subject: str
    period: BudgetPeriod
    start: str
    microusd: int
    requests: int
    tokens: int
    unpriced: int
    """Requests that used tokens without a known price, which so are not in *microusd*."""
