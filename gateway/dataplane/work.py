"""Blocking work off the event loop, with a bound on how much may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from gateway.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")


class Work:
    """Worker threads for retrieval, embedding, prediction and long texts to screen."""

    def __init__(self, threads: int, max_waiting: int) -> None:
        """At most *threads* calls run and *max_waiting* more wait."""
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="gateway-work")
        self._room = threads + max_waiting

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        What *function* returns, called in a worker thread. A caller that gives up does not stop it.

        Raises:
            Overloaded: too many calls wait already.
        """
        if self._room <= 0:
            raise Overloaded
        self._room -= 1
        future = self._executor.submit(function, *args, **kwargs)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _done: self._freed(loop))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Refuse new calls; running ones end by themselves."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _freed(self, loop: asyncio.AbstractEventLoop) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._free)

    def _free(self) -> None:
        self._room += 1
