"""`classical`: validate data, train and register models, predict from the shell."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classical.errors import BadData
from registry import terminal
from registry.terminal import Json

if TYPE_CHECKING:
    from classical.pipeline import Prepared, Trained
    from registry.workspace import Workspace

BATCH_ROWS = 1000
"""Rows of one call to the model in `classical predict`."""

application = terminal.command_group("Classical models: validate, train, register, predict.")

ParamsFile = Annotated[Path, typer.Argument(help="The training parameters.", show_default=True)]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", help="Quality report to write; default <home>/reports/<name>-quality.json."),
]


@application.command()
def validate(
    params_file: ParamsFile = Path("params.yaml"), report: ReportFile = None, *, as_json: Json = False
) -> None:
    """
    Check the parameters and every quality rule, and show the split. Trains nothing.

    Example: classical validate params.yaml
    """
    from classical import params, pipeline
    from registry.settings import registry_settings

    settings = params.load(params_file)
    path = report or _report_path(registry_settings().home, settings.mlflow.experiment_name)
    prepared = pipeline.prepare(settings, params_file.parent, path, say=_say)
    value = {"ok": True, **_told(prepared), "report": str(path)}
    terminal.show(value, lambda: _shares(prepared), as_json=as_json)


@application.command()
def train(
    params_file: ParamsFile = Path("params.yaml"),
    name: Annotated[str, typer.Option(help="Name in the registry; default mlflow.experiment_name.")] = "",
    holdout: Annotated[
        Path | None, typer.Option(help="Where to write the held-out rows as JSON Lines, for `evals`.")
    ] = None,
    report: ReportFile = None,
    jobs: Annotated[int, typer.Option(min=0, help="Threads that grow trees; 0: all there are.")] = 0,
    *,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Record the run in MLflow.")] = True,
    as_json: Json = False,
) -> None:
    """
    Validate, split, cross-validate, fit, package without pickle, track and register a model.

    The same rows, parameters and environment give the same version, however often it runs.

    Example: classical train params.yaml --holdout data/churn-holdout.jsonl
    """
    from classical import data, lineage, params, pipeline
    from classical import track as tracking
    from registry.refs import check_name
    from registry.workspace import open_workspace

    started = time.monotonic()
    settings = params.load(params_file)
    called = check_name(name or settings.mlflow.experiment_name)
    with open_workspace() as workspace:
        home = workspace.settings.home
        uri = settings.mlflow.tracking_uri or tracking.default_uri(home)
        with tracking.recorder(uri) if track else nullcontext() as record:
            prepared = pipeline.prepare(
                settings, params_file.parent, report or _report_path(home, called), say=_say
            )
            trained = pipeline.fit(
                prepared,
                settings,
                workspace.artifacts,
                jobs=jobs or lineage.cores(),
                say=_say,
                bar=terminal.progress,
            )
            if holdout:
                data.write_holdout(prepared.split.holdout, settings, holdout)
                _say(f"wrote {holdout}: {len(prepared.split.holdout)} rows")
            meta = pipeline.circumstances(params_file.resolve().parent, trained)
            if record:
                run = pipeline.run_of(called, settings, trained, meta, actor=terminal.actor())
                files = pipeline.files_of(settings, prepared, trained, workspace.artifacts)
                recorded = record(run, files)
                meta["mlflow_run_id"] = recorded.run_id
                _say(f"tracked in MLflow: run {recorded.run_id} of {settings.mlflow.experiment_name}")
        value = _register(workspace, called, trained, meta)
    value |= _told(prepared) | {
        "run_id": meta.get("mlflow_run_id"),
        "holdout": str(holdout) if holdout else None,
        "seconds": round(time.monotonic() - started, 1),
    }
    terminal.show(value, lambda: _summary(value), as_json=as_json)


@application.command()
def predict(
    ref: Annotated[str, typer.Argument(help="name, name:3 or name@sha256:…")],
    source: Annotated[str, typer.Option("--input", help="JSON Lines of rows; - reads standard input.")] = "-",
    threads: Annotated[int, typer.Option(min=1, help="Threads of one call to the model.")] = 1,
    *,
    as_json: Json = False,
) -> None:
    """
    Predict rows with a registered model: each line an object of features, or a hold-out line.

    Example: classical predict churn --input data/churn-holdout.jsonl --json
    """
    from classical.predict import load_predictor
    from registry import models
    from registry.refs import parse_ref
    from registry.workspace import open_workspace

    with open_workspace() as workspace:
        with workspace.viewing("versions.show") as connection:
            version, content = models.get(connection, parse_ref(ref))
        predictor = load_predictor(content, workspace.artifacts, threads=threads)
    named = list(_rows(source, [feature.name for feature in content.features]))
    answers: list[dict[str, Any]] = []
    with terminal.progress("predicting", len(named)) as tick:
        for start in range(0, len(named), BATCH_ROWS):
            batch = named[start : start + BATCH_ROWS]
            result = predictor.predict([row for _, row in batch])
            for (row_id, _), label, row in zip(batch, result.labels, result.probabilities, strict=True):
                chances = dict(zip(predictor.classes, row, strict=True))
                answers.append({"id": row_id, "label": label, "probabilities": chances})
            tick(len(batch))
    value = {
        "ok": True,
        "model": f"{version.name}:{version.number}",
        "digest": version.digest,
        "predictions": answers,
    }
    lines = [
        (answer["id"], answer["label"], f"{answer['probabilities'][answer['label']]:.3f}")
        for answer in answers
    ]
    terminal.show(value, lambda: terminal.table(("ID", "LABEL", "PROBABILITY"), lines), as_json=as_json)


@application.command("list")
def list_models(*, as_json: Json = False) -> None:
    """
    The registered models, newest first.

    Example: classical list
    """
    from registry import versions
    from registry.clock import to_text
    from registry.ids import short
    from registry.workspace import open_workspace

    with open_workspace() as workspace, workspace.viewing("versions.show") as connection:
        found = versions.listing(connection, "model")
    value = {
        "ok": True,
        "models": [
            {
                "name": item.name,
                "number": item.number,
                "digest": item.digest,
                "created_at": to_text(item.created_at),
                "recipe": item.content["training"].get("recipe"),
                "metrics": item.content["training"].get("metrics", {}),
            }
            for item in found
        ],
    }
    lines = [
        (
            f"{item.name}:{item.number}",
            short(item.digest),
            item.content["training"].get("recipe", ""),
            item.content["training"].get("metrics", {}).get("accuracy", ""),
            to_text(item.created_at)[:19],
        )
        for item in found
    ]
    headings = ("MODEL", "DIGEST", "RECIPE", "ACCURACY", "CREATED")
    terminal.show(value, lambda: terminal.table(headings, lines), as_json=as_json)


def main() -> None:
    """The console script."""
    terminal.run(application)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report_path(home: Path, name: str) -> Path:
    return home / "reports" / f"{name}-quality.json"


def _told(prepared: Prepared) -> dict[str, Any]:
    return {
        "data_digest": prepared.table.digest,
        "rows": {"train": len(prepared.split.train), "holdout": len(prepared.split.holdout)},
        "shares": prepared.split.shares,
        "twins": prepared.split.twins,
    }


def _shares(prepared: Prepared) -> str:
    sides = prepared.split.shares
    classes = sorted({name for side in sides.values() for name in side})
    lines = [
        (side, _told(prepared)["rows"][side], *(f"{sides[side].get(name, 0):.1%}" for name in classes))
        for side in sides
    ]
    return terminal.table(("SIDE", "ROWS", *classes), lines)


def _register(workspace: Workspace, name: str, trained: Trained, meta: Mapping[str, Any]) -> dict[str, Any]:
    from registry import models
    from registry.clock import utc_now

    with workspace.acting("models.push") as (connection, who):
        version = models.push(connection, name, trained.content, actor=who, now=utc_now(), meta=meta)
    return {
        "ok": True,
        "ref": f"{version.name}:{version.number}",
        "name": version.name,
        "number": version.number,
        "digest": version.digest,
        "artifact": trained.content.artifact,
        "classes": trained.content.classes,
        "metrics": trained.metrics,
        "parity": {"max_delta": trained.parity.max_delta, "ties": trained.parity.ties},
    }


def _summary(value: Mapping[str, Any]) -> str:
    metrics = value["metrics"]
    lines = [
        (name, f"{metrics[name]:.4f}", _deviation(metrics, name))
        for name in metrics
        if not name.startswith(("cv_", "validation_"))
    ]
    table = terminal.table(("METRIC", "HOLD-OUT", "CROSS-VALIDATION"), lines)
    return f"{table}\n\n{value['ref']}  {value['digest']}  ({value['seconds']} s)"


def _deviation(metrics: Mapping[str, float], name: str) -> str:
    mean = metrics.get(f"cv_{name}_mean")
    return "" if mean is None else f"{mean:.4f} ± {metrics[f'cv_{name}_std']:.4f}"


def _rows(source: str, features: Sequence[str]) -> Iterator[tuple[object, Mapping[str, object]]]:
    """Id and features of each line; a line without an id is known by its number from 1."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{source}: cannot be read as UTF-8 text: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadData(f"{source}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadData(f"{source}:{number}: expected an object of features")
        wrapped = row.get("features") if "features" not in features else None
        yield (row.get("id", number), wrapped) if isinstance(wrapped, dict) else (number, row)
