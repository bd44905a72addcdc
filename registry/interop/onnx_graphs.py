"""
ONNX classifiers of other makers in the one shape that is served here.

That shape: an `(n, 1)` input per feature, text or 32-bit numbers, and two outputs, label and
probabilities `(n, classes)`. A model that has it keeps its bytes. Otherwise operators are put before
and behind the unchanged graph, the same each time, so that equal models stay equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry import plugins
from registry.interop.errors import NotImportable

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

_CLASSES = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


def read(data: bytes) -> ModelProto:
    """
    The model in *data*; what it keeps in other files is not loaded.

    Raises:
        NotImportable: not an ONNX model.
        MissingExtra: the module onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "classical") from error
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf has several implementations, with an error each
        raise NotImportable("the file that MLflow calls an ONNX model is none") from error
    if len(model.graph.output) != 2:
        raise NotImportable(
            f"the model has {len(model.graph.output)} outputs; a classifier has two, label and probabilities "
            "(regression is not served here)"
        )
    return model


def inputs(model: ModelProto) -> list[ValueInfoProto]:
    """The inputs a caller fills, in order: constants may be listed among them, and are left out."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [given for given in model.graph.input if given.name not in constants]


def classes_of(model: ModelProto) -> tuple[str, ...]:
    """The names of the classes in the order of the probabilities; empty where the graph is not sure."""
    maps = [_labels(node) for node in model.graph.node if node.op_type == "ZipMap"]
    label = model.graph.output[0].type.tensor_type.elem_type
    text = label == 8  # onnx.TensorProto.STRING
    labels = {_labels(node) for node in model.graph.node} - {()}
    if maps:
        labels = set(maps)
    elif any(all(isinstance(name, int) for name in found) == text for found in labels):
        return ()  # positions, which another operator turns into the names
    return tuple(map(str, labels.pop())) if len(labels) == 1 else ()


def adapted(model: ModelProto, features: Sequence[tuple[str, str]]) -> bool:
    """
    Bring *model* into the shape that is served; whether anything had to change.

    Args:
        features: (name, `text` or `number`) in the order of its inputs or, where it takes one table,
            of that table's columns.

    Raises:
        NotImportable: an input is of a type or rank that no column has.
    """
    given = inputs(model)
    plain = _without_zipmap(model.graph)
    if len(given) == len(features) and all(map(_is_column, given)):
        return plain
    if len(given) not in (1, len(features)):
        raise NotImportable(f"the model has {len(given)} inputs for {len(features)} columns of its signature")
    before: list[NodeProto] = []
    columns: list[ValueInfoProto] = []
    taken = {item.name for item in model.graph.input}
    taken |= {name for node in model.graph.node for name in node.output}
    table = len(given) == 1 and len(features) > 1
    for index, (_, dtype) in enumerate(features):
        name = _free(f"feature_{index}", taken)
        columns.append(_column(name, dtype))
        if not table:
            before += _fed(name, dtype, given[index], taken)
    if table:
        before += _joined([column.name for column in columns], features, given[0], taken)
    nodes = [*before, *model.graph.node]
    constants = [item for item in model.graph.input if item.name not in {one.name for one in given}]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.input[:]
    model.graph.input.extend([*columns, *constants])
    return True


def _without_zipmap(graph: GraphProto) -> bool:
    """Let the second output be the probabilities themselves where it is a list of mappings."""
    from onnx import TensorProto, helper

    last = graph.output[1].name
    made = next((node for node in graph.node if last in node.output), None)
    if made is None or made.op_type != "ZipMap":
        return False
    probabilities = made.input[0]
    kept = [node for node in graph.node if node is not made]
    del graph.node[:]
    graph.node.extend(kept)
    output = helper.make_tensor_value_info(probabilities, TensorProto.FLOAT, [None, len(_labels(made))])
    graph.output[1].CopyFrom(output)
    return True


def _labels(node: NodeProto) -> tuple[str | int, ...]:
    for attribute in node.attribute:
        if attribute.name in _CLASSES:
            return tuple(text.decode() for text in attribute.strings) or tuple(attribute.ints)
    return ()


def _is_column(given: ValueInfoProto) -> bool:
    """Whether an input is `(n, 1)` of text or 32-bit numbers already."""
    from onnx import TensorProto

    tensor = given.type.tensor_type
    shape = tensor.shape.dim
    return tensor.elem_type in (TensorProto.FLOAT, TensorProto.STRING) and (
        len(shape) == 2 and shape[1].dim_value == 1
    )


def _column(name: str, dtype: str) -> ValueInfoProto:
    from onnx import TensorProto, helper

    kind = TensorProto.STRING if dtype == "text" else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, [None, 1])


def _fed(name: str, dtype: str, given: ValueInfoProto, taken: set[str]) -> list[NodeProto]:
    """Nodes that make the input *given* from the column *name*."""
    from onnx import TensorProto, helper

    rank = len(given.type.tensor_type.shape.dim)
    if rank not in (1, 2):
        raise NotImportable(f"input {given.name!r} has {rank} dimensions; a column has one or two")
    if rank == 2:
        return _cast(name, dtype, given, given.name)
    shape = _free(f"{name}_shape", taken)
    minus_one = helper.make_tensor(shape, TensorProto.INT64, [1], [-1])
    constant = helper.make_node("Constant", [], [shape], value=minus_one)
    line = _free(f"{name}_line", taken)
    reshaped = helper.make_node("Reshape", [name, shape], [line])
    return [constant, reshaped, *_cast(line, dtype, given, given.name)]


def _joined(
    columns: Sequence[str], features: Sequence[tuple[str, str]], given: ValueInfoProto, taken: set[str]
) -> list[NodeProto]:
    """Nodes that make the table *given* from all columns."""
    from onnx import helper

    kinds: Mapping[str, None] = dict.fromkeys(dtype for _, dtype in features)
    if len(kinds) > 1:
        raise NotImportable(f"the table {given.name!r} has columns of text and numbers; give each an input")
    whole = _free("features", taken)
    joined = helper.make_node("Concat", list(columns), [whole], axis=1)
    return [joined, *_cast(whole, next(iter(kinds)), given, given.name)]


def _cast(name: str, dtype: str, given: ValueInfoProto, made: str) -> list[NodeProto]:
    from onnx import TensorProto, helper

    wanted = given.type.tensor_type.elem_type
    if dtype == "text":
        if wanted != TensorProto.STRING:
            raise NotImportable(f"input {given.name!r} takes numbers, but its column is text")
        return [helper.make_node("Identity", [name], [made])]
    if wanted not in (
        TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL,
    ):  # fmt: skip
        raise NotImportable(f"input {given.name!r} is of ONNX type {wanted}, which no column of numbers has")
    return [helper.make_node("Cast", [name], [made], to=wanted)]


def _free(name: str, taken: set[str]) -> str:
    """*name*, or one like it that the graph does not use."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def files_of(model: ModelProto) -> set[str]:
    """Names of the files beside the model that hold some of its weights."""
    return {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }


def whole(model: ModelProto, folder: Path) -> bytes:
    """
    The model as one file, with what it keeps in files of *folder* inside.

    Raises:
        NotImportable: such a file is missing or lies elsewhere.
    """
    from onnx import checker, external_data_helper

    try:
        external_data_helper.load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, checker.ValidationError) as error:
        raise NotImportable("a file beside the model that holds its weights cannot be read") from error
    packed: bytes = model.SerializeToString(deterministic=True)
    return packed
