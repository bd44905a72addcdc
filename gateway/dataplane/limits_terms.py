"""What a client is told about its limits: `x-ratelimit-*` headers, refusals, and when to come back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

from gateway.dataplane.limits import WINDOW
from gateway.dataplane.table import Headers, Subject
from gateway.errors import BudgetExhausted, RateLimited
from gateway.transport.inbound import lines_of
from registry.clock import Clock, to_text
from registry.entities import BudgetPeriod

Rule = Literal["rpm", "tpm", "concurrency", "budget"]

_EPOCH = "1970-01-01T00:00:00.000000Z"
_NO_RETRY = (b"x-should-retry", b"false")
_BUSY_MS = 1000
"""When to try again where nobody can know when a running request ends."""


class Calendar:
    """Starts and ends of budget periods in UTC, computed once a day."""

    __slots__ = ("_clock", "_day", "_ends", "_starts", "_tomorrow")

    def __init__(self, clock: Clock) -> None:
        """Read the time from *clock*."""
        self._clock = clock
        self._day = self._tomorrow = datetime.min.replace(tzinfo=UTC)
        self._starts: dict[BudgetPeriod, str] = {}
        self._ends: dict[BudgetPeriod, datetime] = {}

    def now(self) -> dict[BudgetPeriod, str]:
        """The first instant, as stored, of each period that is now; of `total`, the year 1970."""
        self._turn()
        return self._starts

    def end(self, period: BudgetPeriod) -> tuple[datetime | None, int]:
        """When the *period* that is now ends, and in how many milliseconds; None for `total`."""
        now = self._turn()
        end = self._ends.get(period)
        return end, 0 if end is None else -((now - end) // timedelta(milliseconds=1))

    def _turn(self) -> datetime:
        now = self._clock()
        if not self._day <= now < self._tomorrow:
            self._day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            self._tomorrow = self._day + timedelta(days=1)
            month = self._day.replace(day=1)
            self._starts = {"day": to_text(self._day), "month": to_text(month), "total": _EPOCH}
            self._ends = {"day": self._tomorrow, "month": (month + timedelta(days=32)).replace(day=1)}
        return now


def span(ms: int) -> bytes:
    """
    A length of time as OpenAI writes it.

    >>> [span(ms) for ms in (0, 12, 1000, 59_700, 60_412, 360_000)]
    [b'0s', b'12ms', b'1s', b'59.7s', b'1m0.412s', b'6m0s']
    """
    if 0 < ms < 1000:
        return b"%dms" % ms
    minutes, rest = divmod(ms, 60_000)
    seconds, millis = divmod(rest, 1000)
    fraction = b".%03d" % millis if millis else b""
    text = b"%d%bs" % (seconds, fraction.rstrip(b"0"))
    return b"%dm%b" % (minutes, text) if minutes else text


def rate_headers(
    rpm: int | None, requests_left: int, tpm: int | None, tokens_left: int, reset_ms: int
) -> Headers:
    """`x-ratelimit-*` of what is limited; *reset_ms* is until everything counted is forgotten."""
    reset = span(reset_ms)
    headers: Headers = ()
    if rpm is not None:
        headers = (
            (b"x-ratelimit-limit-requests", b"%d" % rpm),
            (b"x-ratelimit-remaining-requests", b"%d" % max(0, requests_left)),
            (b"x-ratelimit-reset-requests", reset),
        )
    if tpm is not None:
        headers += (
            (b"x-ratelimit-limit-tokens", b"%d" % tpm),
            (b"x-ratelimit-remaining-tokens", b"%d" % max(0, tokens_left)),
            (b"x-ratelimit-reset-tokens", reset),
        )
    return headers


def rate_lines(rpm: int | None, requests_left: int, tpm: int | None, tokens_left: int) -> bytes:
    """`rate_headers` of a request just admitted, as they are sent."""
    template = _template(rpm, tpm)
    if rpm is None:
        return template % tokens_left if tpm is not None else b""
    return template % requests_left if tpm is None else template % (requests_left, tokens_left)


@lru_cache(maxsize=1024)
def _template(rpm: int | None, tpm: int | None) -> bytes:
    """What is the same for all requests under these limits, with a place for each number that is not."""
    headers = rate_headers(rpm, 0, tpm, 0, WINDOW * 1000)
    return lines_of([(name, b"%d" if b"remaining" in name else value) for name, value in headers])


def refusal(
    subject: Subject, rule: Rule, *, used: int, asked: int, wait_ms: int, headers: Headers, calendar: Calendar
) -> RateLimited:
    """
    The error for a request that *rule* of *subject* does not let through.

    Args:
        used: what counts against the rule now, without this request.
        asked: what this request would add.
        wait_ms: until it would be let through, as far as is known; read for rpm and tpm only.
        headers: `x-ratelimit-*` of the subject.
    """
    limits, kind = subject.limits, subject.kind
    name = f"{kind}.{rule}"
    if rule == "budget":
        return _budget(subject, used, asked, headers, calendar)
    if rule == "concurrency":
        message = (
            f"the concurrency limit of this {kind} is {limits.concurrency} requests at the same time and "
            f"{used} are running; try again when one of them has ended"
        )
        return RateLimited(message, headers=_retry(_BUSY_MS) + headers, rule=name)
    if rule == "rpm":
        message = (
            f"the rpm limit of this {kind} is {limits.rpm} requests per minute and {used} were made; "
            f"try again in {span(wait_ms).decode()}"
        )
    elif limits.tpm is not None and asked > limits.tpm:
        message = (
            f"this request is too large: it needs {asked} tokens, prompt and completion, and the tpm limit "
            f"of this {kind} is {limits.tpm} tokens per minute, so it can never fit; shorten the prompt or "
            "lower max_tokens"
        )
        return RateLimited(message, headers=(_NO_RETRY, *headers), rule=name)
    else:
        message = (
            f"the tpm limit of this {kind} is {limits.tpm} tokens per minute, {used} are used and this "
            f"request needs {asked}; try again in {span(wait_ms).decode()}"
        )
    return RateLimited(message, headers=_retry(wait_ms) + headers, rule=name)


def _budget(subject: Subject, used: int, asked: int, headers: Headers, calendar: Calendar) -> RateLimited:
    limits = subject.limits
    period = limits.budget_period
    end, left_ms = calendar.end(period)
    resets = "it does not reset" if end is None else f"it resets at {end:%Y-%m-%dT%H:%M:%SZ}"
    each = "in total" if end is None else f"per {period}"
    message = (
        f"the budget of this {subject.kind} is {_usd(limits.budget_microusd or 0)} USD {each}, {_usd(used)} "
        f"USD are spent or reserved and this request may cost {_usd(asked)} USD; {resets}"
    )
    retry = () if end is None else _retry(left_ms)
    return BudgetExhausted(message, headers=(*retry, _NO_RETRY, *headers), rule=f"{subject.kind}.budget")


def _retry(wait_ms: int) -> Headers:
    wait_ms = max(1, wait_ms)
    return ((b"retry-after", b"%d" % -(-wait_ms // 1000)), (b"retry-after-ms", b"%d" % wait_ms))


def _usd(microusd: int) -> str:
    dollars, rest = divmod(microusd, 1_000_000)
    digits = f"{rest:06d}".rstrip("0")
    return f"{dollars}.{digits:0<2}"
