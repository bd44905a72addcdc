"""
Open Inference Protocol V2: `/infer`, with values as JSON or as bytes after it.

Source: Open Inference Protocol, "HTTP/REST" and "Binary Tensor Data Extension",
kserve/open-inference-protocol. Deviations: `null` in JSON data, and NaN in bytes, is a missing value; what
Triton adds to the protocol (shared memory, classification of outputs) is refused, not ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.dataplane import media, tensors
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.predict import check_rows, predictor_of, run_rows
from gateway.dataplane.request import decode
from gateway.dataplane.resolve import model_in_path
from gateway.dataplane.services import Services
from gateway.dataplane.table import Predictions, Predictor
from gateway.errors import InvalidRequest, UnsupportedMedia

Rows = list[dict[str, object]]
PREFIX = "/v2/models/"
_LENGTH = b"inference-header-content-length"
_REFUSED_PARAMETERS = ("classification", "shared_memory_region")
_SIZE = "binary_data_size"
_NOTHING = type(None)
_KINDS: Mapping[str, tuple[frozenset[type], str]] = {
    "BYTES": (frozenset({str}), "text"),
    "BOOL": (frozenset({bool}), "true or false"),
    **dict.fromkeys(("FP16", "FP32", "FP64"), (frozenset({int, float}), "a number")),
    **dict.fromkeys(tensors.RANGES, (frozenset({int}), "a whole number")),
}
"""Datatype → what its values are in JSON, and that in words."""
NUMBERS = frozenset(_KINDS) - {"BYTES", "BOOL"}
"""Datatypes that a number feature takes."""


class Tensor(msgspec.Struct):
    """One feature of every row."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] = []
    parameters: dict[str, Any] | None = None
    """`binary_data_size`: its values are so many bytes after the JSON."""


class Output(msgspec.Struct):
    """One output the client asks for."""

    name: str
    parameters: dict[str, Any] | None = None
    """`binary_data`: whether its values are wanted as bytes."""


