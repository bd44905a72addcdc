"""
Training parameters: params.yaml, then environment variables.

`SECTION__KEY` overrides one value, for example `MODEL__MAX_DEPTH=4`; `QUALITY__<COLUMN>__<RULE>`
reaches a quality rule. `MLFLOW_TRACKING_URI` sets `mlflow.tracking_uri`, as MLflow's own tools do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from classical import override
from classical.errors import BadParams
from registry import ids, parse
from registry.errors import BadInput
from registry.refs import check_name

METRICS = ("accuracy", "precision", "recall", "f1", "precision_macro", "recall_macro", "f1_macro")
"""What `training.metrics` may name; plain precision, recall and f1 are weighted by class size."""


@dataclass(frozen=True, slots=True)
class DataParams:
    """The `data` section: where rows come from and which of them are held out."""

    raw_data_path: Path
    """CSV, or CSV.gz; relative to params.yaml."""
    processed_data_path: Path | None = None
    """Where the checked, typed table is written; nowhere by default."""
    id_column: str | None = None
    """Unique name of each row; None takes the row's own content as its name."""
    test_size: float = 0.2
    """Share of rows held out, in (0, 1)."""
    random_state: int = 42
    """Salt of the split and seed of the folds."""
    missing_values: tuple[str, ...] = ()
    """Texts that mean missing, such as `?`; a blank cell always does."""
    max_twin_share: float = 0.05
    """Highest share of held-out rows that may equal a training row in every column."""

    def __post_init__(self) -> None:
        """Refuse shares outside their range."""
        _within("test_size", self.test_size, 0.01, 0.9)
        _within("random_state", self.random_state, 0, 2**32 - 1)
        _within("max_twin_share", self.max_twin_share, 0, 1)


@dataclass(frozen=True, slots=True)
class FeatureParams:
    """The `features` section: the columns a model reads, and the one it predicts."""

    target: str
    categorical_features: tuple[str, ...] = ()
    numerical_features: tuple[str, ...] = ()
    positive_class: str | None = None
    """The class of interest; adds its own precision, recall, F1 and ROC AUC, and comes last."""

    def __post_init__(self) -> None:
        """Refuse no columns, or one column in two roles."""
        if not self.columns:
            raise BadInput("categorical_features and numerical_features are both empty")
        seen: set[str] = set()
        for column in (*self.columns, self.target):
            if column in seen:
                raise BadInput(f"column {column!r} is named twice")
            seen.add(column)

    @property
    def columns(self) -> tuple[str, ...]:
        """Categorical, then numerical columns: the order of the model's inputs."""
        return self.categorical_features + self.numerical_features


@dataclass(frozen=True, slots=True)
class ModelParams:
    """The `model` section; each recipe reads the keys that concern it."""

    algorithm: str = "random_forest"
    """A plug-in in `sluicegate.recipes`: random_forest, gradient_boosting, linear."""
    random_state: int = 42
    class_weight: Literal["balanced"] | None = None
    """`balanced` weighs each class by 1/frequency: more recall of rare classes, less accuracy."""
    n_estimators: int = 100
    """random_forest: trees; gradient_boosting: rounds."""
    max_depth: int | None = None
    """random_forest, gradient_boosting: levels of a tree; null: until leaves are pure, 3 when boosting."""
    min_samples_split: int = 2
    """random_forest, gradient_boosting: rows a node needs before it may split."""
    min_samples_leaf: int = 1
    """random_forest, gradient_boosting: rows each leaf keeps."""
    c: float = 1.0
    """linear: inverse strength of the L2 penalty."""
    max_iter: int = 1000
    """linear: most steps of the solver."""
    learning_rate: float = 0.1
    """gradient_boosting: how much of each tree's correction is taken, above 0, at most 1."""

    def __post_init__(self) -> None:
        """Refuse sizes that no estimator takes."""
        _within("random_state", self.random_state, 0, 2**32 - 1)
        _within("n_estimators", self.n_estimators, 1, 10_000)
        _within("max_depth", 1 if self.max_depth is None else self.max_depth, 1, 1000)
        _within("min_samples_split", self.min_samples_split, 2, 1_000_000)
        _within("min_samples_leaf", self.min_samples_leaf, 1, 1_000_000)
        _within("c", self.c, 1e-9, 1e9)
        _within("max_iter", self.max_iter, 1, 1_000_000)
        _within("learning_rate", self.learning_rate, 1e-6, 1)
        if self.algorithm == "gradient_boosting" and self.class_weight is not None:
            raise BadInput(
                f"class_weight {self.class_weight!r}: gradient_boosting weighs no classes; leave it out, or "
                "take random_forest or linear"
            )


@dataclass(frozen=True, slots=True)
class TrainingParams:
    """The `training` section: how the model is judged before anyone sees the hold-out."""

    cross_validation_folds: int = 5
    """2 to 20 stratified folds of the training side; 0 for none."""
    validation_split: float = 0.0
    """Share of the training side to score one extra fit on, for tuning; 0 for none."""
    metrics: tuple[str, ...] = METRICS

    def __post_init__(self) -> None:
        """Refuse unknown metrics and impossible shares."""
        if self.cross_validation_folds:
            _within("cross_validation_folds", self.cross_validation_folds, 2, 20)
        _within("validation_split", self.validation_split, 0, 0.9)
        for metric in self.metrics:
            if metric not in METRICS:
                raise BadInput(f"metrics: unknown metric {metric!r}{parse.nearest(metric, METRICS)}")


