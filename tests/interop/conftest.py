"""A real MLflow server on loopback, started once, and a registry with something to exchange."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from registry.interop.mlflow import connect
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace
from tests.classical.conftest import Model, make_model, people

if TYPE_CHECKING:
    from mlflow import MlflowClient

START_S = 120
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an MLflow server that keeps its runs in SQLite and serves its artifacts."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_MODEL_CATALOG_URI": "",
    }
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--serve-artifacts",
        "--artifacts-destination", (folder / "artifacts").as_uri(),
    ]  # fmt: skip
    with (
        (folder / "server.log").open("wb") as log,
        subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        ) as child,
    ):
        try:
            uri = f"http://127.0.0.1:{port}"
            _wait_until_ready(child, uri, folder / "server.log")
            yield uri
        finally:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(20)


def _wait_until_ready(child: subprocess.Popen[bytes], uri: str, log: Path) -> None:
    from registry.clock import utc_now

    started = utc_now()
    while (utc_now() - started).total_seconds() < START_S:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            try:
                code = child.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            pytest.fail(f"mlflow server ended with {code}: {log.read_text()[-2000:]}")
    pytest.fail(f"mlflow server is not ready after {START_S} s: {log.read_text()[-2000:]}")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(RegistrySettings(home=tmp_path / "home")) as opened:
        yield opened


@pytest.fixture(scope="session")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A random forest with text, numbers and gaps, trained once; do not change it."""
    return make_model(tmp_path_factory.mktemp("forest"), people())


@pytest.fixture(scope="session")
def client(server: str) -> MlflowClient:
    """MLflow's own client, to look at the server from outside."""
    return connect(server).client
