"""What a configuration file declares, and what must change in the registry for it to be so. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Literal

from gateway.cli.amounts import limits_text, moment
from gateway.cli.limits import one_subject
from gateway.cli.prices import price_text, same
from registry import accounts, prices
from registry.clock import to_text
from registry.entities import ApiKey, BudgetPeriod, LimitRule, Limits, Price
from registry.errors import BadInput

Amount = int | float | str
"""Dollars; a decimal fraction of YAML is taken digit for digit."""
Moment = datetime | date | str
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DeclaredPrice:
    """One entry of `prices`: dollars for a million tokens."""

    model: str
    input: Amount
    output: Amount
    cached_input: Amount | None = None
    effective_from: Moment | None = None
    """Date or time from which it holds; without one it holds until the first that has one."""

    def __post_init__(self) -> None:
        """Refuse what could not be stored."""
        prices.check(self.price)

    @property
    def price(self) -> Price:
        """The price; where no moment is declared, the one before all others of its model."""
        cached, at = self.cached_input, self.effective_from
        return Price(
            model=self.model,
            effective_from=_EVER if at is None else _moment(at, "effective_from"),
            input_picousd=prices.picousd(str(self.input), "input"),
            output_picousd=prices.picousd(str(self.output), "output"),
            cached_input_picousd=None if cached is None else prices.picousd(str(cached), "cached_input"),
        )


@dataclass(frozen=True, slots=True)
class DeclaredLimits:
    """One entry of `limits`: exactly one of team, user, session and model, and at least one limit."""

    team: str | None = None
    user: str | None = None
    session: str | None = None
    model: str | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    budget_usd: Amount | None = None
    budget_period: BudgetPeriod | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be stored."""
        if self.rule.limits.unlimited:
            message = "give at least one of rpm, tpm, concurrency and budget_usd"
            raise BadInput(message)

    @property
    def rule(self) -> LimitRule:
        """The rule."""
        kind, subject = one_subject(team=self.team, user=self.user, session=self.session, model=self.model)
        return LimitRule(kind, subject, _limits(self))


@dataclass(frozen=True, slots=True)
class DeclaredKey:
    """One entry of `keys`, known by its name; what it leaves out has the default, and no limit."""

    name: str
    models: tuple[str, ...] = ("*",)
    routes: tuple[str, ...] = ("*",)
    team: str = ""
    expires_at: Moment | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    budget_usd: Amount | None = None
    budget_period: BudgetPeriod | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be stored."""
        accounts.check_key(self.name, self.models, self.routes, self.team)
        _limits(self)
        _ = self.expires

    @property
    def limits(self) -> Limits:
        """Its limits."""
        return _limits(self)

    @property
    def expires(self) -> datetime | None:
        """When it expires; None is never."""
        return None if self.expires_at is None else _moment(self.expires_at, "expires_at")


@dataclass(frozen=True, slots=True)
class Declaration:
    """A whole file. A section that is left out is not looked after."""

    prices: tuple[DeclaredPrice, ...] | None = None
    limits: tuple[DeclaredLimits, ...] | None = None
    keys: tuple[DeclaredKey, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse two entries for one thing."""
        _once("prices", ((one.model, one.price.effective_from) for one in self.prices or ()))
        _once("limits", ((one.rule.kind, one.rule.subject) for one in self.limits or ()))
        _once("keys", ((one.name,) for one in self.keys or ()))


@dataclass(frozen=True, slots=True)
class Change:
    """One thing in which the registry differs from the file; `remove` is what the file does not name."""

    action: Literal["add", "change", "remove"]
    kind: Literal["price", "limits", "key"]
    name: str
    before: str
    after: str
    target: Price | LimitRule | DeclaredKey | None = None
    """What is to be; None to revoke the key."""
    key_id: str = ""
    """The key to change or to revoke."""

    def plain(self) -> dict[str, Any]:
        """For machines."""
        return {name: getattr(self, name) for name in ("action", "kind", "name", "before", "after")}


def plan_prices(declared: Sequence[DeclaredPrice], found: Sequence[Price], now: datetime) -> list[Change]:
    """
    Prices to add, so that from *now* on every model costs what is declared for that moment.

    What held in the past is left alone, as it has been charged, but for the very moments that are declared.
    """
    changes: list[Change] = []
    wanted: dict[str, list[Price]] = {}
    for one in declared:
        wanted.setdefault(one.model, []).append(one.price)
    for model in sorted({*wanted, *(price.model for price in found)}):
        want = sorted(wanted.get(model, ()), key=lambda price: price.effective_from)
        have = [price for price in found if price.model == model]
        dated = {price.effective_from for price in want} - {_EVER}
        moments = dated | {now} | {price.effective_from for price in have if price.effective_from > now}
        for at in sorted(moments):
            right, is_there = _at(want, at), _at(have, at)
            target = replace(right, effective_from=at) if right else Price(model, at, 0, 0, withdrawn=True)
            if (right is None and is_there is None) or (is_there is not None and same(is_there, target)):
                continue
            have = sorted([*have, target], key=lambda price: price.effective_from)
            if right is None:
                changes.append(Change("remove", "price", model, price_text(is_there or target), "", target))
            elif is_there is None:
                changes.append(Change("add", "price", model, "", price_text(target), target))
            else:
                before, after = price_text(is_there), price_text(target)
                changes.append(Change("change", "price", model, before, after, target))
    return changes


