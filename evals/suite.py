"""EvalSuites: which checks a release must stand, on which dataset. Read from strict YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from evals import dataset
from evals.dataset import Dataset, Sample
from evals.errors import BadDataset, BadSuite
from evals.metrics.base import Metric
from registry import datasets, parse, plugins, versions
from registry.errors import BadInput, NotFound
from registry.refs import check_name, parse_ref
from registry.workspace import Workspace

QUANTILES = {"p50": 0.5, "p95": 0.95}


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """Where a suite's samples are: a file beside the suite, or a version in the registry."""

    path: Path | None = None
    """Relative to the suite's file."""
    ref: str | None = None
    """Such as `support-questions:3`."""
    name: str | None = None
    """The name to register a file under; by default the suite's name."""
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        """Refuse none or two places."""
        if (self.path is None) == (self.ref is None):
            message = "a dataset has either path: or ref:"
            raise BadInput(message)
        if self.ref is not None:
            parse_ref(self.ref)
        if self.name is not None:
            check_name(self.name, "dataset name")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: a metric of a system's outputs against a threshold."""

    system: str
    metric: str
    name: str = ""
    k: int | None = None
    """Ranks that count, for metrics of ranked documents."""
    statistic: Literal["mean", "p50", "p95"] = "mean"
    at_least: float | None = None
    at_most: float | None = None
    better_than: Literal["baseline", "majority"] | None = None
    margin: float = 0.0
    """What the gain must exceed; below 0 asks for "not worse by more than"."""
    tier: Literal["gate", "advisory"] = "gate"
    confidence: float = 0.95
    limit: int | None = None
    """Judge only the first so many samples of the dataset's fixed order."""

    def __post_init__(self) -> None:
        """Refuse a check without exactly one threshold, or with values outside their ranges."""
        given = [key for key in ("at_least", "at_most", "better_than") if getattr(self, key) is not None]
        if len(given) != 1:
            raise BadInput("a check has exactly one of at_least, at_most and better_than")
        if self.margin and self.better_than is None:
            raise BadInput("margin belongs to better_than")
        if self.better_than and self.statistic != "mean":
            raise BadInput("better_than compares means; remove statistic")
        if not 0.5 <= self.confidence < 1:
            raise BadInput(f"confidence is {self.confidence}; it must be at least 0.5 and below 1")
        if self.k is not None and not 1 <= self.k <= 50:
            raise BadInput(f"k is {self.k}; it must be 1 to 50")
        if self.limit is not None and self.limit < 1:
            raise BadInput(f"limit is {self.limit}; it must be at least 1")

    @property
    def measure(self) -> str:
        """The metric with its rank or statistic, such as `recall@3` or `latency_ms p95`."""
        text = f"{self.metric}@{self.k}" if self.k else self.metric
        return text if self.statistic == "mean" else f"{text} {self.statistic}"

    @property
    def title(self) -> str:
        """The check's name, by default what it measures."""
        return self.name or f"{self.system} {self.measure}"


@dataclass(frozen=True, slots=True)
class EvalSuite:
    """The checks a release must stand."""

    name: str
    release: str
    """Name of the release this suite judges."""
    dataset: DatasetSource
    checks: tuple[Check, ...]
    max_error_share: float = 0.0
    """Share of a release's requests that may fail before the verdict is fail."""

    def __post_init__(self) -> None:
        """Refuse a suite that could let anything pass."""
        check_name(self.name, "suite")
        check_name(self.release, "release")
        if not any(check.tier == "gate" for check in self.checks):
            raise BadInput("a suite needs at least one check whose tier is gate")
        if not 0 <= self.max_error_share < 1:
            raise BadInput("max_error_share must be at least 0 and below 1")


def read(path: Path) -> EvalSuite:
    """
    The suite in a YAML file, its checks matched with the metrics and systems there are.

    Raises:
        BadInput: a malformed file; names line and key.
        BadSuite: a check that cannot be judged.
        NotFound: an unknown metric; lists those there are.
    """
    suite = parse.read(path, EvalSuite)
    metrics_of(suite)
    titles = [check.title for check in suite.checks]
    for title in titles:
        if titles.count(title) > 1:
            raise BadSuite(f"{path}: two checks are called {title!r}; give one another name")
    return suite


