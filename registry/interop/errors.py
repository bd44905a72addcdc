"""
Errors of exchanging with other registries.

    PlatformError
    ├── BadInput
    │   └── NotImportable     what the other side holds cannot be registered here
    └── MlflowFailed          the MLflow server refused, or cannot be reached
"""

from __future__ import annotations

from registry.errors import BadInput, PlatformError


class NotImportable(BadInput):
    """This model cannot be registered. Log it to MLflow as ONNX, with a signature of named columns."""

    code = "not_importable"


class MlflowFailed(PlatformError):
    """The MLflow server refused or cannot be reached. Check the tracking URI and its credentials."""

    code = "mlflow_failed"
