"""Classical predictions: the plain `/predict` and `/predict/batch`, and what every way to a model shares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.dataplane.breaker import REFUSED, Breaker
from gateway.dataplane.complete import circuit_open
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import decode
from gateway.dataplane.reserve import reserve
from gateway.dataplane.resolve import resolve
from gateway.dataplane.services import Services
from gateway.dataplane.table import Predictions, Predictor, Route
from gateway.errors import BodyTooLarge, CircuitOpen, InvalidRequest, NotReady, Overloaded, UnknownModel
from registry.errors import BadInput


class SeedRow(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `/predict`."""

    features: dict[str, Any]


_ROW = msgspec.json.Decoder(SeedRow)
_DEFAULT = b'{"prediction":"default_value","confidence":0.0,"fallback":true}'
"""What `/predict` answers, where settings want it, while its model is left alone."""
_DEFAULT_HEADERS = ((b"content-type", b"application/json"), (b"x-sluicegate-fallback", b"true"))
_ROWS = msgspec.json.Decoder(list[SeedRow])


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
    check_rows(len(rows), services.limits.max_batch_rows)
    predictions = await run_rows(exchange, route, predictor, [row.features for row in rows], services)
    answers = [
        {"id": index, "prediction": prediction, "probability": probability, "label": label}
        for index, (prediction, probability, label) in enumerate(
            zip(predictions.indices, predictions.probabilities, predictions.labels, strict=True)
        )
    ]
    exchange.respond(200, msgspec.json.encode(answers))


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


def check_rows(count: int, limit: int) -> None:
    """Raise InvalidRequest where there is no row, BodyTooLarge where there are more than *limit*."""
    if count < 1:
        message = "the batch is empty; send at least one row"
        raise InvalidRequest(message)
    if count > limit:
        message = f"{count} rows are more than the {limit} this gateway takes at once; send several batches"
        raise BodyTooLarge(message)
