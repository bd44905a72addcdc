"""How limits, money and times are written on the command line, and how they are shown."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated

import typer

from registry import prices
from registry.clock import from_text
from registry.entities import BudgetPeriod, Limits, Spending
from registry.errors import BadInput

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MOST_DAYS = 36_500
_DATE = re.compile(r"\d{4}-\d\d-\d\d")

Rpm = Annotated[
    str | None, typer.Option(metavar="N", help="Requests in any 60 seconds; `none` for no limit.")
]
Tpm = Annotated[
    str | None,
    typer.Option(metavar="N", help="Tokens of prompts and answers in any 60 seconds; `none` for no limit."),
]
Concurrency = Annotated[
    str | None, typer.Option(metavar="N", help="Requests at the same time; `none` for no limit.")
]
BudgetUsd = Annotated[
    str | None,
    typer.Option(metavar="USD", help="Dollars in each period, such as 12.50; `none` for no limit."),
]
Period = Annotated[
    BudgetPeriod | None, typer.Option(help="What the budget is for; days and months are those of UTC.")
]


def limits_from(
    before: Limits,
    *,
    rpm: str | None = None,
    tpm: str | None = None,
    concurrency: str | None = None,
    budget_usd: str | None = None,
    budget_period: BudgetPeriod | None = None,
) -> Limits:
    """
    *before* with what the options say; None leaves a limit as it was, `none` takes it away.

    Raises:
        BadInput: not a whole number or an amount, or out of range.
    """
    budget = before.budget_microusd
    if budget_usd is not None:
        budget = None if budget_usd == "none" else prices.microusd(budget_usd, "--budget-usd")
    if budget_period is not None and budget is None:
        message = "--budget-period needs --budget-usd"
        raise BadInput(message)
    return replace(
        before,
        rpm=_number(rpm, "--rpm", before.rpm),
        tpm=_number(tpm, "--tpm", before.tpm),
        concurrency=_number(concurrency, "--concurrency", before.concurrency),
        budget_microusd=budget,
        budget_period=budget_period or (before.budget_period if budget is not None else "month"),
    )


def limits_text(limits: Limits) -> str:
    """
    Limits for people.

    >>> limits_text(Limits(rpm=100, concurrency=2, budget_microusd=12_500_000))
    '100 rpm, 2 at once, $12.50 a month'
    """
    parts = [
        f"{value} {unit}"
        for value, unit in ((limits.rpm, "rpm"), (limits.tpm, "tpm"), (limits.concurrency, "at once"))
        if value is not None
    ]
    if limits.budget_microusd is not None:
        parts.append(f"{usd(limits.budget_microusd)} {_each(limits.budget_period)}")
    return ", ".join(parts) or "none"


def usd(microusd: int) -> str:
    """
    Money for people, exact, at least cents: micro-USD, or pico-USD for a token as USD for a million.

    >>> usd(12_500_000), usd(75)
    ('$12.50', '$0.000075')
    """
    whole, _, digits = prices.dollars(microusd).partition(".")
    return f"${whole}.{digits.rstrip('0').ljust(2, '0')}"


def spent_text(used: Spending) -> str:
    """What was used, for people; what it does not count in money is said."""
    when = "in all" if used.period == "total" else f"this {used.period}"
    missing = f" and {used.unpriced} unpriced" if used.unpriced else ""
    return f"{usd(used.microusd)}{missing} {when}"


def names(text: str) -> list[str]:
    """The parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def duration(text: str, option: str) -> timedelta:
    """
    A time span such as `24h`.

    Raises:
        BadInput: not a whole number and one of s, m, h, d, w, or above a hundred years.

    >>> duration("36h", "--overlap")
    datetime.timedelta(days=1, seconds=43200)
    """
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdecimal() and unit in _UNITS):
        message = f"{option}: {text[:50]!r} is not a time span such as 30m, 24h or 7d"
        raise BadInput(message)
    if len(number) > 12 or (span := timedelta(**{_UNITS[unit]: int(number)})) > timedelta(days=_MOST_DAYS):
        message = f"{option}: {text[:50]} is longer than {_MOST_DAYS} days"
        raise BadInput(message)
    return span


def moment(text: str, option: str) -> datetime:
    """
    A date, which is its first instant in UTC, or a time with its zone.

    Raises:
        BadInput: neither.

    >>> moment("2026-01-31", "--from").isoformat()
    '2026-01-31T00:00:00+00:00'
    """
    try:
        return from_text(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    except BadInput as error:
        message = (
            f"{option}: {text[:50]!r} is not a date such as 2026-01-31 or a time such as 2026-01-31T15:00:00Z"
        )
        raise BadInput(message) from error


def _number(text: str | None, option: str, before: int | None) -> int | None:
    if text is None:
        return before
    if text == "none":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        message = f"{option}: {text[:50]!r} is not a whole number above 0, or `none`"
        raise BadInput(message)
    return int(text)


def _each(period: BudgetPeriod) -> str:
    return "in all" if period == "total" else f"a {period}"
