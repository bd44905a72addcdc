from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from classical.predict import load_predictor
from registry import models, versions
from registry.entities import Feature
from registry.interop.errors import MlflowFailed, NotImportable
from registry.interop.mlflow_import import content_from, import_model, onnx_path
from registry.refs import parse_ref
from registry.workspace import Workspace
from tests.classical.conftest import Model

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient
    from onnx import ModelProto

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",  # at the import of mlflow.pyfunc
    "ignore:Hint. Inferred schema contains integer column:UserWarning",
    "ignore:.*Saving scikit-learn models in the pickle:UserWarning",
)
Log = Callable[..., str]


@pytest.fixture
def log(
    server: str, client: MlflowClient, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Log:
    """Log a model as somebody without Sluicegate would; returns its `models:/name/1`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    import mlflow
    from mlflow.models import infer_signature

    name = request.node.name.split("[")[0][5:60]

    def logged(model: object, example: object, *, flavour: Any = mlflow.onnx, answer: object = None) -> str:
        known = client.get_experiment_by_name("theirs")
        home = known.experiment_id if known else client.create_experiment("theirs")
        signature = None if example is None else infer_signature(example, answer)
        with mlflow.start_run(experiment_id=home):
            flavour.log_model(model, name="model", signature=signature, registered_model_name=name)
        return f"models:/{name}/1"

    return logged


def table(rows: int = 200) -> tuple[pd.DataFrame, np.ndarray]:
    import numpy as np
    import pandas as pd

    seeded = np.random.default_rng(3)
    frame = pd.DataFrame(seeded.normal(size=(rows, 3)), columns=["a", "b", "c d"]).astype("float32")
    return frame, np.where(frame["a"] + frame["b"] > 0, "yes", "no")


def trained(*, zipmap: bool = True, double: bool = False) -> tuple[ModelProto, Any]:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from sklearn.neural_network import MLPClassifier

    frame, answers = table()
    model = MLPClassifier((120,), solver="lbfgs", alpha=1.0, random_state=0, max_iter=2000).fit(
        frame.to_numpy(), answers
    )
    kind = DoubleTensorType if double else FloatTensorType
    options = {id(model): {"zipmap": zipmap}}
    return convert_sklearn(model, initial_types=[("X", kind([None, 3]))], options=options), model


def predictions(workspace: Workspace, ref: str, frame: pd.DataFrame) -> Any:
    with workspace.reading() as connection:
        _, content = models.get(connection, parse_ref(ref))
    rows = [{key: float(value) for key, value in row.items()} for row in frame.to_dict("records")]
    return content, load_predictor(content, workspace.artifacts).predict(rows)


def test_a_model_of_one_table_is_served_by_its_columns(
    workspace: Workspace, server: str, log: Log, client: MlflowClient
) -> None:
    import mlflow
    import numpy as np
    from onnx import numpy_helper

    frame, answers = table()
    graph, model = trained()
    for tensor in graph.graph.initializer:
        if tensor.data_type == 1:  # MLflow puts raw weights of more than 1 KiB into a second file
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    where = log(graph, frame, answer=answers)
    name = where.split("/")[1]
    client.set_registered_model_alias(name, "champion", "1")
    kept = mlflow.artifacts.list_artifacts(
        client.get_model_version_download_uri(name, "1"), tracking_uri=server
    )
    answer = import_model(workspace, f"models:/{name}@champion", uri=server, name="theirs")
    again = import_model(workspace, where, uri=server, name="theirs")
    content, ours = predictions(workspace, "theirs", frame)
    assert len(kept) == 6, "the model, its weights, MLmodel and three files about its environment"
    assert (answer["adapted"], again["number"], again["digest"]) == (True, 1, answer["digest"])
    assert answer["mlflow"]["artifact"] != answer["artifact"]
    assert answer["mlflow"]["run_id"]
    assert content.classes == ("no", "yes")
    assert content.features == tuple(Feature(name, "number", nullable=False) for name in ("a", "b", "c d"))
    assert list(ours.labels) == list(model.predict(frame.to_numpy()))
    assert np.allclose(ours.probabilities, model.predict_proba(frame.to_numpy()), atol=1e-5)


def test_a_graph_in_our_shape_keeps_its_bytes_whatever_the_order_of_the_signature(forest: Model) -> None:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    ours = forest.trained.content
    data = forest.artifacts.get(ours.artifact)
    types = {"text": "string", "number": "double"}
    columns: list[Any] = [ColSpec(types[f.dtype], f.name, required=False) for f in reversed(ours.features)]
    content, kept = content_from(ModelSignature(Schema(columns)), data, ours.classes)
    assert (content.artifact, kept) == (ours.artifact, data)
    assert content.features == tuple(Feature(feature.name, feature.dtype) for feature in ours.features)
    with pytest.raises(NotImportable, match="are not the columns"):
        content_from(ModelSignature(Schema(columns[1:])), data, ours.classes)


def test_names_of_the_classes_come_from_the_graph() -> None:
    graph, _ = trained(zipmap=True)
    content, _ = content_from(_signature(), graph.SerializeToString())
    assert content.classes == ("no", "yes")


def test_a_graph_that_does_not_name_its_classes_needs_them_named() -> None:
    graph, _ = trained(zipmap=False)
    with pytest.raises(NotImportable, match="give --classes"):
        content_from(_signature(), graph.SerializeToString())


def test_the_same_graph_becomes_the_same_bytes() -> None:
    graph, _ = trained()
    data = graph.SerializeToString()
    assert content_from(_signature(), data) == content_from(_signature(), data)


def test_inputs_of_rank_one_and_other_types_are_fed_from_columns() -> None:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from onnx import TensorProto, helper

    def given(name: str, kind: int) -> Any:
        return helper.make_tensor_value_info(name, kind, [None])

    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Constant", [], ["one"], value=one),
        helper.make_node("Cast", ["age"], ["age_f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["rate"], ["rate_f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["age_f", "rate_f"], ["p"]),
        helper.make_node("Unsqueeze", ["p", "one"], ["yes"]),
        helper.make_node("Neg", ["yes"], ["minus"]),
        helper.make_node(
            "Constant", [], ["unit"], value=helper.make_tensor("u", TensorProto.FLOAT, [1], [1.0])
        ),
        helper.make_node("Add", ["minus", "unit"], ["no"]),
        helper.make_node("Concat", ["no", "yes"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [given("age", TensorProto.INT64), given("rate", TensorProto.DOUBLE)],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    signature = ModelSignature(Schema([ColSpec("double", "rate", required=False), ColSpec("long", "age")]))
    content, data = content_from(signature, model.SerializeToString(), ["0", "1"])
    assert content.features == (
        Feature("age", "number", nullable=False),
        Feature("rate", "number", nullable=True),
    )
    from classical.runtimes.onnx import load

    assert load(data, content, threads=1)([[1.0, 2.0], [0.25, 0.25]]) == [[0.75, 0.25], [0.5, 0.5]]


def test_what_would_have_to_be_unpickled_is_refused(workspace: Workspace, server: str, log: Log) -> None:
    import mlflow

    frame, answers = table(20)
    _, model = trained()
    where = log(model, frame, flavour=mlflow.sklearn, answer=answers)
    with pytest.raises(NotImportable, match=r"is kept as sklearn \(\w+\).*refused; log it as ONNX"):
        import_model(workspace, where, uri=server)
    with workspace.reading() as connection:
        assert versions.listing(connection, "model") == []


def test_a_model_without_a_signature_is_refused_with_the_remedy(
    workspace: Workspace, server: str, log: Log
) -> None:
    where = log(trained()[0], None)
    with pytest.raises(NotImportable, match=r"no signature.*infer_signature"):
        import_model(workspace, where, uri=server)


def test_what_is_not_there_is_told(workspace: Workspace, server: str) -> None:
    with pytest.raises(MlflowFailed, match=r"models:/nowhere@champion: MLflow at http://127.0.0.1:\d+: "):
        import_model(workspace, "models:/nowhere@champion", uri=server)


@pytest.mark.parametrize(
    ("example", "why"),
    [
        ("array", "signature is one of tensors"),
        ("date", "column 'a' is datetime"),
        ("text", "takes numbers, but its column is text"),
    ],
)
def test_signatures_that_name_no_columns_to_serve_are_refused(example: str, why: str) -> None:
    from mlflow.models import infer_signature

    frame, _ = table(4)
    examples = {
        "array": frame.to_numpy(),
        "date": frame.assign(a=frame["a"].astype("datetime64[ns]")),
        "text": frame.astype(str),
    }
    with pytest.raises(NotImportable, match=why):
        content_from(infer_signature(examples[example]), trained()[0].SerializeToString())


@pytest.mark.parametrize("path", ["../model.onnx", "/etc/passwd", "data/../../x", "a\\b"])
def test_files_outside_of_the_model_are_never_asked_for(path: str) -> None:
    from mlflow.models import Model as Logged

    with pytest.raises(NotImportable, match="lies outside of the model"):
        onnx_path(Logged(flavors={"onnx": {"data": path}}), "models:/m/1")


def test_bytes_that_are_no_classifier_are_refused() -> None:
    from onnx import TensorProto, helper

    for data in (b"not ONNX at all", b"\xff" * 40):
        with pytest.raises(NotImportable):
            content_from(_signature(), data)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [value], [result])
    with pytest.raises(NotImportable, match="has 1 outputs; a classifier has two"):
        content_from(_signature(), helper.make_model(graph).SerializeToString())


def _signature() -> Any:
    from mlflow.models import infer_signature

    return infer_signature(table(4)[0])
