"""Score what was collected: one output after the other, by functions and by judges."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TextIO

from evals.checks import Check
from evals.client import Failure
from evals.collect import Collected
from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.executors.base import Executor, Scorer
from evals.judging.base import Bench
from evals.judging.panel import Panel, rated
from evals.marks import Marks
from evals.metrics.base import Metric
from evals.passing import value_of
from evals.systems.base import Output

Benches = Callable[[Check, int], Bench | Panel]
"""The judge of a check in a repetition."""
_REASON_CHARACTERS = 500


@dataclass(slots=True)
class _Row:
    """What one output was given by every check."""

    scores: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    details: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    items: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rating:
    """How a run scores."""

    metrics: Mapping[str, Metric]
    """By check title."""
    benches: Benches
    execute: Executor
    scorer: Scorer
    concurrency: int
    lines: TextIO | None = None
    """Where every output and its scores are written, one JSON object a line."""
    seen: Callable[[str, float], None] | None = None
    """Told each score of a judge, by check title."""


async def rate(
    found: Collected,
    marks: Mapping[str, Marks],
    rating: Rating,
    *,
    epochs: int,
    start: int,
    stop: int,
    rival: Collected | None,
    on_done: Callable[[int], None],
) -> None:
    """
    Add the scores of the samples from *start* to before *stop* to *marks* (by check title).

    Args:
        rival: the baseline's outputs through the same system, for judges that compare.
        on_done: told how many more outputs are scored.

    Raises:
        EvalsError: a judge cannot be asked at all, or the cap on cost is reached.
    """
    checks = [check for check in found.job.checks if check.title in marks]
    judged = [check for check in checks if rating.metrics[check.title].rate is not None]
    for first in range(start, stop, rating.scorer.chunk):
        block = range(first, min(first + rating.scorer.chunk, stop))
        outputs = {(at, epoch): found.get(at, epoch) for at in block for epoch in range(epochs)}
        samples = {at: found.job.samples[at] for at in block}
        rows = _plain(len(found.job.samples), samples, checks, outputs, rating)
        if judged:
            await _judge(found, samples, judged, outputs, rows, rating, rival, on_done)
        for at in block:
            _add(found, checks, marks, [rows[at, epoch] for epoch in range(epochs)], at, rating)
            if rating.lines is not None:
                for epoch in range(epochs):
                    line = _line(found, samples[at], epoch, outputs[at, epoch], rows[at, epoch])
                    rating.lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        if not judged:
            on_done(len(outputs))


def _plain(
    total: int,
    samples: Mapping[int, Sample],
    checks: Sequence[Check],
    outputs: Mapping[tuple[int, int], Output | Failure],
    rating: Rating,
) -> dict[tuple[int, int], _Row]:
    """What needs no judge: a failed request scores the worst its metric knows."""
    rows = {place: _Row() for place in outputs}
    for check in checks:
        metric = rating.metrics[check.title]
        wanted = [place for place in outputs if place[0] < (check.limit or total)]
        if metric.compute is not None:
            for place in wanted:
                output = outputs[place]
                seen = None if isinstance(output, Failure) else output
                try:
                    rows[place].items[check.title] = metric.item(samples[place[0]], seen)
                except ScoreFailed as error:
                    rows[place].failed[check.title] = error.kind
            continue
        answered: list[tuple[int, int]] = []
        for place in wanted:
            if isinstance(outputs[place], Failure):
                rows[place].scores[check.title] = metric.worst
            else:
                answered.append(place)
        if metric.score is None:
            continue
        pairs = [(samples[place[0]], outputs[place]) for place in answered]
        for place, score in zip(answered, rating.scorer.score(check, metric, pairs), strict=True):
            if isinstance(score, str):
                rows[place].failed[check.title] = score
            else:
                rows[place].scores[check.title] = score
    return rows


async def _judge(
    found: Collected,
    samples: Mapping[int, Sample],
    checks: Sequence[Check],
    outputs: Mapping[tuple[int, int], Output | Failure],
    rows: Mapping[tuple[int, int], _Row],
    rating: Rating,
    rival: Collected | None,
    on_done: Callable[[int], None],
) -> None:
    total = len(found.job.samples)
    asked = [
        (check, place)
        for place in outputs
        for check in checks
        if place[0] < (check.limit or total) and not isinstance(outputs[place], Failure)
    ]

    on_done(len(outputs) * len(checks) - len(asked))

    async def work(item: tuple[Check, tuple[int, int]]) -> None:
        await score(item)
        on_done(1)

    async def score(item: tuple[Check, tuple[int, int]]) -> None:
        check, (at, epoch) = item
        metric, row, output = rating.metrics[check.title], rows[at, epoch], outputs[at, epoch]
        assert metric.rate is not None and isinstance(output, Output)  # noqa: S101, PT018 - chosen above
        if metric.rival:
            theirs = rival.get(at, epoch) if rival is not None else Failure("no_baseline")
            if isinstance(theirs, Failure):
                row.failed[check.title] = "baseline_failed"
                return
            output = replace(output, meta={**output.meta, "rival": asdict(theirs)})
        try:
            scored = await rated(metric.rate, samples[at], output, rating.benches(check, epoch))
        except ScoreFailed as error:
            row.failed[check.title] = error.kind
            return
        if not math.isfinite(scored.value) or not metric.low <= scored.value <= metric.high:
            row.failed[check.title] = "out_of_range"
            return
        row.scores[check.title] = scored.value
        if rating.seen is not None:
            rating.seen(check.title, scored.value)
        row.reasons[check.title] = scored.reason[:_REASON_CHARACTERS]
        if scored.details:
            row.details[check.title] = scored.details

    await rating.execute(asked, work, concurrency=rating.concurrency)


def _add(
    found: Collected,
    checks: Sequence[Check],
    marks: Mapping[str, Marks],
    rows: Sequence[_Row],
    at: int,
    rating: Rating,
) -> None:
    for check in checks:
        if at >= (check.limit or len(found.job.samples)):
            continue
        own, title = marks[check.title], check.title
        if rating.metrics[title].compute is not None:
            failed = next((row.failed[title] for row in rows if title in row.failed), None)
            if failed is None:
                own.items.append(tuple(row.items[title] for row in rows))
            else:
                own.missing[failed] += 1
                own.items.append(())
            continue
        failed = next((row.failed[title] for row in rows if title in row.failed), None)
        scores = [row.scores[title] for row in rows if title in row.scores]
        value = None
        if scores and failed is None and (check.any_of or check.all_of):
            try:
                value = value_of(check, scores)
            except ScoreFailed as error:
                failed = error.kind
        own.add(rating.metrics[title], scores, failed, value)


def _line(
    found: Collected, sample: Sample, epoch: int, output: Output | Failure, row: _Row
) -> dict[str, Any]:
    line: dict[str, Any] = {"id": sample.id, "role": found.job.role, "system": found.job.system_name}
    line |= {"epoch": epoch, "query": sample.query, "answers": list(sample.answers or ())}
    if sample.expected is not None:
        line["answers"] = [sample.expected]
    if isinstance(output, Failure):
        return line | {"error": output.kind}
    line |= {"scores": row.scores, "reasons": row.reasons, "output": asdict(output)}
    line |= {"details": row.details} if row.details else {}
    return line | ({"unscored": row.failed} if row.failed else {})
