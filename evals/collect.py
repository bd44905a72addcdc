"""Ask a release for every sample, through the cache, and keep what it answered."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evals.cache import Cache, code_digest, key_of
from evals.client import Client, Failure, Reply
from evals.dataset import Sample
from evals.errors import BadAnswer
from evals.executors.base import Executor
from evals.systems.base import Output, System


@dataclass(frozen=True, slots=True)
class Task:
    """One release to ask through one system about some samples."""

    system_name: str
    system: System
    model: str
    """What the gateway knows the release by."""
    digest: str
    samples: Sequence[Sample]


@dataclass(slots=True)
class Collected:
    """What came of a task; fills while it runs."""

    outputs: dict[str, Output | Failure] = field(default_factory=dict)
    """By sample id."""
    cached: int = 0


async def collect(
    task: Task,
    client: Client,
    cache: Cache | None,
    execute: Executor,
    *,
    concurrency: int,
    on_done: Callable[[int], None],
) -> Collected:
    """
    An output or a Failure for every sample of *task*.

    The first call goes alone, so that a release may load before the others are sent. A batch that
    fails is asked again sample by sample: one bad row spoils only itself.

    Args:
        on_done: told how many more samples are done.

    Raises:
        EvalsError: what `Client.ask` raises; outputs found so far stay in the cache.
    """
    found = Collected()
    keys = _keys(task) if cache else {}
    missing: list[Sample] = []
    for sample in task.samples:
        kept = cache.get(keys[sample.id]) if cache else None
        if kept is None:
            missing.append(sample)
        else:
            found.outputs[sample.id] = kept
            found.cached += 1
    on_done(found.cached)
    size = task.system.batch
    batches = [missing[start : start + size] for start in range(0, len(missing), size)]

    async def work(batch: Sequence[Sample], *, first: bool = False) -> None:
        outputs = await _ask(task, client, batch, first=first)
        if isinstance(outputs, Failure) and len(batch) > 1:
            for sample in batch:
                await work([sample])
            return
        if isinstance(outputs, Failure):
            found.outputs[batch[0].id] = outputs
        else:
            if cache:
                cache.put({keys[id_]: output for id_, output in outputs.items()})
            found.outputs.update(outputs)
        on_done(len(batch))

    if batches:
        await work(batches[0], first=True)
        await execute(batches[1:], work, concurrency=concurrency)
    return found


async def _ask(
    task: Task, client: Client, batch: Sequence[Sample], *, first: bool
) -> dict[str, Output] | Failure:
    reply = await client.ask(task.system.call(task.model, batch), task.digest, first=first)
    if not isinstance(reply, Reply):
        return reply
    try:
        outputs = task.system.read(reply.body, batch, reply.latency_ms)
    except BadAnswer:
        return Failure(BadAnswer.code)
    return {sample.id: output for sample, output in zip(batch, outputs, strict=True)}


def _keys(task: Task) -> Mapping[str, str]:
    """The cache key of each sample: its own request, whatever batch it travels in."""
    code = code_digest(Path(inspect.getfile(type(task.system))))
    batch = {"batch": task.system.batch}
    keys: dict[str, str] = {}
    for sample in task.samples:
        body = {k: v for k, v in task.system.call("", [sample]).body.items() if k != "model"}
        keys[sample.id] = key_of(task.digest, task.system_name, sample.digest, body | batch, code)
    return keys
