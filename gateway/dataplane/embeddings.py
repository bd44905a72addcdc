"""`/v1/embeddings` from a local embedder: that of a release's index, or `minilm/…` by name."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import Body, field, model_of
from gateway.dataplane.reserve import reserve
from gateway.dataplane.resolve import resolve
from gateway.dataplane.screen import screen_body
from gateway.dataplane.services import Services
from gateway.dataplane.table import Embedder
from gateway.dataplane.usage import estimate_tokens
from gateway.errors import BodyTooLarge, InvalidRequest

_TEXT, _NUMBER = msgspec.json.Decoder(str | None), msgspec.json.Decoder(int | None)
_ANY = msgspec.json.Decoder(Any)


async def answer_locally(exchange: Exchange, body: Body, services: Services) -> bool:
    """
    Answer if the model names a local embedder; False leaves the request to an upstream.

    `usage` is an estimate: a token for each four bytes of text.

    Raises:
        InvalidRequest: no text, token ids instead of text, or dimensions the embedder lacks.
        BodyTooLarge: more texts than this gateway takes at once.
    """
    model = model_of(body)
    embedder: Embedder | None = None
    if "/" in model:
        exchange.grant.require(model)
        embedder = await services.sources.embedder(model)
        exchange.record.release = model.partition("/")[0] + "/*" if embedder else ""
    else:
        route = await resolve(exchange, model, services)
        if route.retriever is not None:
            embedder = route.retriever.embedder
            if route.input is not None:
                body = await screen_body(route.input, body, services.work, exchange.record.findings)
    if embedder is None:
        return False
    await reserve(exchange, services)
    texts = _texts(body, services.limits.max_batch_rows)
    encoding = field(body, "encoding_format", _TEXT) or "float"
    if encoding not in ("float", "base64"):
        message = f"encoding_format: {encoding[:32]!r} is not float or base64"
        raise InvalidRequest(message, param="encoding_format")
    dimensions = field(body, "dimensions", _NUMBER)
    if dimensions is not None and dimensions != embedder.dimension:
        message = f"dimensions: {model[:64]} has {embedder.dimension} and cannot be cut to {dimensions}"
        raise InvalidRequest(message, param="dimensions")
    vectors = await services.work.run(_embed, embedder, texts, base64_wanted=encoding == "base64")
    tokens = sum(map(estimate_tokens, texts))
    exchange.record.prompt_tokens = tokens
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    exchange.respond(200, msgspec.json.encode(answer))
    return True


def _texts(body: Body, limit: int) -> list[str]:
    value = field(body, "input", _ANY)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        message = "input: must be text or a list of texts; this embedder takes no token ids"
        raise InvalidRequest(message, param="input")
    if not texts or not all(texts):
        message = "input: has nothing to embed: neither the list nor a text in it may be empty"
        raise InvalidRequest(message, param="input")
    if len(texts) > limit:
        message = f"input: {len(texts)} texts are more than the {limit} this gateway takes at once"
        raise BodyTooLarge(message, param="input")
    return texts


def _embed(embedder: Embedder, texts: list[str], *, base64_wanted: bool) -> list[Any]:
    vectors = embedder.embed(texts)
    if not base64_wanted:
        rows: list[Any] = vectors.tolist()
        return rows
    return [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
