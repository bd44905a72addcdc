"""What models cost. A price is never changed: a later one takes its place from its own date on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from pathlib import Path

from sqlalchemy import Connection, RowMapping, insert, select

from registry import audit, parse, tables, versions
from registry.clock import from_text, to_text
from registry.db import bump_revision
from registry.entities import Price, Version
from registry.errors import BadInput
from registry.refs import check_name

_TABLE = tables.prices
_MAX_MODEL = 200
_EVER = "1970-01-01T00:00:00Z"
_EXACT = Context(prec=40, traps=[Inexact, InvalidOperation])


def picousd(usd_per_million: str, field: str) -> int:
    """
    Dollars for a million tokens as pico-USD for one token, exactly: both are the same by 10^6.

    Raises:
        BadInput: not a number, negative, above 10,000, or finer than pico-USD.

    >>> picousd("0.075", "input")
    75000
    """
    return _scaled(usd_per_million, field, 10_000, "dollars for a million tokens")


def microusd(usd: str, field: str) -> int:
    """
    Dollars as micro-USD, exactly.

    Raises:
        BadInput: not a number, negative, above 10^9, or finer than micro-USD.

    >>> microusd("12.50", "budget")
    12500000
    """
    return _scaled(usd, field, 10**9, "dollars")


def dollars(microusd: int) -> str:
    """
    Micro-USD as dollars, every digit of them.

    >>> dollars(1_234_000_056)
    '1234.000056'
    """
    return f"{microusd // 10**6}.{microusd % 10**6:06d}"


def per_million(picousd: int) -> str:
    """
    Pico-USD for a token as dollars for a million of them, without needless zeros.

    >>> per_million(75_000), per_million(3_000_000)
    ('0.075', '3')
    """
    return dollars(picousd).rstrip("0").rstrip(".")


def check(price: Price) -> None:
    """
    Check what *price* is for.

    Raises:
        BadInput: the model is not provider/model or a pattern of it.
    """
    provider, slash, model = price.model.partition("/")
    if not (slash and provider and model) or len(price.model) > _MAX_MODEL or "*" in provider:
        message = f"{price.model[:200]!r} is not provider/model, or a pattern such as ollama/*"
        raise BadInput(message)


def set_price(connection: Connection, price: Price, *, actor: str, now: datetime) -> bool:
    """
    Store *price*; returns False when the same one, effective from the same moment, is there already.

    Of two for the same model and moment the one set last is in force.

    Raises:
        BadInput: the model is not provider/model or a pattern of it.
    """
    check(price)
    columns, since = _TABLE.c, to_text(price.effective_from)
    query = select(_TABLE).where(columns.model == price.model, columns.effective_from == since)
    row = connection.execute(query.order_by(columns.id.desc())).mappings().first()
    if row is not None and _price(row) == price:
        return False
    connection.execute(
        insert(_TABLE).values(
            model=price.model,
            effective_from=since,
            input_picousd=price.input_picousd,
            output_picousd=price.output_picousd,
            cached_input_picousd=price.cached_input_picousd,
            withdrawn=int(price.withdrawn),
            created_at=to_text(now),
            created_by=actor[:128],
        )
    )
    body = {
        "from": since,
        "input_picousd": price.input_picousd,
        "output_picousd": price.output_picousd,
        "cached_input_picousd": price.cached_input_picousd,
        "withdrawn": price.withdrawn,
    }
    audit.append(connection, "price.set", f"price/{price.model}", body, actor=actor[:128], now=now)
    bump_revision(connection)
    return True


@dataclass(frozen=True, slots=True)
class TablePrice:
    """One line of a price table, in US dollars for a million tokens, as text such as `"0.15"`."""

    model: str
    input: str
    output: str
    cached_input: str | None = None


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices as a version: what a release that pins it is charged by, whatever prices change later."""

    prices: tuple[TablePrice, ...]

    def __post_init__(self) -> None:
        """Refuse prices that cannot be understood, and two for one model."""
        for line in self.prices:
            check(_priced(line))
        models = [line.model for line in self.prices]
        if not models or len(set(models)) < len(models):
            message = "prices: name at least one model, and each once"
            raise BadInput(message)


@dataclass(frozen=True, slots=True)
class PriceFile:
    """What a price table file says."""

    name: str
    prices: tuple[TablePrice, ...]

    def __post_init__(self) -> None:
        """Refuse a malformed name, and what `PriceTable` refuses."""
        check_name(self.name)
        PriceTable(self.prices)

    @property
    def content(self) -> PriceTable:
        """What is stored."""
        return PriceTable(self.prices)


def read_table(path: Path) -> PriceFile:
    """The price table file at *path*. Raises BadInput naming the line."""
    return parse.read(path, PriceFile)


def push_table(
    connection: Connection, name: str, content: PriceTable, *, actor: str, now: datetime
) -> Version:
    """Store a price table. Idempotent: equal content, same version. Raises BadInput for a malformed name."""
    return versions.push(connection, "price-table", name, content, actor=actor, now=now)


def of_table(version: Version) -> tuple[Price, ...]:
    """The prices of a price table, in force since ever."""
    source = f"price table {version.name}:{version.number}"
    return tuple(_priced(line) for line in parse.build(version.content, PriceTable, source=source).prices)


def _priced(line: TablePrice) -> Price:
    return Price(
        line.model,
        from_text(_EVER),
        picousd(line.input, f"{line.model}: input"),
        picousd(line.output, f"{line.model}: output"),
        picousd(line.cached_input, f"{line.model}: cached_input") if line.cached_input is not None else None,
    )


def list_prices(connection: Connection) -> list[Price]:
    """Every price, by model and date; of two for the same moment the later one set is later in the list."""
    query = select(_TABLE).order_by(_TABLE.c.model, _TABLE.c.effective_from, _TABLE.c.id)
    return [_price(row) for row in connection.execute(query).mappings()]


def current(prices: Sequence[Price], at: datetime) -> list[Price]:
    """Of *prices* as `list_prices` orders them, the one in force at *at* for each model that has one."""
    latest: dict[str, Price] = {}
    for price in prices:
        if price.effective_from <= at:
            latest[price.model] = price
    return [price for price in latest.values() if not price.withdrawn]


def _price(row: RowMapping) -> Price:
    return Price(
        model=row["model"],
        effective_from=from_text(row["effective_from"]),
        input_picousd=row["input_picousd"],
        output_picousd=row["output_picousd"],
        cached_input_picousd=row["cached_input_picousd"],
        withdrawn=bool(row["withdrawn"]),
    )


def _scaled(text: str, field: str, most: int, what: str) -> int:
    try:
        value = _EXACT.create_decimal(text)
    except Inexact as error:
        message = f"{field}: {text[:50]} has more than six decimals, which cannot be kept exactly"
        raise BadInput(message) from error
    except InvalidOperation as error:
        message = f"{field}: {text[:50]!r} is not an amount of {what} such as 0.15"
        raise BadInput(message) from error
    if not value.is_finite() or not 0 <= value <= most:
        message = f"{field}: {text[:50]} is not 0 to {most} {what}"
        raise BadInput(message)
    scaled = _EXACT.multiply(value, Decimal(10**6))
    if scaled != scaled.to_integral_value():
        message = f"{field}: {text[:50]} has more than six decimals, which cannot be kept exactly"
        raise BadInput(message)
    return int(scaled)
