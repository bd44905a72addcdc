"""
`Idempotency-Key`: a request that is sent again gets the answer of the first, byte for byte.

Answers are kept in this process alone, so workers and gateways do not share them. Kept are whole answers,
streams too; what ended with an error is tried again. Of several requests with one key at the same time one
runs and the others wait for its answer; when it fails, one of them runs instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.table import Headers
from gateway.errors import IdempotencyConflict, InvalidRequest, Overloaded

HEADER = b"idempotency-key"
_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_PASSING = frozenset({408, 409, 429})
_MAX_BYTES = 64_000_000
_MAX_ENTRIES, _MAX_OF_ACCOUNT = 10_000, 1_000
_REPLAYED = (b"idempotent-replayed", b"true")
Name = tuple[str, bytes]
"""Account and key."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer, and the request it answered."""

    digest: bytes
    status: int
    headers: Headers
    body: bytes
    until_s: float


class Answers:
    """Answers by account and key; the one longest unused makes room. Owned by one event loop."""

    def __init__(
        self, keep_s: float, max_bytes: int = _MAX_BYTES, now: Callable[[], float] = monotonic,
        *, max_of_account: int = _MAX_OF_ACCOUNT, wait_s: float = 600.0,
    ) -> None:  # fmt: skip
        """
        Keep each for *keep_s*, at most *max_bytes* of all, none larger than an eighth of that.

        Args:
            max_of_account: answers kept of each account; its own make room for its next.
            wait_s: how long one request waits for another's answer.
        """
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._now = now
        self._max_of_account = max_of_account
        self._wait_s = wait_s
        self._kept: OrderedDict[Name, Kept] = OrderedDict()
        self._of_account: dict[str, OrderedDict[Name, None]] = {}
        self._running: dict[Name, tuple[bytes, asyncio.Future[None]]] = {}
        self.bytes = 0

    async def claim(self, name: Name, digest: bytes) -> Kept | None:
        """
        The answer kept under *name*; None when the caller is to make it, and then calls `settle`.

        Waits while another makes it.

        Raises:
            IdempotencyConflict: *name* was used for a request with another digest.
            Overloaded: the other has not ended in time.
        """
        until_s = self._now() + self._wait_s
        while True:
            running = self._running.get(name)
            kept = self._find(name)
            known = running[0] if running is not None else kept.digest if kept is not None else digest
            if known != digest:
                raise IdempotencyConflict(param="Idempotency-Key")
            if running is None:
                if kept is None:
                    self._running[name] = (digest, asyncio.get_running_loop().create_future())
                return kept
            left_s = until_s - self._now()
            if left_s > 0:
                await asyncio.wait((running[1],), timeout=left_s)
            if self._running.get(name) is running:
                raise Overloaded("the request with this Idempotency-Key is still running; try again later")

    def settle(self, name: Name, status: int, headers: Headers, body: bytes | None) -> None:
        """
        The claimed request ended; *body* is its answer, if that was whole.

        It is kept if *status* is 200 to 499, but for 408, 409 and 429: another try may better those.
        """
        digest, waiting = self._running.pop(name)
        waiting.set_result(None)
        if body is None or not 200 <= status < 500 or status in _PASSING or len(body) > self._max_bytes // 8:
            return
        self._kept[name] = Kept(digest, status, headers, body, self._now() + self._keep_s)
        own = self._of_account.setdefault(name[0], OrderedDict())
        own[name] = None
        self.bytes += len(body)
        if len(own) > self._max_of_account:
            self._drop(next(iter(own)))
        while self.bytes > self._max_bytes or len(self._kept) > _MAX_ENTRIES:
            self._drop(next(iter(self._kept)))

    def _find(self, name: Name) -> Kept | None:
        kept = self._kept.get(name)
        if kept is None:
            return None
        if kept.until_s <= self._now():
            self._drop(name)
            return None
        self._kept.move_to_end(name)
        self._of_account[name[0]].move_to_end(name)
        return kept

    def _drop(self, name: Name) -> None:
        self.bytes -= len(self._kept.pop(name).body)
        own = self._of_account[name[0]]
        del own[name]
        if not own:
            del self._of_account[name[0]]


async def once(
    exchange: Exchange, answers: Answers, key: bytes, data: bytes, answer: Callable[[], Awaitable[None]]
) -> None:
    """
    Replay what was answered to this key, or *answer* and keep it.

    Raises:
        InvalidRequest: the key has another form.
        IdempotencyConflict: it was used for another request.
    """
    if not _KEY.fullmatch(key):
        message = "Idempotency-Key: must be 1 to 255 visible ASCII characters"
        raise InvalidRequest(message, param="Idempotency-Key")
    name = (exchange.record.account, key)
    kept = await answers.claim(name, hashlib.sha256(exchange.path.encode() + b"\0" + data).digest())
    if kept is not None:
        exchange.dialect = None  # it was kept as it was sent
        exchange.respond(kept.status, kept.body, (*kept.headers, _REPLAYED))
        return
    exchange.copy = []
    try:
        await answer()
    finally:
        record = exchange.record
        whole = exchange.finished and not exchange.gone and not record.error
        body = b"".join(exchange.copy) if whole else None
        answers.settle(name, record.status, exchange.sent_headers, body)
