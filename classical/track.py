"""
Record a training run in MLflow.

MLflow runs in a child process that starts before training: importing it takes seconds that pass
meanwhile, its switches are set before it is imported, and nothing it prints can reach standard
output. The child touches no database or server until it is told the run, as one JSON object on
standard input; so it can be stopped at any time before.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from classical.errors import TrackingFailed
from registry import plugins

if TYPE_CHECKING:
    from mlflow import MlflowClient

TIMEOUT_S = 180
"""Longest wait for MLflow once training is done."""
BATCH = 100
"""Most parameters or metrics MLflow takes in one call."""
SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "True",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""Environment of the child where the user's own says nothing: no telemetry, bounded waits."""


@dataclass(frozen=True, slots=True)
class Run:
    """What MLflow is told about one training."""

    experiment: str
    params: Mapping[str, str]
    """By full path, for example `model.random_state`."""
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where the run can be found."""

    run_id: str
    experiment_id: str


Record = Callable[[Run, Mapping[str, bytes]], Recorded]
"""Records a run with its files (name → bytes). Call it at most once."""


def default_uri(home: Path) -> str:
    """The tracking URI of an MLflow database in the registry's folder."""
    return f"sqlite:///{home.resolve() / 'mlflow.db'}"


@contextlib.contextmanager
def recorder(uri: str) -> Iterator[Record]:
    """
    A function that records one run at the tracking server or database *uri*.

    Files of a run at a SQLite *uri* go to a folder `mlartifacts` beside the database; servers
    decide for themselves. Leaving without a call records nothing.

    Raises:
        MissingExtra: MLflow is not installed.
        TrackingFailed: (from the call) MLflow refused, or took longer than three minutes.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise plugins.missing(ModuleNotFoundError("no mlflow", name="mlflow"), "classical")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "classical.track"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**SWITCHES, **os.environ},
        bufsize=0,
    ) as child:
        try:
            yield lambda run, files: _record(child, uri, run, files)
        finally:
            if child.poll() is None:
                child.kill()


def _record(child: subprocess.Popen[bytes], uri: str, run: Run, files: Mapping[str, bytes]) -> Recorded:
    with tempfile.TemporaryDirectory(prefix="sluicegate-run-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            told = json.dumps({"uri": uri, "files": folder, **asdict(run)})
            out, err = child.communicate(told.encode(), TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise TrackingFailed(f"MLflow at {_shown(uri)} did not answer within {TIMEOUT_S} s") from error
    if child.returncode != 0:
        reason = (err.decode(errors="replace").strip().splitlines() or ["it gave no reason"])[-1]
        raise TrackingFailed(f"MLflow at {_shown(uri)}: {reason.replace(uri, _shown(uri))}")
    return Recorded(**json.loads(out))


def _shown(uri: str) -> str:
    """*uri* without the user and password it may carry."""
    parts = urlsplit(uri)
    return uri.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else uri


def main() -> None:
    """The child: import MLflow, read what to record, answer with its id or fail with one line."""
    answer = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        with contextlib.suppress(ImportError):  # only saves time later, wherever MLflow keeps it
            importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
        line = sys.stdin.read()
        if not line:  # training failed: nothing to record
            return
        told = json.loads(line)
        try:
            recorded = _recorded(_client(told["uri"]), told)
        except Exception as error:  # noqa: BLE001 - the edge of a process: its parent gets one line
            traceback.print_exc()
            reason = (str(error).splitlines() or ["no reason given"])[0]
            sys.exit(f"{type(error).__name__}: {reason}")
    print(json.dumps(asdict(recorded)), file=answer)


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    if urlsplit(uri).scheme == "sqlite":
        _sqlite_path(uri).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _recorded(client: MlflowClient, told: Mapping[str, Any]) -> Recorded:
    from mlflow.entities import Metric, Param

    experiment = _experiment(client, told["uri"], told["experiment"])
    run = client.create_run(experiment, tags=told["tags"])
    run_id: str = run.info.run_id
    status = "FAILED"
    try:
        at_ms: int = run.info.start_time
        params = [Param(key, value) for key, value in told["params"].items()]
        metrics = [Metric(key, value, at_ms, 0) for key, value in told["metrics"].items()]
        for start in range(0, max(len(params), len(metrics)), BATCH):
            part = slice(start, start + BATCH)
            client.log_batch(run_id, params=params[part], metrics=metrics[part])
        client.log_artifacts(run_id, told["files"])
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)
    return Recorded(run_id, experiment)


def _experiment(client: MlflowClient, uri: str, name: str) -> str:
    """The id of the experiment *name*, made on first use even if two runs ask at once."""
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(name)
    if known is None:
        beside = None
        if urlsplit(uri).scheme == "sqlite":
            beside = (_sqlite_path(uri).parent / "mlartifacts" / name).resolve().as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=beside))
        except MlflowException:
            known = client.get_experiment_by_name(name)
            if known is None:
                raise
    if known.lifecycle_stage != "active":
        raise MlflowException(f"experiment {name!r} is deleted; restore it or choose another name")
    return str(known.experiment_id)


def _sqlite_path(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///"))


if __name__ == "__main__":
    main()
