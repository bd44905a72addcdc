"""The gateway's part in webhooks: it looks every second whether the registry has something to tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from registry import webhook_send
from registry.clock import Clock, utc_now
from registry.errors import StoreUnavailable
from registry.webhook_send import Tally
from registry.workspace import Workspace

_PRUNE_EVERY = timedelta(hours=1)
_LONGEST_PAUSE_S = 30.0
_log = logging.getLogger(__name__)


class Webhooks:
    """
    Delivers what is due, again and again. Any number of gateways may: each delivery is claimed by one.

    Not thread-safe; belongs to one event loop.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        may_open: Callable[[], bool] = lambda: True,
        clock: Clock = utc_now,
        every_s: float = 1.0,
    ) -> None:
        """
        Deliver out of *workspace*, which the caller keeps open.

        Args:
            may_open: whether the registry may be opened already; until then nothing is delivered.
            every_s: pause between two looks; grows to 30 seconds while the registry cannot be reached.
        """
        self._workspace = workspace
        self._may_open = may_open
        self._clock = clock
        self._every_s = every_s
        self._pruned: datetime | None = None

    async def run(self) -> None:
        """Deliver until cancelled. A registry that is away is waited for."""
        pause_s = self._every_s
        while True:
            try:
                if self._may_open():
                    await self.once()
            except StoreUnavailable as error:
                if pause_s == self._every_s:
                    _log.warning("webhooks wait for the registry: %s", error)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except Exception:  # noqa: BLE001 - whatever fails, what is due stays so and is tried again
                _log.exception("webhooks could not be delivered; it is tried again")
                pause_s = _LONGEST_PAUSE_S
            else:
                pause_s = self._every_s
            await asyncio.sleep(pause_s)

    async def once(self) -> Tally:
        """
        One round of deliveries, and every hour the end of old ones.

        Raises:
            StoreUnavailable: the registry cannot be reached.
        """
        tally = await webhook_send.deliver(self._workspace.reading, self._workspace.writing, self._clock)
        if tally.failed or tally.dead:
            _log.warning(
                "webhooks: %d delivered, %d to be tried again, %d given up",
                tally.delivered, tally.failed, tally.dead,
            )  # fmt: skip
        now = self._clock()
        if self._pruned is None or now - self._pruned > _PRUNE_EVERY:
            self._pruned = now
            await asyncio.to_thread(self._prune, now)
        return tally

    def _prune(self, now: datetime) -> None:
        with self._workspace.writing() as connection:
            webhook_send.prune(connection, now)
