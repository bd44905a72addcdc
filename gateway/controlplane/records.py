"""The ledger for those who ask about single requests: in threads of its own, so that no prediction waits."""

from __future__ import annotations

from collections.abc import Callable

from gateway.controlplane.ledger import Ledger
from gateway.dataplane.work import Work
from registry.entities import Feedback, UsageEntry
from registry.errors import StoreUnavailable

_THREADS, _MOST_WAITING = 2, 256


class Records:
    """What is on record of finished requests, and what is said of them."""

    def __init__(self, ledger: Ledger, may_open: Callable[[], bool]) -> None:
        """Ask *ledger* once *may_open* says that the registry could be read."""
        self._ledger = ledger
        self._may_open = may_open
        self._work = Work(_THREADS, _MOST_WAITING)

    async def find(self, request_id: str) -> UsageEntry | None:
        """As `Ledger.entry`. Raises Overloaded too: too many ask already."""
        self._require_open()
        return await self._work.run(self._ledger.entry, request_id)

    async def give(self, entry: UsageEntry, said: Feedback) -> tuple[str, bool]:
        """As `Ledger.give`. Raises Overloaded too: too many ask already."""
        self._require_open()
        return await self._work.run(self._ledger.give, entry, said)

    def close(self) -> None:
        """Answer nobody any more."""
        self._work.close()

    def _require_open(self) -> None:
        if not self._may_open():
            raise StoreUnavailable("this gateway could not read the registry yet; /health/ready says why")
