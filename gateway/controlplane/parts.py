"""The heavy parts behind routes: made once, shared by digest, closed when nothing needs them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable
from typing import Any

from gateway.dataplane.table import InFlight
from registry.errors import PlatformError

Key = tuple[Hashable, ...]
Make = Callable[[], Awaitable[Any]]
Close = Callable[[Any], Awaitable[None]]
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0
_log = logging.getLogger(__name__)


class Part:
    """One thing that is loading, loaded or failed. Read it from the event loop only."""

    __slots__ = ("_close", "_done", "_make", "detail", "failures", "key", "problem", "retry_at", "task",
                 "unused_since", "users", "value")  # fmt: skip

    def __init__(self, key: Key, make: Make, close: Close | None) -> None:
        self.key = key
        self.value: Any = None
        self.problem: str | None = None
        """Why it failed, as clients are told; None while loading and when loaded."""
        self.detail = ""
        """The same for the operator."""
        self.failures = 0
        self.retry_at = 0.0
        self.unused_since: float | None = None
        self.users: set[InFlight] = set()
        self.task: asyncio.Task[None] | None = None
        self._make = make
        self._close = close
        self._done = asyncio.Event()

    @property
    def loaded(self) -> bool:
        """Whether `value` is there."""
        return self._done.is_set() and self.problem is None

    async def settled(self) -> None:
        """Return once it is loaded or has failed."""
        await self._done.wait()

    async def wait(self) -> Any:  # noqa: ANN401 - what it is depends on the key
        """The value, once loaded; raises PartFailed when it could not be."""
        await self.settled()
        if self.problem is not None:
            raise PartFailed(self.detail)
        return self.value

    async def load(self, changed: Callable[[], None]) -> None:
        """Make the value; tells *changed* how it ended."""
        try:
            self.value = await self._make()
            self.problem, self.detail, self.failures = None, "", 0
        except PlatformError as error:
            self._failed(error.code, error.message)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; the others go on
            _log.exception("%s could not be loaded", self.key[0])
            self._failed("internal_error", f"{type(error).__name__}: {error}")
        self._done.set()
        changed()

    async def close(self) -> None:
        """Stop loading, or close the value. Idempotent."""
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        value, self.value = self.value, None
        if value is not None and self._close is not None:
            await self._close(value)

    def _failed(self, code: str, message: str) -> None:
        self.value = None
        self.problem = f"its {self.key[0]} cannot be loaded ({code})"
        self.detail = f"{self.key[0]}: {code}: {message}"
        self.retry_at = asyncio.get_running_loop().time() + min(
            _LAST_RETRY_S, _FIRST_RETRY_S * 2**self.failures
        )
        self.failures += 1
        _log.warning("%s", self.detail)


class PartFailed(PlatformError):
    """A part that another part needs could not be loaded."""

    code = "part_failed"


class Parts:
    """All parts of one gateway. Owned by one event loop."""

    def __init__(self, changed: Callable[[], None], grace_s: float) -> None:
        """*changed* is called whenever a part was loaded or failed."""
        self._changed = changed
        self._grace_s = grace_s
        self._parts: dict[Key, Part] = {}

    def get(self, key: Key, make: Make, close: Close | None = None) -> Part:
        """The part of this key; it begins to load when it is new."""
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = Part(key, make, close)
            self._start(part)
        return part

    @property
    def keys(self) -> Collection[Key]:
        """The keys of all parts that are there."""
        return self._parts.keys()

    async def sweep(self, wanted: Iterable[Key]) -> None:
        """Load failed parts again whose pause is over; close those unwanted for the grace period."""
        now = asyncio.get_running_loop().time()
        keep = set(wanted)
        for key, part in list(self._parts.items()):
            if key in keep:
                part.unused_since = None
                if part.problem is not None and now >= part.retry_at and _is_idle(part):
                    self._start(part)
            elif part.unused_since is None:
                part.unused_since = now
            elif now - part.unused_since >= self._grace_s and not any(user.count for user in part.users):
                del self._parts[key]
                await part.close()

    async def close(self) -> None:
        """Close every part."""
        parts, self._parts = list(self._parts.values()), {}
        outcomes = await asyncio.gather(*(part.close() for part in parts), return_exceptions=True)
        for part, outcome in zip(parts, outcomes, strict=True):
            if isinstance(outcome, Exception):
                _log.error("%s did not close: %s", part.key[0], outcome)

    def _start(self, part: Part) -> None:
        part.task = asyncio.get_running_loop().create_task(part.load(self._changed))


def _is_idle(part: Part) -> bool:
    return part.task is None or part.task.done()
