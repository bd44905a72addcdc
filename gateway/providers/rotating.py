"""A provider's key that its keeper may change while the gateway runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from registry.errors import PlatformError

_FRESH_S = 300.0
_LEAST_S = 5.0
_log = logging.getLogger(__name__)


class RotatingKey:
    """
    The newest value that could be had. Owned by one event loop.

    Asked for anew in a thread when it is used and older than five minutes, and at once when an upstream
    refused it, but not more than every five seconds. While its keeper is away the last one stays.
    """

    def __init__(
        self,
        name: str,
        value: str,
        fetch: Callable[[], str],
        *,
        fresh_s: float = _FRESH_S,
        least_s: float = _LEAST_S,
        now: Callable[[], float] = monotonic,
    ) -> None:
        """*name* is the reference, for the log; *value* has just been had from *fetch*, which may block."""
        self._name = name
        self._value = value
        self._fetch = fetch
        self._fresh_s, self._least_s = fresh_s, least_s
        self._now = now
        self._asked_s = now()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    @property
    def known(self) -> str:
        """The last value, however old."""
        return self._value

    def current(self) -> str:
        """The value to use now; a newer one is asked for in the background when it is time."""
        if self._task is None and self._now() - self._asked_s >= self._fresh_s:
            self._begin()
        return self._value

    async def refused(self, used: str) -> bool:
        """Whether there is another value than *used*, which an upstream has just refused."""
        if self._value != used:
            return True
        if self._task is None and self._now() - self._asked_s >= self._least_s:
            self._begin()
        if self._task is not None:
            await asyncio.shield(self._task)
        return self._value != used

    def _begin(self) -> None:
        self._asked_s = self._now()
        self._task = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        try:
            value = await asyncio.to_thread(self._fetch)
        except PlatformError as error:
            if not self._failing:
                _log.warning("the last known value of %s is used: %s", self._name, error.message)
            self._failing = True
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and quote the secret in it
            if not self._failing:
                _log.warning("the last known value of %s is used: %s", self._name, type(error).__name__)
            self._failing = True
        else:
            if value != self._value or self._failing:
                _log.warning("%s was read anew%s", self._name, "" if value == self._value else ": it changed")
            self._value, self._failing = value, False
        finally:
            self._task = None
