"""What a run has open: the gateway, other servers, judges. Opened once, closed together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from evals.cache import Cache
from evals.checks import Check
from evals.client import Client, Patience
from evals.cost import Purse
from evals.errors import KeyMissing
from evals.judging.base import Bench
from evals.judging.panel import Panel
from evals.judging.seats import Seats, Servers, open_judge
from evals.plan import Job, Plan
from evals.suite import EvalSuite
from evals.targets import callable as callables
from evals.targets import recorded
from evals.targets.base import Target
from evals.targets.gateway import EndpointTarget, GatewayTarget
from evals.upstream import Upstream
from registry.entities import JudgeContent, Version

TARGET_KEY_VARIABLE = "SLUICEGATE_TARGET_KEY"


@dataclass(frozen=True, slots=True)
class Judge:
    """A judge of the registry, and whether its scores may decide."""

    version: Version
    content: JudgeContent
    deciding: bool
    why: str = ""
    """Why it only advises."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a run asks the gateway, other servers and judges."""

    gateway: str
    """Root URL."""
    key: str = field(repr=False)
    concurrency: int = 2
    patience: Patience = field(default_factory=Patience)
    use_cache: bool = True
    judge_url: str | None = None
    """Where every judge is asked, instead of where its provider is."""
    judge_key: str | None = field(default=None, repr=False)
    judge_concurrency: int | None = None
    """By default that of the gateway."""


@dataclass(slots=True)
class Session:
    """Open connections of one run."""

    targets: dict[tuple[str, str], Target] = field(default_factory=dict)
    """By (role, system)."""
    seats: dict[str, Seats] = field(default_factory=dict)
    """By judge."""
    client: Client | None = None
    upstreams: list[Upstream] = field(default_factory=list)

    @property
    def retried(self) -> int:
        """Requests that had to be repeated."""
        own = self.client.retried if self.client else 0
        judges = sum(seats.retried for seats in self.seats.values())
        return own + judges + sum(upstream.retried for upstream in self.upstreams)

    def bench(self, suite: EvalSuite, check: Check, epoch: int) -> Bench | Panel:
        """The judge of *check* in repetition *epoch*."""
        return self.seats[str(suite.judge_of(check))].bench(epoch)


@asynccontextmanager
async def open_session(
    plan: Plan, judges: Mapping[str, Judge], asking: Asking, cache: Cache | None, purse: Purse
) -> AsyncIterator[Session]:
    """
    Connections to everything the jobs of *plan* and the *judges* need; nothing is sent yet.

    Raises:
        KeyMissing: a release is judged and there is no API key for the gateway.
        JudgeUnavailable: no server or key is known for a judge.
        TargetUnavailable: a callable or recorded outputs cannot be loaded.
    """
    session = Session()
    async with AsyncExitStack() as stack:
        if any(job.subject.release for job in plan.jobs.values()):
            if not asking.key:
                raise KeyMissing
            client = Client(
                asking.gateway, asking.key, concurrency=asking.concurrency, patience=asking.patience
            )
            session.client = await stack.enter_async_context(client)
        for place, job in plan.jobs.items():
            session.targets[place] = await _target(job, session, asking, stack)
        servers = Servers(
            os.environ,
            asking.judge_concurrency or asking.concurrency,
            asking.patience,
            asking.judge_url,
            asking.judge_key,
        )
        for name, judge in judges.items():
            opening = open_judge(judge.content, servers, cache, purse)
            session.seats[name] = await stack.enter_async_context(opening)
        yield session


async def _target(job: Job, session: Session, asking: Asking, stack: AsyncExitStack) -> Target:
    foreign = job.subject.foreign
    if foreign is None:
        assert session.client is not None  # noqa: S101 - opened above for releases
        return GatewayTarget(job.system, session.client, job.subject.model, job.subject.digest)
    if foreign.kind == "endpoint":
        key = os.environ.get(TARGET_KEY_VARIABLE, "")
        upstream = Upstream(foreign.place, key, concurrency=asking.concurrency, patience=asking.patience)
        session.upstreams.append(await stack.enter_async_context(upstream))
        return EndpointTarget(job.system, upstream, foreign.model, job.subject.digest)
    if foreign.kind == "recorded":
        return recorded.load(Path(foreign.place), job.system_name, role=job.role)
    threads = stack.enter_context(ThreadPoolExecutor(asking.concurrency, "sluicegate-callable"))
    return callables.load(
        foreign.place,
        labels=job.system_name == "prediction",
        timeout_s=asking.patience.timeout_s,
        threads=threads,
    )
