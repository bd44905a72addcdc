"""A small table with text, numbers and gaps, and a model trained on it once."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from classical import pipeline
from classical.params import (
    ColumnRule,
    DataParams,
    FeatureParams,
    ModelParams,
    Params,
    TrainingParams,
)
from classical.pipeline import Prepared, Trained
from registry.artifacts import Artifacts

HEADER = "id,colour,plan,age,income,left"


def quiet(_line: str) -> None:
    """Say nothing."""


def rows(count: int = 240) -> list[str]:
    """CSV lines whose class follows from plan and age, with noise, blanks and a rare colour."""
    lines = []
    for number in range(count):
        noise = hashlib.sha256(f"row {number}".encode()).digest()
        colour = ("red", "green", "", "blue")[noise[0] % 4] if number % 40 else "violet"
        plan = ("basic", "full plan")[noise[1] % 2]
        age = 18 + noise[2] % 60
        income = "" if noise[3] % 10 == 0 else f"{noise[4] * 10.1:.2f}"
        score = (plan == "basic") * 40 + age + noise[5] % 30
        lines.append(f"c{number},{colour},{plan},{age},{income},{'yes' if score > 90 else 'no'}")
    return lines


def write_table(folder: Path, lines: list[str] | None = None, header: str = HEADER) -> Path:
    """Write `people.csv` into *folder*."""
    path = folder / "people.csv"
    path.write_text("\n".join([header, *(rows() if lines is None else lines)]) + "\n")
    return path


def people(**changes: object) -> Params:
    """Parameters for the table; *changes* replace whole sections."""
    sections: dict[str, object] = {
        "data": DataParams(Path("people.csv"), id_column="id", test_size=0.25),
        "features": FeatureParams("left", ("colour", "plan"), ("age", "income"), positive_class="no"),
        "model": ModelParams(n_estimators=20, max_depth=5),
        "training": TrainingParams(cross_validation_folds=3),
        "quality": {
            "age": ColumnRule(min=18, max=99),
            "colour": ColumnRule(nullable=True),
            "plan": ColumnRule(allowed=("basic", "full plan")),
        },
    }
    return Params(**{**sections, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Model:
    """A trained model and where its bytes are."""

    params: Params
    prepared: Prepared
    trained: Trained
    artifacts: Artifacts


def make_model(folder: Path, params: Params, jobs: int = 1) -> Model:
    """Prepare and fit *params* in *folder*, whose table it writes if there is none."""
    if not (folder / "people.csv").exists():
        write_table(folder)
    prepared = pipeline.prepare(params, folder, folder / "report.json", say=quiet)
    artifacts = Artifacts(folder / "artifacts")
    trained = pipeline.fit(
        prepared,
        params,
        artifacts,
        jobs=jobs,
        say=quiet,
        bar=lambda _label, _total: contextlib.nullcontext(lambda _done: None),
    )
    return Model(params, prepared, trained, artifacts)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A random forest on the table, trained once for all tests; do not change it."""
    return make_model(tmp_path_factory.mktemp("model"), people())


@pytest.fixture(scope="session")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A logistic regression on the same table."""
    params = people()
    return make_model(
        tmp_path_factory.mktemp("linear"), replace(params, model=ModelParams(algorithm="linear"))
    )


@pytest.fixture(autouse=True)
def no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep variables of this machine out of the parameters."""
    sections = ("DATA__", "FEATURES__", "MODEL__", "TRAINING__", "MLFLOW__", "QUALITY__", "MLFLOW_")
    for name in list(os.environ):
        if name.startswith(sections):
            monkeypatch.delenv(name)