class InferRequest(msgspec.Struct):
    """The body of `/infer`."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Output] | None = None
    parameters: dict[str, Any] | None = None
    """`binary_data_output`: whether all outputs that are not named are wanted as bytes."""


_INFER = msgspec.json.Decoder(InferRequest)


async def infer(exchange: Exchange, services: Services) -> None:
    """
    `POST /v2/models/{name}[/versions/{v}]/infer`.

    Raises:
        UnsupportedMedia: neither JSON nor bytes after JSON, or an encoding that is not read.
        InvalidRequest: tensors that cannot be read, or are not what the model takes.
        BodyTooLarge: more rows or bytes than this gateway takes at once.
    """
    limits = services.limits
    model = model_in_path(exchange.path, PREFIX, "/infer")
    data = await exchange.body(limits.max_body_bytes, limits.body_timeout_s)
    route, predictor = await predictor_of(exchange, model, services)
    encoding = exchange.header(b"content-encoding")
    if encoding is not None:
        data = await services.work.run(media.inflated, data, encoding, limits.max_body_bytes)
    data, rest = _parts(data, exchange.header(b"content-type"), exchange.header(_LENGTH))
    request = decode(data, _INFER)
    _read_binary(request.inputs, rest)
    rows = rows_of(request.inputs, predictor, limits.max_batch_rows)
    _check_outputs(request.outputs)
    predictions = await run_rows(exchange, route, predictor, rows, services)
    outputs = _outputs(predictions, predictor, request.outputs)
    answer: dict[str, Any] = {
        "model_name": exchange.path.removeprefix(PREFIX).partition("/")[0],
        "model_version": route.digest,
    }
    if request.id is not None:
        answer["id"] = request.id
    packed = _packed(outputs, request)
    body = msgspec.json.encode({**answer, "outputs": outputs})
    if not packed:
        exchange.respond(200, body)
        return
    headers = ((b"content-type", b"application/octet-stream"), (_LENGTH, b"%d" % len(body)))
    exchange.respond(200, b"".join([body, *packed]), headers)


def rows_of(inputs: Sequence[Tensor], predictor: Predictor, max_rows: int) -> Rows:
    """
    Tensors, one for each feature, as rows.

    Raises:
        InvalidRequest: two tensors of one name, shapes that differ or do not fit the data, a datatype
            that the feature does not take, or values that are not of it. Whether features are missing is
            the model's to say.
        BodyTooLarge: more rows than *max_rows*.
    """
    if not inputs:
        message = "inputs: is empty; send one tensor for each feature"
        raise InvalidRequest(message, param="inputs")
    dtypes = {feature.name: feature.dtype for feature in predictor.features}
    count = inputs[0].shape[0] if inputs[0].shape else -1
    columns: dict[str, list[Any]] = {}
    for tensor in inputs:
        if tensor.name in columns:
            _refuse(tensor, "is given twice")
        if tensor.shape not in ([count], [count, 1]) or count < 0:
            _refuse(tensor, f"shape {tensor.shape} is not [{max(count, 1)}] or [{max(count, 1)}, 1]")
        _check_datatype(tensor, dtypes.get(tensor.name))
        columns[tensor.name] = values = _flat(tensor)
        if len(values) != count:
            _refuse(tensor, f"shape {tensor.shape} does not fit {len(values)} values")
        _check_values(tensor, values)
    check_rows(count, max_rows)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _parts(data: bytes, kind: bytes | None, length: bytes | None) -> tuple[bytes, bytes]:
    """The JSON, and the bytes after it."""
    media.require(kind, b"application/json", b"application/octet-stream")
    if length is not None:
        return tensors.split(data, length)
    if media.is_of(kind, b"application/octet-stream"):
        message = (
            "content-type: application/octet-stream is JSON with bytes after it, and needs the header "
            "Inference-Header-Content-Length; without bytes send application/json"
        )
        raise UnsupportedMedia(message, param="content-type")
    return data, b""


def _read_binary(inputs: Sequence[Tensor], rest: bytes) -> None:
    """Give each tensor with `binary_data_size` its values, in order. Raises InvalidRequest."""
    at = 0
    for tensor in inputs:
        _check_parameters(f"inputs: feature {tensor.name[:64]!r}", tensor.name, tensor.parameters)
        size = (tensor.parameters or {}).get(_SIZE)
        if size is None:
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest) - at:
            _refuse(tensor, f"{_SIZE} {str(size)[:16]} is not 0 to {len(rest) - at}, what is left")
        if tensor.data:
            _refuse(tensor, f"has both data and {_SIZE}; send one of them")
        values = tensors.unpack(tensor.name, tensor.datatype, rest[at : at + size])
        if tensor.datatype.startswith("FP"):
            values = [None if math.isnan(value) else value for value in values]
        tensor.data = values
        at += size
    if at != len(rest):
        message = f"inputs: {len(rest) - at} bytes after the JSON belong to no tensor"
        raise InvalidRequest(message, param="inputs")


def _check_parameters(where: str, name: str, parameters: Mapping[str, Any] | None) -> None:
    for refused in _REFUSED_PARAMETERS:
        if parameters and refused in parameters:
            message = f"{where}: {refused} is not supported; leave it out"
            raise InvalidRequest(message, param=name[:64])


def _check_datatype(tensor: Tensor, dtype: str | None) -> None:
    shown = repr(tensor.datatype[:16])
    if tensor.datatype not in _KINDS:
        _refuse(tensor, f"datatype {shown} is none of {', '.join(sorted(_KINDS))}")
    if dtype == "text" and tensor.datatype != "BYTES":
        _refuse(tensor, f"datatype {shown} does not fit a text feature; send BYTES")
    if dtype == "number" and tensor.datatype not in NUMBERS:
        _refuse(tensor, f"datatype {shown} does not fit a number feature; send FP64")


def _check_values(tensor: Tensor, values: Sequence[Any]) -> None:
    kinds, words = _KINDS[tensor.datatype]
    found = set(map(type, values))
    if not found - {_NOTHING} <= kinds:
        at = next(at for at, value in enumerate(values) if value is not None and type(value) not in kinds)
        _refuse(tensor, f"value {at} is not {words}, as {tensor.datatype} must be")
    if tensor.datatype in tensors.RANGES:
        low, high = tensors.RANGES[tensor.datatype]
        numbers = [value for value in values if value is not None] if _NOTHING in found else values
        if numbers and not low <= min(numbers) <= max(numbers) <= high:
            _refuse(tensor, f"a value is not {low} to {high}, as {tensor.datatype} must be")


def _flat(tensor: Tensor) -> list[Any]:
    """Row-major values; `[[1], [2]]` and `[1, 2]` are the same tensor of shape [2, 1]."""
    nested = tensor.data and all(isinstance(item, list) and len(item) == 1 for item in tensor.data)
    return [item[0] for item in tensor.data] if nested and len(tensor.shape) > 1 else tensor.data


def _check_outputs(wanted: Sequence[Output] | None) -> None:
    """Before anything is predicted. Raises InvalidRequest."""
    names: set[str] = set()
    for output in wanted or ():
        where = f"outputs: {output.name[:64]!r}"
        _check_parameters(where, "outputs", output.parameters)
        if output.name not in _OUTPUTS:
            message = f"outputs: no output {output.name[:64]!r}; there are: {', '.join(_OUTPUTS)}"
            raise InvalidRequest(message, param="outputs")
        if output.name in names:
            raise InvalidRequest(f"{where} is asked for twice", param="outputs")
        names.add(output.name)


_OUTPUTS = ("label", "probability")


def _outputs(
    predictions: Predictions, predictor: Predictor, wanted: Sequence[Output] | None
) -> list[dict[str, Any]]:
    rows = len(predictions.labels)
    classes = len(predictor.classes)
    outputs: dict[str, dict[str, Any]] = {
        "label": {"name": "label", "datatype": "BYTES", "shape": [rows], "data": predictions.labels},
        "probability": {
            "name": "probability",
            "datatype": "FP64",
            "shape": [rows, classes],
            "data": [value for row in predictions.probabilities for value in row],
        },
    }
    names = [output.name for output in wanted] if wanted else _OUTPUTS
    return [outputs[name] for name in names]


def _packed(outputs: list[dict[str, Any]], request: InferRequest) -> list[bytes]:
    """The values of outputs that are wanted as bytes, which then say their size instead."""
    by_name = {output.name: (output.parameters or {}).get("binary_data") for output in request.outputs or ()}
    by_default = bool((request.parameters or {}).get("binary_data_output"))
    found = []
    for output in outputs:
        wanted = by_name.get(output["name"])
        if wanted if wanted is not None else by_default:
            data = tensors.pack(output["datatype"], output.pop("data"))
            output["parameters"] = {_SIZE: len(data)}
            found.append(data)
    return found


def _refuse(tensor: Tensor, problem: str) -> None:
    message = f"inputs: feature {tensor.name[:64]!r}: {problem}"
    raise InvalidRequest(message, param=tensor.name[:64])
