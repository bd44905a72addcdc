"""
Classical predictions: Open Inference Protocol V2, and the plain `/predict` and `/predict/batch`.

Source: Open Inference Protocol, "HTTP/REST", kserve/open-inference-protocol. Deviations: errors
have OpenAI's shape like all others here; `null` in data is a missing value.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.dataplane import tensors
from gateway.dataplane.breaker import REFUSED, Breaker
from gateway.dataplane.complete import circuit_open
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import decode
from gateway.dataplane.reserve import reserve
from gateway.dataplane.resolve import model_in_path, resolve
from gateway.dataplane.services import Services
from gateway.dataplane.table import Predictions, Predictor, Route
from gateway.errors import BodyTooLarge, CircuitOpen, InvalidRequest, NotReady, Overloaded, UnknownModel
from registry.errors import BadInput

Rows = list[dict[str, object]]
NUMBERS = frozenset(
    {"FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
)
"""Open Inference datatypes that a number feature takes."""


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


class SeedRow(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `/predict`."""

    features: dict[str, Any]


_INFER = msgspec.json.Decoder(InferRequest)
_LENGTH = b"inference-header-content-length"
_ROW = msgspec.json.Decoder(SeedRow)
_DEFAULT = b'{"prediction":"default_value","confidence":0.0,"fallback":true}'
"""What `/predict` answers, where settings want it, while its model is left alone."""
_DEFAULT_HEADERS = ((b"content-type", b"application/json"), (b"x-sluicegate-fallback", b"true"))
_ROWS = msgspec.json.Decoder(list[SeedRow])


async def infer(exchange: Exchange, services: Services) -> None:
    """`POST /v2/models/{name}[/versions/{v}]/infer`."""
    name = model_in_path(exchange.path, "/v2/models/", "/infer")
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    route, predictor = await predictor_of(exchange, name, services)
    length, rest = exchange.header(_LENGTH), b""
    if length is not None:
        data, rest = tensors.split(data, length)
    request = decode(data, _INFER)
    _read_binary(request.inputs, rest)
    rows = rows_of(request.inputs, predictor, services.limits.max_batch_rows)
    predictions = await run_rows(exchange, route, predictor, rows, services)
    outputs = _outputs(predictions, predictor, request.outputs)
    answer: dict[str, Any] = {"model_name": name, "model_version": route.digest}
    if request.id is not None:
        answer["id"] = request.id
    packed = _packed(outputs, request)
    body = msgspec.json.encode({**answer, "outputs": outputs})
    if not packed:
        exchange.respond(200, body)
        return
    headers = ((b"content-type", b"application/octet-stream"), (_LENGTH, b"%d" % len(body)))
    exchange.respond(200, b"".join([body, *packed]), headers)


async def predict(exchange: Exchange, services: Services) -> None:
    """`POST /predict`: one row."""
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    route, predictor = await predictor_of(exchange, chosen(exchange, services), services)
    row = decode(data, _ROW)
    try:
        predictions = await run_rows(exchange, route, predictor, [row.features], services)
    except CircuitOpen:
        if not services.default_prediction:
            raise
        exchange.record.fallback = True
        exchange.respond(200, _DEFAULT, _DEFAULT_HEADERS)
        return
    answer = {
        "prediction": predictions.indices[0],
        "probability": predictions.probabilities[0],
        "label": predictions.labels[0],
        "model_version": route.digest,
        "processing_time": exchange.record.predict_s,
    }
    exchange.respond(200, msgspec.json.encode(answer))


async def predict_batch(exchange: Exchange, services: Services) -> None:
    """`POST /predict/batch`: a list of rows; answers have their positions as ids."""
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    route, predictor = await predictor_of(exchange, chosen(exchange, services), services)
    rows = decode(data, _ROWS)
    _check_rows(len(rows), services.limits.max_batch_rows)
    predictions = await run_rows(exchange, route, predictor, [row.features for row in rows], services)
    answers = [
        {"id": index, "prediction": prediction, "probability": probability, "label": label}
        for index, (prediction, probability, label) in enumerate(
            zip(predictions.indices, predictions.probabilities, predictions.labels, strict=True)
        )
    ]
    exchange.respond(200, msgspec.json.encode(answers))


def _read_binary(inputs: Sequence[Tensor], rest: bytes) -> None:
    """Give each tensor with `binary_data_size` its values, in order. Raises InvalidRequest."""
    at = 0
    for tensor in inputs:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(rest) - at:
            _refuse(tensor, f"binary_data_size {str(size)[:16]} is not 0 to {len(rest) - at}, what is left")
        tensor.data = tensors.unpack(tensor.name, tensor.datatype, rest[at : at + size])
        at += size
    if at != len(rest):
        message = f"inputs: {len(rest) - at} bytes after the JSON belong to no tensor"
        raise InvalidRequest(message, param="inputs")


def _packed(outputs: list[dict[str, Any]], request: InferRequest) -> list[bytes]:
    """The values of outputs that are wanted as bytes, which then say their size instead."""
    by_name = {output.name: (output.parameters or {}).get("binary_data") for output in request.outputs or ()}
    by_default = bool((request.parameters or {}).get("binary_data_output"))
    found = []
    for output in outputs:
        wanted = by_name.get(output["name"])
        if wanted if wanted is not None else by_default:
            data = tensors.pack(output["datatype"], output.pop("data"))
            output["parameters"] = {"binary_data_size": len(data)}
            found.append(data)
    return found