def plan_limits(declared: Sequence[DeclaredLimits], found: Sequence[LimitRule]) -> list[Change]:
    """Limits to set and to take away."""
    have = {(rule.kind, rule.subject): rule for rule in found}
    want = {(one.rule.kind, one.rule.subject): one.rule for one in declared}
    changes: list[Change] = []
    for key, rule in want.items():
        before = have.get(key)
        if before == rule:
            continue
        after = limits_text(rule.limits)
        if before is None:
            changes.append(Change("add", "limits", " ".join(key), "", after, rule))
        else:
            changes.append(Change("change", "limits", " ".join(key), limits_text(before.limits), after, rule))
    for key, rule in have.items():
        if key not in want:
            changes.append(Change("remove", "limits", " ".join(key), limits_text(rule.limits), "", rule))
    return changes


def plan_keys(declared: Sequence[DeclaredKey], found: Sequence[ApiKey], now: datetime) -> list[Change]:
    """
    Keys to make, to change and to revoke. Of keys that were rotated, the newest is compared with the file.

    All that still work are revoked where the name is not declared, or declared to have expired.

    Raises:
        BadInput: two keys that work have one declared name.
    """
    have: dict[str, list[ApiKey]] = {}
    for key in found:
        if not accounts.has_ended(key, now):
            have.setdefault(key.name, []).append(key)
    changes: list[Change] = []
    for one in declared:
        working = have.pop(one.name, [])
        newest = [key for key in working if accounts.successor(key, working, now) is None]
        if len(newest) > 1:
            ids = ", ".join(key.id for key in newest)
            message = f"keys: {one.name!r} names {len(newest)} keys, {ids}; revoke all but one"
            raise BadInput(message)
        after = _key_text(one.models, one.routes, one.team, one.limits, one.expires)
        if one.expires is not None and one.expires <= now:
            changes += [Change("change", "key", key.name, _text(key), after, None, key.id) for key in working]
        elif newest:
            (key,) = newest
            if (key.models, key.routes, key.team, key.limits, key.expires_at) != (
                one.models, one.routes, one.team, one.limits, one.expires,
            ):  # fmt: skip
                changes.append(Change("change", "key", one.name, _text(key), after, one, key.id))
        else:
            changes.append(Change("add", "key", one.name, "", after, one))
    undeclared = (key for keys in have.values() for key in keys)
    changes += [Change("remove", "key", key.name, _text(key), "", None, key.id) for key in undeclared]
    return changes


def _at(ordered: Sequence[Price], at: datetime) -> Price | None:
    """Of *ordered* prices of one model the one in force at *at*."""
    latest = next((price for price in reversed(ordered) if price.effective_from <= at), None)
    return None if latest is None or latest.withdrawn else latest


def _limits(entry: DeclaredLimits | DeclaredKey) -> Limits:
    budget = None if entry.budget_usd is None else prices.microusd(str(entry.budget_usd), "budget_usd")
    if budget is None and entry.budget_period is not None:
        message = "budget_period needs budget_usd"
        raise BadInput(message)
    return Limits(entry.rpm, entry.tpm, entry.concurrency, budget, entry.budget_period or "month")


def _moment(value: Moment, name: str) -> datetime:
    return moment(value if isinstance(value, str) else value.isoformat(), name)


def _text(key: ApiKey) -> str:
    return _key_text(key.models, key.routes, key.team, key.limits, key.expires_at)


def _key_text(
    models: Sequence[str], routes: Sequence[str], team: str, limits: Limits, expires: datetime | None
) -> str:
    parts = [f"models {','.join(models)}", f"routes {','.join(routes)}", f"limits {limits_text(limits)}"]
    if team:
        parts.insert(0, f"team {team}")
    if expires is not None:
        parts.append(f"until {to_text(expires)[:19]}Z")
    return "; ".join(parts)


def _once(section: str, names: Iterable[tuple[object, ...]]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        message = f"{section}: {' '.join(map(str, twice[0]))} is declared twice"
        raise BadInput(message)