@dataclass(frozen=True, slots=True)
class MlflowParams:
    """The `mlflow` section: under which name, and where, runs are recorded."""

    experiment_name: str = "model"
    """Name of the MLflow experiment and of the registered model."""
    tracking_uri: str | None = None
    """None: SQLite at `<registry home>/mlflow.db`."""

    def __post_init__(self) -> None:
        """Refuse a name the registry would refuse."""
        check_name(self.experiment_name, "experiment_name")


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """What every cell of one column must satisfy before training starts."""

    nullable: bool = False
    """Whether a cell may be missing; the served model then takes null too."""
    max_null_share: float | None = None
    """Highest share of missing cells, in [0, 1]; needs `nullable: true`."""
    min: float | None = None
    max: float | None = None
    allowed: tuple[str | float, ...] = ()
    """The only values; empty allows any."""
    unique: bool = False

    def __post_init__(self) -> None:
        """Refuse rules that contradict each other."""
        if self.max_null_share is not None:
            _within("max_null_share", self.max_null_share, 0, 1)
            if not self.nullable:
                raise BadInput("max_null_share needs nullable: true")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise BadInput(f"min {self.min:g} is above max {self.max:g}")


@dataclass(frozen=True, slots=True)
class Params:
    """All of params.yaml, with the overrides of the environment applied."""

    data: DataParams
    features: FeatureParams
    model: ModelParams = field(default_factory=ModelParams)
    training: TrainingParams = field(default_factory=TrainingParams)
    mlflow: MlflowParams = field(default_factory=MlflowParams)
    quality: Mapping[str, ColumnRule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse sections that do not fit each other."""
        features, row_id = self.features, self.data.id_column
        if row_id in (*features.columns, features.target):
            raise BadInput(f"data.id_column {row_id!r} must not be a feature or the target")
        known = (*features.columns, features.target)
        for column, rule in self.quality.items():
            if column not in known:
                raise BadInput(f"quality.{column}: unknown column{parse.nearest(column, known)}")
            number = column in features.numerical_features
            if not number and (rule.min is not None or rule.max is not None):
                raise BadInput(f"quality.{column}: min and max are for numerical_features")
            if any(isinstance(value, str) is number for value in rule.allowed):
                kind = "numbers" if number else "text; put each value in quotes"
                raise BadInput(f"quality.{column}.allowed: this column holds {kind}")

    def get(self, key_path: str, default: object = None) -> Any:  # noqa: ANN401 - any value of the file
        """
        The value at a dotted path such as `model.max_depth`, or *default* where there is none.

        >>> Params(DataParams(Path("a.csv")), FeatureParams("y", ("x",))).get("model.n_estimators")
        100
        """
        value: Any = self
        for key in key_path.split("."):
            if is_dataclass(value) and key in {known.name for known in fields(value)}:
                value = getattr(value, key)
            elif isinstance(value, Mapping) and key in value:
                value = value[key]
            else:
                return default
        return value


def load(path: Path, environ: Mapping[str, str] | None = None) -> Params:
    """
    The parameters in the file at *path*, overridden by *environ* (default: the process's own).

    Raises:
        BadParams: unknown section or key (with its line and the nearest valid one), a wrong type,
            a value out of range; in the file, or in the variable that the message names.
    """
    env = os.environ if environ is None else environ
    try:
        overrides = _overrides(env)
        if not overrides:
            return parse.read(path, Params)
        return _overridden(path, overrides)
    except BadParams:
        raise
    except BadInput as error:
        raise BadParams(error.message) from error


def plain(params: Params) -> dict[str, Any]:
    """The parameters as plain JSON values, nested as in params.yaml."""
    document = asdict(params)
    for key in ("raw_data_path", "processed_data_path"):
        document["data"][key] = document["data"][key] and str(document["data"][key])
    result: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document))
    return result


def flatten(params: Params) -> dict[str, str]:
    """
    One text per value under its full path, so `model.random_state` and `data.random_state` differ.

    Values that are null or empty are left out.
    """
    result: dict[str, str] = {}

    def walk(value: object, path: str) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                walk(item, f"{path}.{key}" if path else str(key))
        elif value is not None and value != []:
            listed = isinstance(value, list)
            result[path] = ", ".join(map(str, value)) if listed else str(value)  # type: ignore[call-overload]

    walk(plain(params), "")
    return result


def params_digest(params: Params) -> str:
    """
    Digest of every value that decides the model.

    Paths and the `mlflow` section are left out: the data's own digest says what was read, and
    where a run is recorded does not change what is trained.
    """
    document = plain(params)
    del document["mlflow"], document["data"]["raw_data_path"], document["data"]["processed_data_path"]
    return ids.digest(document)


@dataclass(frozen=True, slots=True)
class _Document:
    data: Mapping[str, Any] | None = None
    features: Mapping[str, Any] | None = None
    model: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None
    mlflow: Mapping[str, Any] | None = None
    quality: Mapping[str, Any] | None = None


def _overrides(env: Mapping[str, str]) -> dict[str, str]:
    """Variables that begin with a section of params.yaml and two underscores."""
    sections = {known.name.upper() for known in fields(Params)}
    found = {name: text for name, text in env.items() if name.partition("__")[0] in sections and "__" in name}
    uri = env.get("MLFLOW_TRACKING_URI")
    if uri:
        found.setdefault("MLFLOW__TRACKING_URI", uri)
    return dict(sorted(found.items()))


def _overridden(path: Path, overrides: Mapping[str, str]) -> Params:
    sections = parse.read(path, _Document)
    document = {key: dict(value) for key, value in asdict(sections).items() if value is not None}
    for variable, text in overrides.items():
        override.place(document, Params, variable, text)
    try:
        return parse.build(document, Params, source=f"{path} with {', '.join(overrides)}")
    except BadInput:
        parse.read(path, Params)  # where the file alone is at fault, this names the line
        raise


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise BadInput(f"{name} {value:g} is not between {low:g} and {high:g}")
