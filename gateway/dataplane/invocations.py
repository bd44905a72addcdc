"""
MLflow's scoring protocol: `/invocations`, `/ping`, `/version`.

Source: MLflow, "Deploy MLflow Model as a Local Inference Server", the formats its scoring server accepts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.predict import chosen, predictor_of, run_rows
from gateway.dataplane.request import decode
from gateway.dataplane.services import Services
from gateway.dataplane.table import Predictor
from gateway.errors import BodyTooLarge, InvalidRequest, UnsupportedMedia

Rows = list[dict[str, object]]
_BODY = msgspec.json.Decoder(dict[str, Any])
_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_CODES: Mapping[int, str] = {
    400: "BAD_REQUEST", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "RESOURCE_DOES_NOT_EXIST",
    413: "INVALID_PARAMETER_VALUE", 415: "INVALID_PARAMETER_VALUE", 429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}  # fmt: skip
_ANY_ERROR = 400


class MlflowErrors:
    """A `Dialect` that tells errors as MLflow does, and leaves all else."""

    def __init__(self, request_id: str) -> None:
        """*request_id* stands in the answer's header already."""
        del request_id

    def whole(self, status: int, body: bytes) -> bytes:
        """`{"error_code", "message"}` for an error."""
        if status < _ANY_ERROR:
            return body
        try:
            message = str(msgspec.json.decode(body)["error"]["message"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            message = "the request failed"
        code = _CODES.get(status, "INTERNAL_ERROR" if status >= 500 else "BAD_REQUEST")
        return msgspec.json.encode({"error_code": code, "message": message})

    def events(self, data: bytes) -> bytes:
        """As they are: there are no streams."""
        return data

    def end(self) -> bytes:
        """Nothing."""
        return b""


async def invoke(exchange: Exchange, services: Services) -> None:
    """
    `POST /invocations`: rows as `dataframe_split`, `dataframe_records`, `instances`, `inputs` or CSV; the
    model is `?model=`, the header `x-sluicegate-model`, or the only one in production.

    Raises:
        InvalidRequest: none or several of the formats, or rows that fit none of them.
        BodyTooLarge: more rows than this gateway takes at once.
    """
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    route, predictor = await predictor_of(exchange, chosen(exchange, services), services)
    kind = (exchange.header(b"content-type") or b"application/json").partition(b";")[0].strip().lower()
    if kind == b"text/csv":
        rows = _of_csv(data, predictor)
    elif kind == b"application/json":
        body: dict[str, Any] = decode(data, _BODY)
        rows = _of_json(body, predictor)
    else:
        message = f"content-type: {kind.decode('latin-1')[:64]!r} is not application/json or text/csv"
        raise UnsupportedMedia(message, param="content-type")
    if not rows:
        message = "there is no row to predict"
        raise InvalidRequest(message)
    if len(rows) > services.limits.max_batch_rows:
        message = (
            f"{len(rows)} rows are more than the {services.limits.max_batch_rows} this gateway takes at once"
        )
        raise BodyTooLarge(message)
    predictions = await run_rows(exchange, route, predictor, rows, services)
    exchange.respond(200, msgspec.json.encode({"predictions": list(predictions.labels)}))


async def ping(exchange: Exchange, services: Services) -> None:
    """`GET /ping`: 200 when every release in production can answer, else 503."""
    exchange.respond(200 if services.sources.ready else 503, b"\n", ((b"content-type", b"text/plain"),))


async def about(exchange: Exchange, services: Services) -> None:
    """`GET /version`: this gateway's."""
    del services
    try:
        number = version("sluicegate")
    except PackageNotFoundError:
        number = "0"
    exchange.respond(200, number.encode(), ((b"content-type", b"text/plain"),))


def _of_json(body: Mapping[str, Any], predictor: Predictor) -> Rows:
    given = [name for name in _FORMATS if name in body]
    if len(given) != 1:
        message = f"send exactly one of {', '.join(_FORMATS)}; there is {', '.join(given) or 'none'}"
        raise InvalidRequest(message)
    if body.get("params"):
        message = "params: these models take none; remove it"
        raise InvalidRequest(message, param="params")
    (name,) = given
    value = body[name]
    if name == "dataframe_split":
        return _of_split(value)
    if name == "inputs" and isinstance(value, dict):
        return _of_columns(value)
    if not isinstance(value, list):
        raise _wrong(name, "must be a list of rows")
    return [_row(name, at, row, predictor) for at, row in enumerate(value)]


def _of_split(value: object) -> Rows:
    columns = value.get("columns") if isinstance(value, dict) else None
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
        raise _wrong("dataframe_split.columns", "must be a list of names")
    if not isinstance(data, list):
        raise _wrong("dataframe_split.data", "must be a list of rows")
    for at, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            raise _wrong(f"dataframe_split.data[{at}]", f"must have {len(columns)} values")
    return [dict(zip(columns, row, strict=True)) for row in data]


def _of_columns(columns: Mapping[str, Any]) -> Rows:
    lists = {name: value if isinstance(value, list) else [value] for name, value in columns.items()}
    sizes = {len(values) for values in lists.values()}
    if len(sizes) != 1:
        raise _wrong("inputs", "columns differ in length")
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _row(name: str, at: int, row: object, predictor: Predictor) -> dict[str, object]:
    if isinstance(row, dict):
        return row
    features = [feature.name for feature in predictor.features]
    if not isinstance(row, list) or len(row) != len(features):
        raise _wrong(f"{name}[{at}]", f"must be an object, or a list of the {len(features)} features")
    return dict(zip(features, row, strict=True))


def _of_csv(data: bytes, predictor: Predictor) -> Rows:
    try:
        lines: Sequence[list[str]] = list(csv.reader(io.StringIO(data.decode()), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"the body is not CSV in UTF-8: {error}"
        raise InvalidRequest(message) from error
    if not lines:
        return []
    numbers = {feature.name for feature in predictor.features if feature.dtype == "number"}
    head, rows = lines[0], [line for line in lines[1:] if line]
    found: Rows = []
    for at, line in enumerate(rows, 2):
        if len(line) != len(head):
            raise _wrong(f"line {at}", f"has {len(line)} values, and the header {len(head)} names")
        found.append({name: _cell(text, at, name in numbers) for name, text in zip(head, line, strict=True)})
    return found


def _cell(text: str, line: int, is_number: bool) -> object:  # noqa: FBT001 - one word beside two
    if not is_number:
        return text
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise _wrong(f"line {line}", f"{text[:32]!r} is not a number") from error


def _wrong(where: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: {why}", param=where)
