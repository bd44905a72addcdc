"""Score on a Ray cluster: this machine's, or the one at RAY_ADDRESS."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from evals.checks import Check
from evals.dataset import Sample
from evals.executors.local import score_here
from evals.metrics.base import Metric
from evals.systems.base import Output
from registry import plugins

_A_TASK = 64
"""Samples a worker takes at once."""
_START_S = 120
"""How long the cluster may take to start its workers."""


def score_there(check: Check, pairs: Sequence[tuple[Sample, Output]]) -> list[float | str]:
    """What a worker runs: the check's metric, loaded there by name."""
    from evals.suite import metric_of

    return score_here(check, metric_of(check), pairs)


@dataclass(frozen=True, slots=True)
class RayScorer:
    """Scores in `workers` processes of a Ray cluster; metrics that are cheap stay here."""

    workers: int
    remote: Any = field(repr=False)

    @property
    def chunk(self) -> int:
        """Enough for every worker to have four tasks."""
        return _A_TASK * self.workers * 4

    def score(
        self, check: Check, metric: Metric, pairs: Sequence[tuple[Sample, Output]]
    ) -> Sequence[float | str]:
        """See `Scorer.score`."""
        if not metric.cpu_heavy:
            return score_here(check, metric, pairs)
        import ray

        tasks = [self.remote.remote(check, pairs[at : at + _A_TASK]) for at in range(0, len(pairs), _A_TASK)]
        return [score for part in ray.get(tasks) for score in part]

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        import ray

        ray.shutdown()


def connect(workers: int) -> RayScorer:
    """
    A scorer on a Ray cluster with *workers* CPUs of it, started here where RAY_ADDRESS names none.

    Raises:
        MissingExtra: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "ray") from error
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ready = ray.remote(num_cpus=1)(_ready)
    ray.get([ready.remote() for _ in range(workers)], timeout=_START_S)
    return RayScorer(workers, ray.remote(num_cpus=1, max_retries=2)(score_there))


def _ready() -> None:
    """Start a worker and import what scoring needs, before the clock of anything runs."""
    import evals.suite  # noqa: F401 - its import is the point
