"""`/v1/rerank`: documents by how well they fit a query, by a local embedder's cosine."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import Body, decode, model_of
from gateway.dataplane.reserve import reserve
from gateway.dataplane.resolve import resolve
from gateway.dataplane.screen import screen_text
from gateway.dataplane.services import Services
from gateway.dataplane.table import Embedder
from gateway.dataplane.usage import estimate_tokens
from gateway.errors import BodyTooLarge, InvalidRequest


class Document(msgspec.Struct):
    """A document with fields; its text is what counts."""

    text: str


class RerankRequest(msgspec.Struct):
    """The body, in the shape that Cohere, Jina and vLLM share."""

    model: str
    query: str
    documents: list[str | Document]
    top_n: int | None = None
    return_documents: bool = True


_RERANK = msgspec.json.Decoder(RerankRequest)


async def answer_locally(exchange: Exchange, body: Body, data: bytes, services: Services) -> bool:
    """
    Answer if the model names a local embedder or a release with an index; else False.

    Results come best first, with `index` into the documents and `relevance_score`: the cosine with the query,
    in [-1, 1].

    Raises:
        InvalidRequest: no query, no documents, or a `top_n` below 1.
        BodyTooLarge: more documents than this gateway takes at once.
    """
    model = model_of(body)
    embedder: Embedder | None = None
    screen = None
    if "/" in model:
        exchange.grant.require(model)
        embedder = await services.sources.embedder(model)
        exchange.record.release = model.partition("/")[0] + "/*" if embedder else ""
    else:
        route = await resolve(exchange, model, services)
        if route.retriever is not None:
            embedder, screen = route.retriever.embedder, route.input
    if embedder is None:
        return False
    await reserve(exchange, services)
    request = decode(data, _RERANK)
    texts = _texts(request, services.limits.max_batch_rows)
    query = await screen_text(screen, request.query, services.work, exchange.record.findings)
    scores = await services.work.run(_scores, embedder, query, texts)
    tokens = sum(map(estimate_tokens, (query, *texts)))
    exchange.record.prompt_tokens = tokens
    ranked = sorted(range(len(texts)), key=lambda at: (-scores[at], at))[: request.top_n]
    results: list[dict[str, Any]] = [{"index": at, "relevance_score": scores[at]} for at in ranked]
    if request.return_documents:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    answer = {
        "id": f"rerank-{exchange.record.request_id}",
        "model": model,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    exchange.respond(200, msgspec.json.encode(answer))
    return True


def _texts(request: RerankRequest, limit: int) -> list[str]:
    texts = [one if isinstance(one, str) else one.text for one in request.documents]
    if not request.query.strip():
        message = "query: is empty"
        raise InvalidRequest(message, param="query")
    if not texts or not all(texts):
        message = "documents: neither the list nor a document in it may be empty"
        raise InvalidRequest(message, param="documents")
    if len(texts) > limit:
        message = f"documents: {len(texts)} are more than the {limit} this gateway takes at once"
        raise BodyTooLarge(message, param="documents")
    if request.top_n is not None and request.top_n < 1:
        message = f"top_n: must be at least 1, got {request.top_n}"
        raise InvalidRequest(message, param="top_n")
    return texts


def _scores(embedder: Embedder, query: str, texts: list[str]) -> list[float]:
    """The cosine of each text with the query: embedders give unit vectors."""
    vectors = embedder.embed([query, *texts])
    scores: list[float] = (vectors[1:] @ vectors[0]).tolist()
    return scores
