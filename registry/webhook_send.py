"""
Sending what is in the outbox: at least once, signed, and never where an attacker would like it to go.

A delivery is claimed in one short transaction, sent outside of any, and settled in another. Whoever dies in
between leaves it due again, with the same id. A name is resolved once and the address that was checked is
connected to, so that a name cannot change its mind in between.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection

from registry import webhooks
from registry.clock import Clock
from registry.errors import BadInput
from registry.webhooks import SECRET_PREFIX, Outcome, Parcel

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult

T = TypeVar("T")
Opening = Callable[[], AbstractContextManager[Connection]]
CONNECT_TIMEOUT_S = 5.0
TOTAL_TIMEOUT_S = 10.0
MOST_ANSWER_BYTES = 65_536
_AT_ONCE = 8
"""Webhooks that are sent to at the same time."""
_IN_A_ROW = 200
"""Deliveries to one webhook before the others are looked at again."""
_KEPT = timedelta(days=30)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


_PRIVATE = "its host has an address that is not public; add the webhook with --allow-private if that is meant"


class _Refused(OSError):
    """What the resolver says of a host without an address that may be connected to."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How the attempts of one round ended."""

    delivered: int = 0
    failed: int = 0
    """To be tried again."""
    dead: int = 0
    """Given up after the last attempt."""


async def deliver(reading: Opening, writing: Opening, clock: Clock) -> Tally:
    """
    Try everything that is due, webhooks beside each other and each one's events in turn.

    A webhook that fails is left until the next round. Safe beside other processes that do the same.

    Args:
        reading: opens a read transaction; called from other threads.
        writing: likewise a write transaction.

    Raises:
        StoreUnavailable: the registry cannot be reached; what was sent meanwhile may be sent again.
    """
    ready = await asyncio.to_thread(_within, reading, lambda found: webhooks.due(found, clock()))
    if not ready:
        return Tally()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(webhook: str) -> list[Outcome]:
        async with gate:
            return await _turn(reading, writing, clock, webhook)

    ended = [outcome for turn in await asyncio.gather(*map(one, ready)) for outcome in turn]
    return Tally(ended.count("delivered"), ended.count("failed"), ended.count("dead"))


async def attempt(writing: Opening, clock: Clock, parcel: Parcel) -> str | None:
    """Send a claimed delivery and write down how that ended; returns why it failed, or None."""
    return (await _attempt(writing, clock, parcel))[0]


def prune(connection: Connection, now: datetime) -> int:
    """Forget deliveries that ended and are older than 30 days; returns how many."""
    return webhooks.prune(connection, now - _KEPT)


async def send(parcel: Parcel, now: datetime, *, total_s: float = TOTAL_TIMEOUT_S) -> str | None:
    """
    Make one attempt; returns why it failed, in words without anything the receiver said, or None.

    Redirects are not followed, proxies not used, compressed answers not unpacked.

    Args:
        total_s: how long it may take from the first look at the host's name to the end of the answer.
    """
    import aiohttp

    try:
        check_target(parcel.url, allow_private=parcel.allow_private)
        connector = aiohttp.TCPConnector(
            resolver=_resolver(allow_private=parcel.allow_private), force_close=True
        )
        async with (
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as session,
            session.post(
                parcel.url, data=parcel.body.encode(), headers=headers(parcel, now), allow_redirects=False
            ) as answer,
        ):
            return await _judged(answer)
    except BadInput as error:
        return error.message
    except TimeoutError:
        return f"no answer within {total_s:g} seconds"
    except (aiohttp.ClientError, OSError) as error:
        return (
            _PRIVATE if isinstance(error.__cause__, _Refused) else f"cannot be sent: {type(error).__name__}"
        )


def headers(parcel: Parcel, now: datetime) -> dict[str, str]:
    """The headers of an attempt at *now*, the signature among them."""
    timestamp = int(now.timestamp())
    return {
        "content-type": "application/json",
        "user-agent": "sluicegate-webhooks/1",
        "webhook-id": parcel.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(parcel.secret, parcel.id, timestamp, parcel.body.encode()),
    }


