"""The lifecycle in order: read, check, split; then fit, package, prove; then what to remember of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from classical import data, lineage, package, quality, train
from classical.data import Split, Table
from classical.package import Parity
from classical.params import Params, flatten, params_digest, plain
from classical.predict import load_predictor
from classical.quality import QualityReport
from classical.track import Run
from registry import ids, plugins
from registry.artifacts import Artifacts
from registry.entities import ModelContent

Say = Callable[[str], None]
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Opens a progress bar from a label and a total; what it yields takes how many more are done."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data that passed its checks, split."""

    table: Table
    report: QualityReport
    split: Split


@dataclass(frozen=True, slots=True)
class Trained:
    """A packaged model, not yet registered."""

    content: ModelContent
    digest: str
    """The digest the ModelVersion will have: it depends on rows, parameters and environment only."""
    metrics: Mapping[str, float]
    """Of the hold-out by plain name, `baseline_accuracy`, and `cv_…` and `validation_…`."""
    parity: Parity
    seconds: float
    """Wall time of fitting, packaging and proving."""


def prepare(params: Params, folder: Path, report_path: Path, *, say: Say) -> Prepared:
    """
    The rows of `data.raw_data_path`, checked and split.

    Args:
        folder: what the paths in *params* are relative to.
        report_path: where the quality report is written, passed or not.

    Raises:
        BadData: the file cannot be used; QualityFailed: a rule is broken; NotFound: no such recipe.
    """
    if params.model.algorithm not in plugins.names("recipes"):
        plugins.load("recipes", params.model.algorithm)  # says which there are
    table = data.read(folder / params.data.raw_data_path, params)
    say(f"read {params.data.raw_data_path}: {len(table.frame)} rows, {table.digest}")
    report = quality.checkpoint(table, params, report_path)
    say(f"checked {len(report.checks)} quality rules: all hold; report {report_path}")
    if params.data.processed_data_path:
        data.write_processed(table.frame, params, folder / params.data.processed_data_path)
        say(f"wrote {params.data.processed_data_path}")
    split = data.split(table.frame, params)
    say(
        f"split by hash of {params.data.id_column or 'content'}: {len(split.train)} to train, "
        f"{len(split.holdout)} held out; {split.twins} of these equal a training row"
    )
    return Prepared(table, report, split)


def fit(
    prepared: Prepared, params: Params, artifacts: Artifacts, *, jobs: int, say: Say, bar: Bar
) -> Trained:
    """
    Train, package into *artifacts*, prove parity and score the packaged model on the hold-out.

    Args:
        jobs: threads that grow trees; they change the time, not the model.

    Raises:
        BadData: the training side cannot be fitted; ParityFailed: the package differs from it.
        MissingExtra: the extra `classical` is not installed.
    """
    started = time.monotonic()
    side, holdout, target = prepared.split.train, prepared.split.holdout, params.features.target
    total = train.steps(params)
    with bar("fitting", total) as tick:
        fitted = train.fit(side, params, jobs=jobs, tick=tick)
    say(f"fitted {params.model.algorithm} {total} times ({_folds(params)})")

    packed = package.to_onnx(fitted, params)
    content = package.content_of(fitted, side, artifacts.put(packed), params, {})
    parity, probabilities = package.check_parity(fitted, load_predictor(content, artifacts), holdout, params)
    say(
        f"packaged {len(packed)} bytes of ONNX; equal to the trained model on {parity.rows} rows, "
        f"probabilities within {parity.max_delta:.1e}"
    )

    expected = holdout[target].map(fitted.classes.index).tolist()
    metrics = train.score(expected, probabilities, params, fitted.classes)
    metrics["baseline_accuracy"] = train.majority_accuracy(side[target].tolist(), holdout[target].tolist())
    metrics |= fitted.metrics
    content = replace(content, training=_training(prepared, params, metrics))
    digest = content_digest(content)
    return Trained(content, digest, metrics, parity, time.monotonic() - started)


def circumstances(folder: Path, trained: Trained) -> dict[str, Any]:
    """What the registry notes beside the version, outside its digest: code, time, machine."""
    git = lineage.git_state(folder)
    return {
        "git_commit": git.commit if git else None,
        "git_dirty": git.dirty if git else None,
        "seconds": round(trained.seconds, 3),
        "parity_max_delta": trained.parity.max_delta,
        "hardware": lineage.hardware(),
    }


def run_of(name: str, params: Params, trained: Trained, meta: Mapping[str, Any], *, actor: str) -> Run:
    """The run to record: its tags lead back to the commit, the data and the version in the registry."""
    training, commit = trained.content.training, meta["git_commit"]
    tags = {
        "git.commit": commit or "none",
        "git.dirty": "none" if meta["git_dirty"] is None else str(meta["git_dirty"]).lower(),
        "data.digest": training["data_digest"],
        "params.digest": training["params_digest"],
        "environment.digest": training["environment_digest"],
        "model.name": name,
        "model.digest": trained.digest,
        "mlflow.user": actor,
        "mlflow.source.name": "classical train",
        "mlflow.source.type": "LOCAL",
    }
    tags |= {"mlflow.source.git.commit": commit} if commit else {}
    return Run(params.mlflow.experiment_name, flatten(params), trained.metrics, tags)


def files_of(params: Params, prepared: Prepared, trained: Trained, artifacts: Artifacts) -> dict[str, bytes]:
    """The files of the run: the model, the parameters in force, the quality report, the environment."""
    documents = {
        "params.json": plain(params),
        "quality.json": prepared.report.as_json(),
        "environment.json": lineage.environment(),
    }
    texts = {name: json.dumps(item, indent=2).encode() for name, item in documents.items()}
    return texts | {"model.onnx": artifacts.get(trained.content.artifact)}


def content_digest(content: ModelContent) -> str:
    """The digest under which the registry will know *content*."""
    from registry import versions

    return ids.digest(versions.plain(content))


def _training(prepared: Prepared, params: Params, metrics: Mapping[str, float]) -> dict[str, Any]:
    """What the ModelVersion says about its making: nothing that differs between equal runs."""
    return {
        "data_digest": prepared.table.digest,
        "params_digest": params_digest(params),
        "environment_digest": lineage.environment_digest(),
        "recipe": params.model.algorithm,
        "folds": params.training.cross_validation_folds,
        "rows": {"train": len(prepared.split.train), "holdout": len(prepared.split.holdout)},
        "metrics": dict(metrics),
    }


def _folds(params: Params) -> str:
    folds = params.training.cross_validation_folds
    return f"{folds}-fold cross-validation" if folds else "no cross-validation"
