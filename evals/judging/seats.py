"""A judge at its servers: one desk for each of its models, opened together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from evals.cache import Cache
from evals.client import Patience
from evals.cost import Purse
from evals.judging.base import Bench
from evals.judging.bench import Counts, Desk
from evals.judging.panel import How, Panel, how_of, members_of
from evals.judging.places import place_of
from evals.upstream import Upstream
from registry.entities import JudgeContent


@dataclass(frozen=True, slots=True)
class Servers:
    """Where judges are asked, and how patiently."""

    environ: Mapping[str, str]
    concurrency: int
    patience: Patience
    url: str | None = None
    """Where every judge is asked, instead of where its provider is."""
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Seats:
    """One judge, or a panel."""

    desks: tuple[Desk, ...]
    how: How

    def bench(self, epoch: int = 0) -> Bench | Panel:
        """The judge for repetition *epoch*."""
        benches = tuple(desk.bench(epoch) for desk in self.desks)
        return benches[0] if len(benches) == 1 else Panel(benches, self.how)

    @property
    def counts(self) -> Counts:
        """What the calls of all members came to."""
        total = Counts()
        for counts in (desk.counts for desk in self.desks):
            total.calls += counts.calls
            total.cached += counts.cached
            total.prompt_tokens += counts.prompt_tokens
            total.completion_tokens += counts.completion_tokens
            for kind, count in counts.failures.items():
                total.failures[kind] = total.failures.get(kind, 0) + count
        return total

    @property
    def retried(self) -> int:
        """Calls that had to be repeated."""
        return sum({id(desk.upstream): desk.upstream.retried for desk in self.desks}.values())


@asynccontextmanager
async def open_judge(
    content: JudgeContent, servers: Servers, cache: Cache | None, purse: Purse
) -> AsyncIterator[Seats]:
    """
    The judge with its connections; nothing is sent yet. Members of one server share its pace.

    Raises:
        JudgeUnavailable: no server or key is known for a model.
        BadInput: a malformed panel; see `members_of`.
    """
    opened: dict[tuple[str, str], Upstream] = {}
    desks: list[Desk] = []
    embedder = str(content.parameters.get("embedder", ""))
    async with AsyncExitStack() as stack:
        for member in members_of(content):
            url, key, model = place_of(member, servers.environ, servers.url, servers.key)
            if (url, key) not in opened:
                upstream = Upstream(url, key, concurrency=servers.concurrency, patience=servers.patience)
                opened[url, key] = await stack.enter_async_context(upstream)
            own = replace(content, model=member)
            desks.append(Desk(own, model, opened[url, key], cache, purse, embedder))
        yield Seats(tuple(desks), how_of(content))
