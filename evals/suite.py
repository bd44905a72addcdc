"""EvalSuites: which checks a release must stand, on which dataset. Read from strict YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from evals import dataset
from evals.checks import QUANTILES, Check, Margins
from evals.dataset import Dataset, Sample
from evals.errors import BadDataset, BadSuite
from evals.metrics.base import Metric
from registry import datasets, parse, plugins, versions
from registry.errors import BadInput, NotFound
from registry.refs import check_name, parse_ref
from registry.workspace import Workspace

__all__ = [
    "QUANTILES", "Check", "DatasetSource", "EvalSuite", "content_of", "load_dataset", "metrics_of", "read",
    "samples_of",
]  # fmt: skip
MOST_EPOCHS = 100
_ANSWERS = {"rag": ("chat", "retrieval")}
"""A system whose outputs are also outputs of others."""
_NEWER = ("epochs", "judge", "judging", "slices", "cluster", "margins")
_NEWER_OF_CHECKS = ("options", "judge", "not_worse_than", "any_of", "all_of")
"""Left out of a registered suite where they say nothing, so that older suites keep their digest."""


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
class Judging:
    """What a judge must have shown on human labels before its scores may decide."""

    min_labels: int = 50
    min_kappa: float = 0.4
    """Cohen's kappa with people; the lower end of its interval must be above 0 as well."""
    max_error_share: float = 0.05
    """Share of samples that a judge may leave without a score; more is inconclusive."""

    def __post_init__(self) -> None:
        """Refuse values outside their ranges."""
        if self.min_labels < 10:
            raise BadInput(f"judging.min_labels is {self.min_labels}; it must be at least 10")
        if not 0 <= self.min_kappa < 1:
            raise BadInput(f"judging.min_kappa is {self.min_kappa}; it must be at least 0 and below 1")
        if not 0 <= self.max_error_share < 1:
            raise BadInput("judging.max_error_share must be at least 0 and below 1")


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
    epochs: int = 1
    """How often each sample is asked; repetitions are averaged within the sample."""
    judge: str | None = None
    """The judge of the registry that scores, where a check names no other."""
    judging: Judging = field(default_factory=Judging)
    slices: tuple[str, ...] = ()
    """Keys of rows whose values part the samples; no part may be worse than a check allows."""
    cluster: str | None = None
    """The key of rows that depend on each other, such as questions about one document."""
    margins: Margins = field(default_factory=Margins)

    def __post_init__(self) -> None:
        """Refuse a suite that could let anything pass."""
        check_name(self.name, "suite")
        check_name(self.release, "release")
        if not any(check.tier in ("critical", "gate") for check in self.checks):
            raise BadInput("a suite needs at least one check whose tier is critical")
        if not 0 <= self.max_error_share < 1:
            raise BadInput("max_error_share must be at least 0 and below 1")
        if not 1 <= self.epochs <= MOST_EPOCHS:
            raise BadInput(f"epochs is {self.epochs}; it must be 1 to {MOST_EPOCHS}")
        if self.judge is not None:
            check_name(self.judge, "judge")
        if len(set(self.slices)) < len(self.slices):
            raise BadInput("slices: name each key once")

    def judge_of(self, check: Check) -> str | None:
        """The judge that scores *check*, if any."""
        return check.judge or self.judge


def read(path: Path) -> EvalSuite:
    """
    The suite in a YAML file, its checks matched with the metrics and systems there are.

    Raises:
        BadInput: a malformed file; names line and key.
        BadSuite: a check that cannot be judged.
        NotFound: an unknown metric; lists those there are.
    """
    suite = _with_margins(parse.read(path, EvalSuite))
    titles = [check.title for check in suite.checks]
    for title in titles:
        if titles.count(title) > 1:
            raise BadSuite(f"{path}: two checks are called {title!r}; give one another name")
    metrics_of(suite)
    return suite


def _with_margins(suite: EvalSuite) -> EvalSuite:
    """The suite with each tier's margin written into the checks that rely on it."""
    checks = []
    for check in suite.checks:
        tier = "critical" if check.tier == "gate" else check.tier
        relies = check.not_worse_than is not None and check.margin is None
        checks.append(replace(check, margin=getattr(suite.margins, tier)) if relies else check)
    return replace(suite, checks=tuple(checks))


def metrics_of(suite: EvalSuite) -> dict[str, Metric]:
    """
    The metric of each check, by the check's title.

    Raises:
        NotFound: an unknown metric or system; lists those there are.
        BadSuite: a check that asks of a metric what it does not offer.
    """
    systems = plugins.names("systems")
    found: dict[str, Metric] = {}
    for check in suite.checks:
        where = f"check {check.title!r}"
        if check.system not in systems:
            raise NotFound(f"{where}: no system {check.system!r}; there are: {', '.join(systems)}")
        metric = metric_of(check)
        _match(check, metric)
        if metric.rate is not None and suite.judge_of(check) is None:
            raise BadSuite(
                f"{where}: {metric.name} needs a judge; name one of the registry with judge: in the check or "
                "the suite"
            )
        if metric.rate is None and check.judge is not None:
            raise BadSuite(f"{where}: {metric.name} asks no judge; remove judge")
        if (check.any_of or check.all_of or 1) > suite.epochs:
            raise BadSuite(f"{where}: any_of and all_of need as many epochs; the suite has {suite.epochs}")
        found[check.title] = metric
    return found