def metrics_of(suite: EvalSuite) -> dict[str, Metric]:
    """
    The metric of each check, by name.

    Raises:
        NotFound: an unknown metric or system; lists those there are.
        BadSuite: a check that asks of a metric what it does not offer.
    """
    systems = plugins.names("systems")
    found: dict[str, Metric] = {}
    for check in suite.checks:
        if check.system not in systems:
            raise NotFound(
                f"check {check.title!r}: no system {check.system!r}; there are: {', '.join(systems)}"
            )
        metric = found.get(check.metric) or plugins.load("metrics", check.metric)
        if not isinstance(metric, Metric):
            raise BadSuite(f"plug-in {check.metric!r} of sluicegate.metrics is not a Metric")
        _match(check, metric)
        found[check.metric] = metric
    return found


def _match(check: Check, metric: Metric) -> None:
    where = f"check {check.title!r}"
    if check.system not in metric.systems:
        raise BadSuite(f"{where}: {metric.name} judges {' or '.join(metric.systems)}, not {check.system}")
    if metric.ranked == "k" and check.k is None:
        raise BadSuite(f"{where}: {metric.name} needs k, such as k: 3")
    if metric.ranked == "no" and check.k is not None:
        raise BadSuite(f"{where}: {metric.name} has no k; remove it")
    if check.statistic != "mean" and metric.score is None:
        raise BadSuite(f"{where}: {metric.name} is one number for all samples; remove statistic")
    if check.better_than == "majority" and "expected" not in metric.needs:
        raise BadSuite(f"{where}: only metrics of labels can be better than the majority class")
    threshold = check.at_least if check.at_least is not None else check.at_most
    if threshold is None:
        return
    if not metric.low <= threshold <= metric.high:
        raise BadSuite(f"{where}: threshold {threshold:g} lies outside {metric.low:g} to {metric.high:g}")
    if (check.at_least is not None) != metric.higher_is_better:
        key = "at_least" if metric.higher_is_better else "at_most"
        raise BadSuite(
            f"{where}: of {metric.name} {'more' if key == 'at_least' else 'less'} is better; use {key}"
        )
    if threshold == (metric.high if metric.higher_is_better else metric.low):
        raise BadSuite(
            f"{where}: no number of samples can prove {threshold:g}; ask for a little less than perfect"
        )


def load_dataset(suite: EvalSuite, folder: Path, workspace: Workspace) -> Dataset:
    """
    The suite's samples, checked to hold what its checks need.

    Args:
        folder: of the suite's file; a relative path starts there.

    Raises:
        BadDataset: a malformed file, or samples without a field that a metric needs.
        NotFound: the registry has no such dataset.
    """
    place = suite.dataset
    if place.path is not None:
        found = dataset.read(
            folder / place.path, place.name or suite.name, source=place.source, licence=place.licence
        )
    else:
        with workspace.reading() as connection:
            version, content = datasets.get(connection, parse_ref(place.ref or ""))
        rows = datasets.rows_of(content, workspace.artifacts)
        found = dataset.from_version(version, rows, source=content.source, licence=content.licence)
    for check in suite.checks:
        metric = metrics_of(suite)[check.metric]
        require(samples_of(check, found.samples), metric, check)
    return found


def samples_of(check: Check, samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples a check judges: all, or the first `limit` of the fixed order."""
    return samples[: check.limit] if check.limit else samples


def require(samples: Sequence[Sample], metric: Metric, check: Check) -> None:
    """
    Check that every sample says what the metric and the system need.

    Raises:
        BadDataset: some do not; names the field, how many and the first.
    """
    fields = {*metric.needs, "features" if check.system == "prediction" else "query"}
    for field in sorted(fields):
        lacking = [sample.id for sample in samples if not sample.has(field)]
        if lacking:
            raise BadDataset(
                f"{len(lacking)} of {len(samples)} samples have no {field!r}, which check "
                f"{check.title!r} needs; the first is {lacking[0]!r}"
            )


def content_of(suite: EvalSuite, dataset_digest: str) -> Mapping[str, Any]:
    """The suite as the registry keeps it: plain JSON, the dataset by digest, no file paths."""
    content = {field.name: getattr(suite, field.name) for field in fields(suite)}
    return cast("dict[str, Any]", versions.plain({**content, "dataset": dataset_digest}))
