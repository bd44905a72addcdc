from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classical.predict import load_predictor
from registry.entities import Version
from registry.interop import mlflow_pyfunc
from registry.interop.mlflow_models import DATA, write
from registry.interop.mlflow_pyfunc import Classifier
from tests.classical.conftest import Model
from tests.interop.conftest import NOW

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "colour": st.one_of(st.none(), st.sampled_from(["red", "unseen", " "])),
            "plan": st.sampled_from(["basic", "full plan"]),
            "age": st.floats(18, 99, width=32),
            "income": st.one_of(st.none(), st.floats(-1e6, 1e6)),
        }
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def loaded(forest: Model, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    content = forest.trained.content
    version = Version("model", "churn", 1, forest.trained.digest, {}, {}, NOW, "ann")
    folder = tmp_path_factory.mktemp("exported") / "model"
    write(folder, version, content, forest.artifacts.get(content.artifact))
    return Classifier(folder / DATA)


@given(rows=ROWS)
@settings(max_examples=30, deadline=None)
def test_the_exported_loader_answers_like_ours_for_any_rows(
    loaded: Classifier, forest: Model, rows: list[dict[str, Any]]
) -> None:
    import pandas as pd

    content = forest.trained.content
    ours = load_predictor(content, forest.artifacts).predict(rows)
    theirs = loaded.predict(pd.DataFrame(rows, columns=[feature.name for feature in content.features]))
    assert list(theirs["label"]) == list(ours.labels)
    numbers = theirs[[f"probability_{name}" for name in content.classes]].to_numpy()
    assert [tuple(row) for row in numbers] == list(ours.probabilities)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"plan": " ", "age": 20.0}, "row 0: 'plan' is missing"),
        ({"plan": "basic", "age": None}, "row 0: 'age' is missing"),
        ({"plan": "basic", "age": 20.0, "income": float("inf")}, "row 0: 'income' is no number of 32 bits"),
    ],
)
def test_what_we_refuse_the_exported_loader_refuses(
    loaded: Classifier, row: dict[str, Any], why: str
) -> None:
    import pandas as pd

    with pytest.raises(ValueError, match=why):
        loaded.predict(pd.DataFrame([row]))
    with pytest.raises(ValueError, match=r"params \['k'\] are unknown"):
        loaded.predict(pd.DataFrame([{"plan": "basic", "age": 20.0}]), {"k": 1})


def test_the_loader_needs_nothing_of_ours() -> None:
    nodes = list(ast.walk(ast.parse(Path(mlflow_pyfunc.__file__).read_text(encoding="utf-8"))))
    imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in imported}
    assert roots - sys.stdlib_module_names == {"numpy", "onnxruntime", "pandas"}
