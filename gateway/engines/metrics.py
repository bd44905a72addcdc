"""
How busy an engine is, from what it publishes for Prometheus.

vLLM names a hundred metrics; five of them say where the next request should go.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

import aiohttp

from gateway.engines.errors import MetricsUnreadable

_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*"'
_LABELS = rf"\{{(?:{_LABEL}(?:,{_LABEL})*,?)?\}}"
_SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:{_LABELS})?[ \t]+([^\s_]+)(?:[ \t]+-?\d+)?[ \t]*")
_RUNNING, _WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
_USAGE, _OLD_USAGE = "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"
_QUERIES, _HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
_OLD_QUERIES, _OLD_HITS = "vllm:gpu_prefix_cache_queries_total", "vllm:gpu_prefix_cache_hits_total"
_READ = frozenset({_RUNNING, _WAITING, _USAGE, _OLD_USAGE, _QUERIES, _HITS, _OLD_QUERIES, _OLD_HITS})
_MOST_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is; sums over its data-parallel ranks, of *kv_cache_usage* the highest."""

    running: int
    waiting: int
    kv_cache_usage: float
    """Share of the cache's blocks in use, in [0, 1]."""
    prefix_queries: int
    """Prompt tokens looked for in the prefix cache since the engine started."""
    prefix_hits: int
    """Those of them that were there."""

    def hit_rate(self, before: EngineLoad | None = None) -> float | None:
        """
        Hits over queries, since *before* or the engine's start; None without queries.

        An engine that was restarted in between is counted from its start.

        >>> EngineLoad(0, 0, 0.0, 300, 120).hit_rate(EngineLoad(0, 0, 0.0, 100, 20))
        0.5
        """
        queries, hits = self.prefix_queries, self.prefix_hits
        if before is not None and before.prefix_queries <= queries and before.prefix_hits <= hits:
            queries, hits = queries - before.prefix_queries, hits - before.prefix_hits
        return hits / queries if queries else None


def parse(text: str) -> EngineLoad:
    """
    The load that vLLM's metrics *text* says.

    Metrics of other names are passed over; names of versions before 0.9 are read as well.

    Raises:
        MetricsUnreadable: a line is no sample, a number is not one that can be, or vLLM's gauges are
            missing. The message names the line.
    """
    sums: dict[str, float] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line[0] == "#" or not line.strip():
            continue
        sample = _SAMPLE.fullmatch(line.rstrip("\r"))
        if sample is None:
            message = f"line {number} of the engine's metrics is no sample"
            raise MetricsUnreadable(message)
        name, written = sample.groups()
        value = _number(written, number)
        if name in _READ:
            if not 0 <= value < math.inf:
                message = f"line {number} of the engine's metrics: {name} is {written}"
                raise MetricsUnreadable(message)
            is_share = name in (_USAGE, _OLD_USAGE)
            sums[name] = max(sums.get(name, 0.0), value) if is_share else sums.get(name, 0.0) + value
    usage = sums.get(_USAGE, sums.get(_OLD_USAGE))
    if usage is None or _RUNNING not in sums or _WAITING not in sums:
        message = f"the engine's metrics lack {_RUNNING}, {_WAITING} or {_USAGE}: it is no vLLM, or not ready"
        raise MetricsUnreadable(message)
    if usage > 1:
        message = f"the engine's metrics: {_USAGE} is {usage:g}, above 1"
        raise MetricsUnreadable(message)
    return EngineLoad(
        running=int(sums[_RUNNING]),
        waiting=int(sums[_WAITING]),
        kv_cache_usage=usage,
        prefix_queries=int(sums.get(_QUERIES, sums.get(_OLD_QUERIES, 0.0))),
        prefix_hits=int(sums.get(_HITS, sums.get(_OLD_HITS, 0.0))),
    )


async def scrape(
    session: aiohttp.ClientSession, url: str, *, timeout_s: float = 2.0, most_bytes: int = _MOST_BYTES
) -> EngineLoad:
    """
    The load of the engine at *url*, its root without `/v1`.

    Raises:
        MetricsUnreadable: no answer within *timeout_s*, a status other than 200, more than *most_bytes*,
            or as `parse`.
    """
    try:
        async with session.get(
            f"{url}/metrics", timeout=aiohttp.ClientTimeout(total=timeout_s), allow_redirects=False
        ) as answer:
            if answer.status != 200:
                message = f"{url}/metrics answers with status {answer.status}"
                raise MetricsUnreadable(message)
            data = bytearray()
            async for piece in answer.content.iter_any():
                data += piece
                if len(data) > most_bytes:
                    message = f"{url}/metrics is longer than {most_bytes} bytes"
                    raise MetricsUnreadable(message)
            return parse(data.decode())
    except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError) as error:
        message = f"{url}/metrics cannot be read: {type(error).__name__}"
        raise MetricsUnreadable(message) from error


class Scraper:
    """Reads the loads of several engines again and again. Owned by one event loop."""

    def __init__(
        self, urls: Mapping[str, str], *, every_s: float = 1.0, timeout_s: float = 2.0, fresh_s: float = 5.0
    ) -> None:
        """
        *urls* are roots by engine name; `start` begins.

        Args:
            every_s: between the end of one reading of an engine and the next.
            fresh_s: what is older says nothing.
        """
        self._urls = dict(urls)
        self._every_s = every_s
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._read: dict[str, tuple[float, EngineLoad]] = {}
        self._problems: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to read, in the background. Idempotent."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Read no more. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    def loads(self) -> dict[str, EngineLoad]:
        """What was read lately, by engine; one that has not answered lately is not in it."""
        oldest = monotonic() - self._fresh_s
        return {name: load for name, (read_at, load) in self._read.items() if read_at >= oldest}

    def problems(self) -> dict[str, str]:
        """Why the last reading of an engine failed; those that answered are not in it."""
        return dict(self._problems)

    async def _run(self) -> None:
        connector = aiohttp.TCPConnector(limit=max(1, len(self._urls)))
        async with (
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
            asyncio.TaskGroup() as group,
        ):
            for name, url in self._urls.items():
                group.create_task(self._follow(session, name, url))

    async def _follow(self, session: aiohttp.ClientSession, name: str, url: str) -> None:
        while True:
            try:
                load = await scrape(session, url, timeout_s=self._timeout_s)
            except MetricsUnreadable as error:
                self._problems[name] = error.message
            else:
                self._read[name] = (monotonic(), load)
                self._problems.pop(name, None)
            await asyncio.sleep(self._every_s)


def _number(written: str, line: int) -> float:
    try:
        return float(written)
    except ValueError as error:
        message = f"line {line} of the engine's metrics ends in no number"
        raise MetricsUnreadable(message) from error
