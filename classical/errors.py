"""
Errors of classical.

    PlatformError
    ├── BadInput
    │   ├── BadParams         params.yaml or one of its overrides is wrong
    │   ├── BadData           the table cannot be read, or cannot be trained on
    │   │   └── QualityFailed     cells break the rules of the quality section
    │   └── BadFeatures       a row to predict does not fit the model's features
    ├── ParityFailed          the packaged model does not repeat the trained one
    ├── TrackingFailed        MLflow did not take the run
    └── ModelUnusable         verified bytes that the runtime cannot load
"""

from __future__ import annotations

from registry.errors import BadInput, PlatformError


class BadParams(BadInput):
    """The training parameters are wrong. Correct the named key of params.yaml or its override."""

    code = "bad_params"


class BadData(BadInput):
    """The data cannot be trained on. Correct the file or the data section of params.yaml."""

    code = "bad_data"


class QualityFailed(BadData):
    """The data breaks a quality rule. Read the report; correct the rows or the rule."""

    code = "quality_failed"


class BadFeatures(BadInput):
    """A row does not fit the model's features."""

    code = "bad_features"

    def __init__(self, row: int, feature: str, problem: str) -> None:
        """*row* counts from 0 in the batch; *problem* says what was expected."""
        super().__init__(f"row {row}: feature {feature!r}: {problem}")
        self.row = row
        self.feature = feature


class ParityFailed(PlatformError):
    """The packaged model answers differently from the trained one, so it was not registered."""

    code = "parity_failed"


class TrackingFailed(PlatformError):
    """MLflow did not record the run. Check mlflow.tracking_uri, or train with --no-track."""

    code = "tracking_failed"


class ModelUnusable(PlatformError):
    """The model's bytes are intact but this runtime cannot run them. Train it again."""

    code = "model_unusable"
