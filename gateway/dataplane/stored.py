"""Responses kept for those that go on from them: by tenant, bounded in number, bytes and time, in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

_MOST_BYTES = 64_000_000
_MOST, _MOST_OF_TENANT = 10_000, 1_000


@dataclass(frozen=True, slots=True)
class Kept:
    """A response, and the conversation up to and with it, as JSON."""

    response: bytes
    items: bytes
    inputs: int
    """How many of the items are the input of this response."""
    until_s: float

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.response) + len(self.items)


class Stored:
    """Responses by tenant and id; the one longest unused makes room. Owned by one event loop."""

    def __init__(
        self, keep_s: float, most_bytes: int = _MOST_BYTES, now: Callable[[], float] = monotonic
    ) -> None:
        """Keep each for *keep_s*, at most *most_bytes* of all, none larger than an eighth of that."""
        self._keep_s = keep_s
        self._most_bytes = most_bytes
        self._now = now
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._of: dict[str, int] = {}
        self.bytes = 0

    def put(self, tenant: str, name: str, response: bytes, items: bytes, inputs: int) -> None:
        """Keep a response; nothing where it is too large."""
        kept = Kept(response, items, inputs, self._now() + self._keep_s)
        if kept.size > self._most_bytes // 8:
            return
        self.drop(tenant, name)
        self._kept[tenant, name] = kept
        self._of[tenant] = self._of.get(tenant, 0) + 1
        self.bytes += kept.size
        if self._of[tenant] > _MOST_OF_TENANT:
            self.drop(*next(key for key in self._kept if key[0] == tenant))
        while self.bytes > self._most_bytes or len(self._kept) > _MOST:
            self.drop(*next(iter(self._kept)))

    def get(self, tenant: str, name: str) -> Kept | None:
        """The response called *name* of *tenant*, as long as it is kept."""
        kept = self._kept.get((tenant, name))
        if kept is None:
            return None
        if kept.until_s <= self._now():
            self.drop(tenant, name)
            return None
        self._kept.move_to_end((tenant, name))
        return kept

    def drop(self, tenant: str, name: str) -> bool:
        """Forget a response; whether there was one."""
        kept = self._kept.pop((tenant, name), None)
        if kept is None:
            return False
        self.bytes -= kept.size
        self._of[tenant] -= 1
        if not self._of[tenant]:
            del self._of[tenant]
        return True