def signature(secret: str, identity: str, timestamp: int, body: bytes) -> str:
    """
    What proves that a delivery is ours: `v1,` and the base64 HMAC-SHA256 of `id.timestamp.body`.

    Source: Standard Webhooks 1.0, symmetric signatures.

    >>> signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
    ...           b'{"test": 2432232314}')
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{identity}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def check_target(url: str, *, allow_private: bool) -> None:
    """
    Check a webhook's URL, and its host where that is an address; a name is checked whenever it is resolved.

    Raises:
        BadInput: events may not be sent there.
    """
    host = webhooks.check_url(url, allow_private=allow_private).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not is_allowed(address, allow_private=allow_private):
        raise BadInput(_PRIVATE)


def is_allowed(address: ipaddress.IPv4Address | ipaddress.IPv6Address, *, allow_private: bool) -> bool:
    """
    Whether events may be sent to *address*, whatever it is wrapped in.

    >>> is_allowed(ipaddress.ip_address("::ffff:169.254.169.254"), allow_private=False)
    False
    """
    inner: Any = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.teredo:
            inner = address.teredo[1]
    if inner is not None and not is_allowed(inner, allow_private=allow_private):
        return False
    if address.is_multicast or address.is_unspecified:
        return False
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    return allow_private or mapped or address.is_global


async def _turn(reading: Opening, writing: Opening, clock: Clock, webhook: str) -> list[Outcome]:
    """Everything due for one webhook, until something fails."""
    ended: list[Outcome] = []
    for _ in range(_IN_A_ROW):
        parcel = await asyncio.to_thread(_claimed, reading, writing, clock, webhook)
        if parcel is None:
            break
        _, outcome = await _attempt(writing, clock, parcel)
        ended.append(outcome)
        if outcome != "delivered":
            break
    return ended


async def _attempt(writing: Opening, clock: Clock, parcel: Parcel) -> tuple[str | None, Outcome]:
    error = await send(parcel, clock())

    def settle(connection: Connection) -> Outcome:
        return webhooks.settle(connection, parcel, error, clock())

    return error, await asyncio.to_thread(_within, writing, settle)


def _claimed(reading: Opening, writing: Opening, clock: Clock, webhook: str) -> Parcel | None:
    """The next delivery, claimed; None when nothing is due or another process is at it."""
    now = clock()
    parcel = _within(reading, lambda found: webhooks.first(found, webhook, now))
    if parcel is None or not _within(writing, lambda found: webhooks.claim(found, parcel, now)):
        return None
    return parcel


def _within(opening: Opening, work: Callable[[Connection], T]) -> T:
    with opening() as connection:
        return work(connection)


async def _judged(answer: aiohttp.ClientResponse) -> str | None:
    """Read a bounded piece of the answer; what counts is its status."""
    left = MOST_ANSWER_BYTES
    while left > 0:
        piece = await answer.content.read(left)
        if not piece:
            break
        left -= len(piece)
    if 200 <= answer.status < 300:
        return None
    redirect = "; redirects are not followed" if 300 <= answer.status < 400 else ""
    return f"answered {answer.status}{redirect}"


def _resolver(*, allow_private: bool) -> AbstractResolver:
    from aiohttp.abc import AbstractResolver as Base
    from aiohttp.resolver import ThreadedResolver

    class Checked(Base):
        """The system's resolver, without the addresses that must not be reached."""

        def __init__(self) -> None:
            self._inner = ThreadedResolver()

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await self._inner.resolve(host, port, family)
            kept = [
                one
                for one in found
                if is_allowed(ipaddress.ip_address(one["host"]), allow_private=allow_private)
            ]
            if not kept:
                raise _Refused
            return kept

        async def close(self) -> None:
            await self._inner.close()

    return Checked()
