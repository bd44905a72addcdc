"""A hundred writers at once: ten processes of ten threads, each with commits of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

from sqlalchemy import func, select

from registry import audit_verify, evaluations, releases, tables, versions
from registry.clock import utc_now
from registry.entities import Version
from registry.errors import PlatformError
from registry.refs import Ref
from registry.releases import ReleaseFile
from registry.settings import RegistrySettings
from registry.workspace import open_workspace
from tests.bench.gateway.figures import percentile
from tests.bench.registry.build import SCALES, Stand, begin, prompt_like

SHARED = 10
"""Prompt names that all writers push to."""
_EVERY = 5
"""One commit in so many files evidence."""
_READY_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Written:
    """What a hundred writers managed, and whether anything was lost."""

    writers: int
    commits: int
    failed: int
    """Commits that were refused, such as after waiting for the lock for 30 s."""
    seconds: float
    p50_ms: float
    p99_ms: float
    """Of one commit, with the wait for all the others."""
    lost: list[str]
    """What is missing, in words; empty when every commit is there and the chain holds."""

    @property
    def commits_per_s(self) -> float:
        """Of all writers together."""
        return self.commits / self.seconds


def run(settings: RegistrySettings, *, processes: int, threads: int, each: int) -> Written:
    """Let *processes* of *threads* make *each* commits on a registry that is empty so far."""
    with open_workspace(settings) as workspace:
        stand = begin(workspace, SCALES["tiny"])
        with workspace.writing() as connection:
            file = ReleaseFile("measured", "chat", "openai/m", prompt="base")
            releases.create(connection, file, actor="ann", now=utc_now())
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(processes + 1)
    results = spawn.SimpleQueue()
    started = [
        spawn.Process(target=_process, args=(settings, number, threads, each, barrier, results))
        for number in range(processes)
    ]
    for process in started:
        process.start()
    barrier.wait(_READY_WITHIN_S)
    begun = time.perf_counter()
    times, failed = [], 0
    for _ in started:
        own, refused = results.get()
        times += own
        failed += refused
    seconds = time.perf_counter() - begun
    for process in started:
        process.join()
    with open_workspace(settings) as workspace:
        lost = _lost(Stand(workspace, stand.key, stand.suite, stand.dataset, stand.scale), len(times))
    return Written(
        writers=processes * threads,
        commits=len(times),
        failed=failed,
        seconds=seconds,
        p50_ms=percentile(times, 0.5),
        p99_ms=percentile(times, 0.99),
        lost=lost,
    )


def _process(
    settings: RegistrySettings,
    number: int,
    threads: int,
    each: int,
    barrier: Barrier,
    results: Any,
) -> None:
    with open_workspace(settings) as workspace:
        stand = begin(workspace, SCALES["tiny"])
        with workspace.reading() as connection:
            release = versions.get(connection, "release", Ref("measured"))
        with ThreadPoolExecutor(threads) as pool:
            barrier.wait(_READY_WITHIN_S)
            own = [
                pool.submit(_writer, stand, release, number * threads + one, each) for one in range(threads)
            ]
            answers = [future.result() for future in own]
    results.put(([ms for times, _ in answers for ms in times], sum(failed for _, failed in answers)))


def _writer(stand: Stand, release: Version, writer: int, each: int) -> tuple[list[float], int]:
    """Milliseconds of each commit that was acknowledged, and how many were refused."""
    times, failed = [], 0
    for turn in range(each):
        begun = time.perf_counter()
        try:
            _commit(stand, release, writer, turn)
        except PlatformError:
            failed += 1
        else:
            times.append((time.perf_counter() - begun) * 1000)
    return times, failed


def _commit(stand: Stand, release: Version, writer: int, turn: int) -> None:
    text = f"writer {writer} turn {turn}"
    with stand.workspace.writing() as connection:
        now = utc_now()
        if turn % _EVERY == _EVERY - 1:
            stand.evidence(connection, release, None, now)
        else:
            name = f"shared-{(writer + turn) % SHARED}"
            versions.push(connection, "prompt", name, prompt_like(text), actor=f"w{writer}", now=now)


def _lost(stand: Stand, commits: int) -> list[str]:
    """What is not there although its commit returned; evidence signed twice in one microsecond is one."""
    found = []
    table = tables.versions
    query = select(table.c.name, func.count(), func.max(table.c.number), func.min(table.c.number))
    query = query.where(table.c.name.startswith("shared-")).group_by(table.c.name).order_by(table.c.name)
    with stand.workspace.reading() as connection:
        rows: Sequence[Any] = connection.execute(query).all()
        filed = len(evaluations.runs(connection, limit=1_000_000))
        verified = audit_verify.verify(connection)
    found += [
        f"{name} has numbers {low} to {high} for {count}"
        for name, count, high, low in rows
        if (low, high) != (1, count)
    ]
    there = sum(count for _, count, _, _ in rows) + filed
    if there != commits:
        found.append(f"{there} of {commits} commits are there")
    found += [f"{one['where']}: {one['problem']}" for one in verified["problems"]]
    return found