def rows_of(inputs: Sequence[Tensor], predictor: Predictor, max_rows: int) -> Rows:
    """
    Tensors, one for each feature, as rows.

    Raises:
        InvalidRequest: two tensors of one name, shapes that differ or do not fit the data, or a
            datatype that the feature does not take. Whether features are missing is the model's to say.
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
        columns[tensor.name] = _flat(tensor)
        if len(columns[tensor.name]) != count:
            _refuse(tensor, f"shape {tensor.shape} does not fit {len(columns[tensor.name])} values")
    _check_rows(count, max_rows)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


async def predictor_of(exchange: Exchange, model: str, services: Services) -> tuple[Route, Predictor]:
    """The prediction release that *model* names, counted against its limits. Raises what `resolve` does."""
    if "/" in model:
        message = f"{model[:200]!r} is not a release"
        raise UnknownModel(message, param="model")
    route = await resolve(exchange, model, services)
    if route.kind != "prediction":
        message = f"release {route.name!r} is a chat release; call it with POST /v1/chat/completions"
        raise InvalidRequest(message, param="model")
    if route.predictor is None:
        raise NotReady
    await reserve(exchange, services)
    return route, route.predictor


async def run_rows(
    exchange: Exchange,
    route: Route,
    predictor: Predictor,
    rows: Sequence[Mapping[str, object]],
    services: Services,
) -> Predictions:
    """
    Predict in a worker thread; faults of the model open its breaker, bad input does not.

    Raises:
        CircuitOpen: the model is left alone.
    """
    breaker = route.breaker or Breaker()
    ticket = breaker.allow(time.monotonic())
    if ticket == REFUSED:
        raise circuit_open(f"release {route.name!r}", breaker.wait_s(time.monotonic()))
    started = time.perf_counter()
    try:
        predictions = await services.work.run(predictor.predict, rows)
    except BadInput:
        breaker.succeeded(ticket)
        raise
    except (Overloaded, asyncio.CancelledError):
        breaker.released(ticket)
        raise
    except Exception:
        breaker.failed(ticket, time.monotonic())
        raise
    breaker.succeeded(ticket)
    exchange.record.predict_s = time.perf_counter() - started
    exchange.record.rows = len(rows)
    if exchange.target is not None and exchange.target.mirror is not None:
        exchange.mirrored = (rows, predictions.labels)
    return predictions


def chosen(exchange: Exchange, services: Services) -> str:
    """The model of a request that names none in its path."""
    named = exchange.query("model")
    if named is None and (header := exchange.header(b"x-sluicegate-model")) is not None:
        named = header.decode("latin-1")
    if named or services.default_predict:
        return named or services.default_predict
    candidates = exchange.table.production("prediction")
    if len(candidates) == 1:
        return candidates[0]
    there_is = f"there are several: {', '.join(candidates)}" if candidates else "none is in production"
    message = f"which model? Give ?model=NAME or the header x-sluicegate-model; {there_is}"
    raise InvalidRequest(message, param="model")


def _check_rows(count: int, limit: int) -> None:
    if count < 1:
        message = "the batch is empty; send at least one row"
        raise InvalidRequest(message)
    if count > limit:
        message = f"{count} rows are more than the {limit} this gateway takes at once; send several batches"
        raise BodyTooLarge(message)


def _check_datatype(tensor: Tensor, dtype: str | None) -> None:
    if dtype == "text" and tensor.datatype != "BYTES":
        _refuse(tensor, f"datatype {tensor.datatype[:16]!r} does not fit a text feature; send BYTES")
    if dtype == "number" and tensor.datatype not in NUMBERS:
        _refuse(tensor, f"datatype {tensor.datatype[:16]!r} does not fit a number feature; send FP64")


def _flat(tensor: Tensor) -> list[Any]:
    """Row-major values; `[[1], [2]]` and `[1, 2]` are the same tensor of shape [2, 1]."""
    if tensor.data and all(isinstance(item, list) and len(item) == 1 for item in tensor.data):
        return [item[0] for item in tensor.data]
    return tensor.data


def _outputs(
    predictions: Predictions, predictor: Predictor, wanted: Sequence[Output] | None
) -> list[dict[str, Any]]:
    rows = len(predictions.labels)
    classes = len(predictor.classes)
    outputs = {
        "label": {"name": "label", "datatype": "BYTES", "shape": [rows], "data": predictions.labels},
        "probability": {
            "name": "probability",
            "datatype": "FP64",
            "shape": [rows, classes],
            "data": [value for row in predictions.probabilities for value in row],
        },
    }
    if wanted is None:
        return list(outputs.values())
    for output in wanted:
        if output.name not in outputs:
            message = f"outputs: no output {output.name[:64]!r}; there are: {', '.join(outputs)}"
            raise InvalidRequest(message, param="outputs")
    return [outputs[output.name] for output in wanted]


def _refuse(tensor: Tensor, problem: str) -> None:
    message = f"inputs: feature {tensor.name[:64]!r}: {problem}"
    raise InvalidRequest(message, param=tensor.name[:64])
