"""One MLflow tracking server: the client, its bounds, and its failures in one line without passwords."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from registry import plugins
from registry.errors import BadInput
from registry.interop.errors import MlflowFailed

if TYPE_CHECKING:
    from mlflow import MlflowClient

SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "True",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "300",
    "MLFLOW_DOWNLOAD_CHUNK_TIMEOUT": "60",
}
"""Environment for MLflow where the user's own says nothing: no telemetry or chatter, waits in seconds."""
DIGEST = "sluicegate.digest"
"""Tag that names our digest of what was exported."""
REF = "sluicegate.ref"
"""Tag that names our `name:number`."""
RUN = "sluicegate.run"
"""Tag that names our id of an evaluation run."""


@dataclass(frozen=True, slots=True)
class Server:
    """An MLflow tracking server with its model registry."""

    uri: str
    client: MlflowClient

    @property
    def shown(self) -> str:
        """The URI without the user and password it may carry."""
        return without_credentials(self.uri, self.uri)

    @contextmanager
    def asked(self, what: str) -> Iterator[None]:
        """
        Ask it for *what*, such as `model churn`.

        Raises:
            MlflowFailed: it refused, cannot be reached or took too long.
        """
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            reason = (str(error).strip().splitlines() or ["it gave no reason"])[0]
            message = f"{what}: MLflow at {self.shown}: {without_credentials(self.uri, reason)}"
            raise MlflowFailed(message) from error


def connect(uri: str) -> Server:
    """
    The server at *uri*, such as `http://127.0.0.1:5000`; it is not asked yet.

    Telemetry is off, and requests are bounded to 30 s and two retries, where MLflow's own environment
    variables do not say otherwise. Credentials come from MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN.

    Raises:
        BadInput: *uri* is empty or no server's: MLflow registers models only through one.
        MissingExtra: MLflow is not installed.
    """
    if not uri:
        raise BadInput("no MLflow server is named: give --tracking-uri or set MLFLOW_TRACKING_URI")
    scheme = urlsplit(uri).scheme
    if scheme not in {"http", "https"}:
        raise BadInput(
            f"tracking URI {without_credentials(uri, uri)!r} is no server's, such as http://127.0.0.1:5000; "
            "to serve a database of runs: mlflow server --backend-store-uri sqlite:///mlflow.db"
        )
    for name, value in SWITCHES.items():  # read when MLflow is imported and at each request
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "classical") from error
    return Server(uri, MlflowClient(tracking_uri=uri, registry_uri=uri))


def experiment_id(server: Server, name: str, *, create: bool) -> str | None:
    """
    The id of the experiment *name*, made where *create*; None where there is none.

    Raises:
        MlflowFailed: it is deleted, or the server refused.
    """
    from mlflow.exceptions import MlflowException

    with server.asked(f"experiment {name}"):
        known = server.client.get_experiment_by_name(name)
        if known is None:
            if not create:
                return None
            try:
                return str(server.client.create_experiment(name))
            except MlflowException:  # somebody else was first, or it cannot be made
                known = server.client.get_experiment_by_name(name)
                if known is None:
                    raise
    if known.lifecycle_stage != "active":
        raise MlflowFailed(f"experiment {name!r} is deleted in MLflow; restore it or name another")
    return str(known.experiment_id)


def without_credentials(uri: str, text: str) -> str:
    """*text* without the user and password of *uri*."""
    credentials, at, _ = urlsplit(uri).netloc.rpartition("@")
    return text.replace(credentials + at, "") if at else text
