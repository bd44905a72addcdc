"""What a request may use, reserved before it is sent on, and put right when all is known."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Literal

import msgspec

from gateway.dataplane.exchange import Exchange, pseudonym
from gateway.dataplane.limits import Limiter, estimate
from gateway.dataplane.request import Body, field
from gateway.dataplane.services import Services
from gateway.dataplane.table import Subject
from gateway.errors import InvalidRequest, LedgerFull, PriceUnknown
from registry.entities import Price

_MAX_CHOICES = 128
_MAX_TOKENS = 10**9
_USER, _SESSION = b"x-sluicegate-user", b"x-sluicegate-session"
_NOTHING: Body = {}
_TEXT, _NUMBER = msgspec.json.Decoder(str | None), msgspec.json.Decoder(int | None)


async def reserve(
    exchange: Exchange, services: Services, *, body: Body = _NOTHING, size: int = 0, model: str = ""
) -> None:
    """`reserve_now` for what writes nothing, with the waiting done. Raises the same."""
    waiting = reserve_now(exchange, services, body=body, size=size, model=model)
    if waiting is not None:
        await waiting


def reserve_now(
    exchange: Exchange,
    services: Services,
    *,
    body: Body = _NOTHING,
    size: int = 0,
    model: str = "",
    generates: bool = False,
) -> Awaitable[None] | None:
    """
    Count the request against every limit that covers it; `settle` puts the estimate right.

    Args:
        size: bytes of the request that a model will read.
        model: `provider/model` that is asked first; empty where nothing is billed.
        generates: whether it writes, so that completion tokens are reserved too.

    Returns:
        None once all is reserved, or what must be awaited for that.

    Raises:
        RateLimited, BudgetExhausted: a limit is reached; nothing stays counted.
        PriceUnknown: money is limited, or prices must be known, and *model* has none.
        LimitsUnavailable: the store that counts cannot be reached.
        LedgerFull: what it would use could not be noted.
    """
    if services.journal is not None and services.journal.full:
        raise LedgerFull
    limiter = services.limiter
    subjects = _subjects(exchange, body, model)
    price = None
    if model:
        price = exchange.price = _price(exchange, model)
        exchange.priced = model
        if price is None:
            _require_price(model, subjects, services.limits.unknown_price)
    if limiter is None or not subjects:
        return None
    prompt = completion = cost = 0
    if model:
        prompt, completion = estimate(
            size,
            _most(body) if generates else 0,
            _choices(body) if generates else 1,
            services.limits.default_max_tokens,
        )
        cost = price.cost_microusd(prompt, completion) if price is not None else 0
    hold = exchange.hold = limiter.admit_now(subjects, prompt + completion, cost)
    return None if hold is not None else _admit(exchange, limiter, subjects, prompt + completion, cost)


async def _admit(
    exchange: Exchange, limiter: Limiter, subjects: Sequence[Subject], tokens: int, cost_microusd: int
) -> None:
    exchange.hold = await limiter.admit(subjects, tokens, cost_microusd)


def _price(exchange: Exchange, model: str) -> Price | None:
    """What *model* costs in this request: by its release's own price table where there is one."""
    target = exchange.target
    own = target.route.prices if target is not None else None
    return (exchange.table.prices if own is None else own).of(model, exchange.now)


def _require_price(model: str, subjects: Sequence[Subject], unknown: Literal["warn", "refuse"]) -> None:
    if unknown == "refuse" or any(subject.limits.budget_microusd is not None for subject in subjects):
        message = f"{model[:200]!r} has no price, and a budget counts money; set one: gateway prices set"
        raise PriceUnknown(message)


def settle(exchange: Exchange) -> None:
    """Compute what the request cost, and give back what it reserved and did not use. Idempotent."""
    record, hold = exchange.record, exchange.hold
    if record.attempts and record.model:
        price = exchange.price
        if record.model != exchange.priced:
            price = _price(exchange, record.model)
        if price is not None:
            record.cost_microusd = price.cost_microusd(
                record.prompt_tokens,
                record.completion_tokens,
                min(record.cached_tokens, record.prompt_tokens),
            )
    if hold is not None:
        hold.settle(record.prompt_tokens + record.completion_tokens, record.cost_microusd or 0)


def person_of(exchange: Exchange, body: Body = _NOTHING) -> str:
    """The end user that header or body name; empty where they name none."""
    return _named(exchange, _USER, body, "user", "safety_identifier")


def session_of(exchange: Exchange) -> str:
    """The session that a header names; empty where none does."""
    return _named(exchange, _SESSION, _NOTHING)


def _subjects(exchange: Exchange, body: Body, model: str) -> tuple[Subject, ...]:
    subjects, rules, fields = exchange.grant.subjects, exchange.table.limits, exchange.inbound.fields
    user = session = ""
    if _USER in fields or "user" in body or "safety_identifier" in body:
        user = _named(exchange, _USER, body, "user", "safety_identifier")
    if _SESSION in fields:
        session = _named(exchange, _SESSION, body)
    if not (user or session or rules):
        return subjects
    found, record = list(subjects), exchange.record
    record.user = _add_person(found, exchange, "user", user)
    record.session = _add_person(found, exchange, "session", session)
    name = model if record.release.endswith("/*") else record.release
    limits = rules.get(("model", name)) or rules.get(("model", "*"))
    if limits is not None and name:
        found.append(Subject("model", name, limits))
    return tuple(found)


def _add_person(found: list[Subject], exchange: Exchange, kind: Literal["user", "session"], name: str) -> str:
    """
    Add the limits of a user or session, and return the pseudonym it is counted by.

    A name with a rule of its own is one person everywhere; any other is one for each account, so that
    two customers' users called `1` do not use up each other's limits.
    """
    if not name:
        return ""
    rules = exchange.table.limits
    limits = rules.get((kind, name))
    if limits is not None:
        person = pseudonym(name)
    else:
        person = pseudonym(f"{exchange.grant.account}\0{name}")
        limits = rules.get((kind, "*"))
    if limits is not None:
        found.append(Subject(kind, person, limits))
    return person


def _named(exchange: Exchange, header: bytes, body: Body, *fields: str) -> str:
    """Who is named in a header, or else in the body; empty where nobody is."""
    value = exchange.header(header)
    if value is not None:
        return value.decode("latin-1")
    for name in fields:
        if name in body:
            text: str | None = field(body, name, _TEXT)
            if text:
                return text
    return ""


def _most(body: Body) -> int | None:
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        if name in body:
            return _number(body, name, 0, _MAX_TOKENS)
    return None


def _choices(body: Body) -> int:
    if "n" not in body and "best_of" not in body:
        return 1
    return max(_number(body, name, 1, _MAX_CHOICES) or 1 for name in ("n", "best_of"))


def _number(body: Body, name: str, least: int, most: int) -> int | None:
    number: int | None = field(body, name, _NUMBER)
    if number is not None and not least <= number <= most:
        message = f"{name}: {number} is not {least} to {most}"
        raise InvalidRequest(message, param=name)
    return number
