"""
Equal requests of one account to one release get one answer for a while, where settings want it.

What is compared is what the upstream would be sent: after guards, prompt and passages, so a release that
retrieves other passages is asked anew. What is kept is what the client was sent, after the output's guards.
Answers of one account are never given to another, nor those of a release to its successor.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import Body, encode
from gateway.dataplane.table import Headers, Route

HEADER = b"x-sluicegate-cache"
_MOST_BYTES, _MOST = 64_000_000, 10_000
_NOT_KEPT = ("no-store", "no-cache")


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it was sent."""

    headers: Headers
    body: bytes
    until_s: float


class Cache:
    """Answers by account, release and request; the one longest unused makes room. Owned by one event loop."""

    def __init__(
        self,
        seconds: Mapping[str, float],
        most_bytes: int = _MOST_BYTES,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """
        Keep answers of each release for so many *seconds*.

        Args:
            seconds: release name or `provider/model` → seconds; `*` is every other.
            most_bytes: of all answers; none larger than an eighth of it is kept.
        """
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._now = now
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self.bytes = 0

    def key(self, exchange: Exchange, route: Route, body: Body, *, usage: bool) -> bytes | None:
        """
        What the answer is kept under; None where it is not to be.

        A client that sends `Cache-Control: no-cache` or `no-store` is answered anew. *usage* is whether a
        stream is to end with it.
        """
        if not self._lasts(route):
            return None
        asked = exchange.header(b"cache-control")
        if asked is not None and any(word in asked.decode("latin-1").lower() for word in _NOT_KEPT):
            return None
        model = f"{route.digest or route.name}\0{route.model}"
        scope = f"{exchange.record.account}\0{model}\0{exchange.path}\0{usage}\0"
        return hashlib.sha256(scope.encode() + encode(body)).digest()

    def get(self, key: bytes) -> Kept | None:
        """The answer kept under *key*."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until_s <= self._now():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def put(self, key: bytes, route: Route, headers: Headers, body: bytes) -> None:
        """Keep an answer; not one that is too large."""
        if len(body) > self._most_bytes // 8:
            return
        if key in self._kept:
            self._drop(key)
        own = tuple(header for header in headers if not header[0].startswith(b"x-sluicegate-"))
        self._kept[key] = Kept(own, body, self._now() + self._lasts(route))
        self.bytes += len(body)
        while self.bytes > self._most_bytes or len(self._kept) > _MOST:
            self._drop(next(iter(self._kept)))

    def _lasts(self, route: Route) -> float:
        name = route.name.removesuffix("*") + route.model if route.name.endswith("/*") else route.name
        return self._seconds.get(name, self._seconds.get("*", 0.0))

    def _drop(self, key: bytes) -> None:
        self.bytes -= len(self._kept.pop(key).body)
