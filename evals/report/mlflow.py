"""A run in MLflow's experiment tracking, beside the runs of training."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from evals.errors import EvalsError
from evals.report import folder, html
from registry import plugins
from registry.errors import BadInput
from registry.interop.mlflow import SWITCHES, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

_NOT_NAME = re.compile(r"[^\w\-./ ]")
_MOST_PARAMETER = 500
_BATCH = 500
"""MLflow takes 1,000 metrics and 100 parameters or tags a request."""


def log_run(
    report: Mapping[str, Any],
    tracking_uri: str,
    experiment: str,
    lines: Iterable[Mapping[str, Any]] = (),
) -> str:
    """
    Log *report* and return MLflow's id of the new run.

    Metrics are `<check>`, `<check>.low`, `.high`, `.gain` and so on; tags name verdict, release digest, suite
    and evidence; artifacts are `report.json` and `report.html`. Telemetry is off, requests end after 30 s.

    Args:
        tracking_uri: a server, `sqlite:///file.db`, or a folder as `file:` URI.
        lines: what `outputs.jsonl` holds, for the HTML; prompts and answers go to MLflow only with them.

    Raises:
        BadInput: *tracking_uri* is empty.
        MissingExtra: MLflow is not installed.
        EvalsError: MLflow refused or cannot be reached.
    """
    if not tracking_uri:
        raise BadInput("mlflow is ''; name a tracking server such as http://127.0.0.1:5000")
    for name, value in SWITCHES.items():  # read when MLflow is imported and at each request
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "classical") from error
    with _asked(tracking_uri):
        return _log(MlflowClient(tracking_uri=tracking_uri), report, experiment, lines)


def metrics_of(report: Mapping[str, Any]) -> dict[str, float]:
    """What is logged as metrics, by MLflow's names: letters, digits and `_-./ ` only."""
    found: dict[str, float] = {"samples": report["samples"], "errors": report["errors"]}
    for check in report["checks"]:
        name = _NOT_NAME.sub("_", check["name"])[:200]
        for key in ("value", "low", "high", "baseline_value", "gain", "gain_low", "gain_high", "p_value"):
            value = check.get(key)
            if value is not None:
                found[name if key == "value" else f"{name}.{key}"] = float(value)
    spent = (report.get("cost") or {}).get("spent_usd")
    if spent is not None:
        found["judges_cost_usd"] = float(spent)
    flips = report.get("flips")
    if flips:
        found |= {"cases_better": flips["better"], "cases_worse": flips["worse"]}
    return found


def tags_of(report: Mapping[str, Any]) -> dict[str, str]:
    """What is logged as tags; those without a value are left out."""
    baseline = report["baseline"] or {}
    tags = {
        "sluicegate.verdict": report["verdict"],
        "sluicegate.reason": report["reason"][:_MOST_PARAMETER],
        "sluicegate.release": report["release"]["ref"],
        "sluicegate.digest": report["release"]["digest"],
        "sluicegate.baseline": baseline.get("digest"),
        "sluicegate.suite": report["suite"]["name"],
        "sluicegate.suite_digest": report["suite"]["digest"],
        "sluicegate.dataset_digest": report["dataset"]["digest"],
        "sluicegate.evidence": report["evidence"],
    }
    return {name: str(value) for name, value in tags.items() if value}


def _log(
    client: MlflowClient, report: Mapping[str, Any], experiment: str, lines: Iterable[Mapping[str, Any]]
) -> str:
    from mlflow.entities import Metric, Param

    known = client.get_experiment_by_name(experiment)
    place = known.experiment_id if known else client.create_experiment(experiment)
    name = f"{report['suite']['name']} {report['release']['ref']}"
    run = client.create_run(place, tags=tags_of(report), run_name=name)
    identity = str(run.info.run_id)
    ended = False
    try:
        at = int(run.info.start_time)
        metrics = [Metric(key, value, at, 0) for key, value in metrics_of(report).items()]
        parameters = [
            Param(
                f"{_NOT_NAME.sub('_', check['name'])[:200]}.wanted", str(check["threshold"])[:_MOST_PARAMETER]
            )
            for check in report["checks"]
        ]
        for start in range(0, len(metrics), _BATCH):
            client.log_batch(identity, metrics=metrics[start : start + _BATCH])
        for start in range(0, len(parameters), 100):
            client.log_batch(identity, params=parameters[start : start + 100])
        _artifacts(client, identity, report, lines)
        client.set_terminated(identity, status="FINISHED")
        ended = True
    finally:
        if not ended:
            client.set_terminated(identity, status="FAILED")
    return identity


def _artifacts(
    client: MlflowClient, identity: str, report: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]
) -> None:
    import json

    with TemporaryDirectory(prefix="sluicegate-mlflow-") as room:
        for name, content in (
            ("report.json", json.dumps(report, indent=2) + "\n"),
            ("report.html", html.render(report, lines)),
        ):
            path = Path(room) / name
            folder.write_text(path, content)
            client.log_artifact(identity, str(path))


@contextmanager
def _asked(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        reason = (str(error).strip().splitlines() or ["it gave no reason"])[0]
        shown = without_credentials(uri, uri)
        raise EvalsError(f"MLflow at {shown}: {without_credentials(uri, reason)}") from error