def metric_of(check: Check) -> Metric:
    """The metric of *check*, made with its options. Raises NotFound, BadSuite."""
    plugin = plugins.load("metrics", check.metric)
    where = f"check {check.title!r}"
    if not isinstance(plugin, Metric):
        if not callable(plugin):
            raise BadSuite(f"plug-in {check.metric!r} of sluicegate.metrics is not a Metric")
        try:
            plugin = plugin(check.options)
        except BadInput as error:
            raise BadSuite(f"{where}: {error.message}") from error
        if not isinstance(plugin, Metric):
            raise BadSuite(f"plug-in {check.metric!r} of sluicegate.metrics made no Metric")
    elif check.options:
        raise BadSuite(f"{where}: {check.metric} takes no options; remove {', '.join(check.options)}")
    return plugin


def _match(check: Check, metric: Metric) -> None:
    where = f"check {check.title!r}"
    if not {check.system, *_ANSWERS.get(check.system, ())} & set(metric.systems):
        raise BadSuite(f"{where}: {metric.name} judges {' or '.join(metric.systems)}, not {check.system}")
    if metric.ranked == "k" and check.k is None:
        raise BadSuite(f"{where}: {metric.name} needs k, such as k: 3")
    if metric.ranked == "no" and check.k is not None:
        raise BadSuite(f"{where}: {metric.name} has no k; remove it")
    if (check.any_of or check.all_of) and (metric.compute is not None or (metric.low, metric.high) != (0, 1)):
        raise BadSuite(f"{where}: any_of and all_of count samples that score 0 or 1; {metric.name} does not")
    if check.statistic != "mean" and metric.compute is not None:
        raise BadSuite(f"{where}: {metric.name} is one number for all samples; remove statistic")
    if check.better_than == "majority" and not (
        "expected" in metric.needs and "prediction" in metric.systems
    ):
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
    metrics = metrics_of(suite)
    for limit in sorted({check.limit or 0 for check in suite.checks}):
        alike = [check for check in suite.checks if (check.limit or 0) == limit]
        require(found.samples[: limit or None], {check.title: metrics[check.title] for check in alike}, alike)
        for check in alike:
            _require_positive(found.samples[: limit or None], check, metrics[check.title])
    keys = (*suite.slices, *((suite.cluster,) if suite.cluster else ()))
    for key in keys:
        lacking = [sample.id for sample in found.samples if sample.get(key) is None]
        if lacking:
            raise BadDataset(
                f"{len(lacking)} of {len(found.samples)} samples have no {key!r}, which the suite's slices "
                f"or cluster name; the first is {lacking[0]!r}"
            )
    return found


def samples_of(check: Check, samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples a check judges: all, or the first `limit` of the fixed order."""
    return samples[: check.limit] if check.limit else samples


def require(samples: Sequence[Sample], metrics: Mapping[str, Metric], checks: Sequence[Check]) -> None:
    """
    Check that every sample says what the metrics and the systems need.

    Args:
        metrics: by check title.

    Raises:
        BadDataset: some do not; names the field, how many and the first.
    """
    needed: dict[str, str] = {}
    for check in checks:
        for name in (*metrics[check.title].needs, "features" if check.system == "prediction" else "query"):
            needed.setdefault(name, check.title)
    lacking: dict[str, list[str]] = {}
    for sample in samples:
        for name in needed:
            if not sample.has(name):
                lacking.setdefault(name, []).append(sample.id)
    for name, ids in sorted(lacking.items()):
        raise BadDataset(
            f"{len(ids)} of {len(samples)} samples have no {name!r}, which check {needed[name]!r} needs; "
            f"the first is {ids[0]!r}"
        )


def _require_positive(samples: Sequence[Sample], check: Check, metric: Metric) -> None:
    """Refuse a class that no sample has: such a check would say nothing, the same of every release."""
    positive = check.options.get("positive") or metric.positive
    if positive is None or any(sample.expected == positive for sample in samples):
        return
    classes = sorted({sample.expected for sample in samples if sample.expected is not None})
    raise BadDataset(
        f"check {check.title!r}: positive is {positive!r}, which no sample expects; there are "
        f"{', '.join(map(repr, classes[:10])) or 'none'}"
    )


def content_of(suite: EvalSuite, dataset_digest: str) -> Mapping[str, Any]:
    """The suite as the registry keeps it: plain JSON, the dataset by digest, no file paths."""
    content = {field.name: getattr(suite, field.name) for field in fields(suite)}
    content = {**_without_defaults(suite, content, _NEWER), "dataset": dataset_digest}
    content["checks"] = [_check_content(check) for check in suite.checks]
    return cast("dict[str, Any]", versions.plain(content))


def _check_content(check: Check) -> dict[str, Any]:
    """As it always was: the highest tier under its first name, no margin as 0."""
    content = {field.name: getattr(check, field.name) for field in fields(check)}
    content |= {"tier": "gate" if check.tier == "critical" else check.tier, "margin": check.margin or 0.0}
    return _without_defaults(check, content, _NEWER_OF_CHECKS)


def _without_defaults(noun: Any, content: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:  # noqa: ANN401
    defaults = {
        field.name: field.default_factory() if field.default_factory is not MISSING else field.default
        for field in fields(noun)
        if field.name in names
    }
    return {key: value for key, value in content.items() if key not in names or value != defaults[key]}
