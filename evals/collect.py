"""Ask a subject for every sample, through the store of outputs, and keep where its answers are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evals.cache import Cache, base_key, code_digest, key_of_epoch, sample_key
from evals.client import Failure
from evals.dataset import Sample
from evals.executors.base import Executor
from evals.plan import Job
from evals.systems.base import Output
from evals.targets.base import Target


@dataclass(slots=True)
class Collected:
    """Where a job's outputs are; fills while it runs. Outputs themselves stay on disk."""

    job: Job
    store: Cache
    keys: list[str] = field(default_factory=list)
    """The store's key of each sample, by position, before the epoch is added."""
    failures: dict[tuple[int, int], str] = field(default_factory=dict)
    """(position, epoch) → what kind of failure."""
    cached: int = 0
    asked: int = 0
    """Samples answered by now, over all epochs."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def get(self, position: int, epoch: int) -> Output | Failure:
        """What was answered for the sample at *position* in repetition *epoch*."""
        failed = self.failures.get((position, epoch))
        if failed is not None:
            return Failure(failed)
        found = self.store.get(key_of_epoch(self.keys[position], epoch))
        return Failure("lost") if found is None else found


async def collect(
    found: Collected,
    target: Target,
    execute: Executor,
    *,
    epochs: int,
    concurrency: int,
    start: int,
    stop: int,
    on_done: Callable[[int], None],
    on_answer: Callable[[Sample, Output], None] | None = None,
) -> None:
    """
    An output or a failure for the samples of *found* from position *start* to before *stop*.

    The first call of all goes alone, so that a release may load before the others are sent. A batch that
    fails is asked again sample by sample: one bad row spoils only itself.

    Args:
        on_done: told how many more answers there are.
        on_answer: told each new answer.

    Raises:
        EvalsError: what `Target.answer` raises; outputs found so far stay in the store.
    """
    samples = found.job.samples
    if not found.keys:
        found.keys = _keys(found.job, target)
    for epoch in range(epochs):
        missing = []
        for position in range(start, stop):
            kept = found.store.get(key_of_epoch(found.keys[position], epoch))
            if kept is None:
                missing.append(position)
            else:
                found.cached += 1
                _count(found, kept)
        on_done(stop - start - len(missing))
        batches = [missing[at : at + target.batch] for at in range(0, len(missing), target.batch)]

        async def work(batch: Sequence[int], *, first: bool = False, epoch: int = epoch) -> None:
            answered = await target.answer([samples[at] for at in batch], epoch=epoch, first=first)
            if isinstance(answered, Failure) and len(batch) > 1:
                for position in batch:
                    await work([position], epoch=epoch)
                return
            if isinstance(answered, Failure):
                found.failures[batch[0], epoch] = answered.kind
            else:
                outputs = dict(zip(batch, answered, strict=True))
                found.store.put(
                    {key_of_epoch(found.keys[at], epoch): output for at, output in outputs.items()}
                )
                for position, output in outputs.items():
                    _count(found, output)
                    if on_answer is not None:
                        on_answer(samples[position], output)
            on_done(len(batch))

        if batches and not found.asked and epoch == 0:
            await work(batches[0], first=True)
            batches = batches[1:]
        await execute(batches, work, concurrency=concurrency)
        found.asked += stop - start


def _count(found: Collected, output: Output) -> None:
    found.prompt_tokens += output.prompt_tokens
    found.completion_tokens += output.completion_tokens


def _keys(job: Job, target: Target) -> list[str]:
    """The key of each sample: its own request, whatever batch it travels in."""
    code = code_digest(Path(inspect.getfile(type(job.system))), Path(inspect.getfile(type(target))))
    head = base_key(target.identity, job.system_name, code)
    return [sample_key(head, sample.digest, target.question(sample)) for sample in job.samples]
