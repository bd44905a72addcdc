"""`POST /v1/vector_stores/{release}/search`: a release's retrieval alone, in OpenAI's shape."""

from __future__ import annotations

import msgspec

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import decode
from gateway.dataplane.reserve import reserve
from gateway.dataplane.resolve import resolve
from gateway.dataplane.screen import screen_text
from gateway.dataplane.services import Services
from gateway.errors import InvalidRequest, UnknownModel

_MAX_RESULTS = 50


class SearchRequest(msgspec.Struct):
    """The body: a query, and how many results at most."""

    query: str | list[str]
    max_num_results: int = 10


_SEARCH = msgspec.json.Decoder(SearchRequest)


async def search(exchange: Exchange, services: Services) -> None:
    """
    The passages closest to the query, best first; the release's k and sentence choice do not apply.

    Raises:
        InvalidRequest: no query, a number outside 1 to 50, or a release without an index.
    """
    name = exchange.path.removeprefix("/v1/vector_stores/").removesuffix("/search")
    if not name or "/" in name:
        message = f"no vector store at {exchange.path[:200]!r}"
        raise UnknownModel(message)
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    route = await resolve(exchange, name, services)
    await reserve(exchange, services)
    if route.retriever is None:
        message = f"release {route.name!r} has no index to search"
        raise InvalidRequest(message, param="model")
    request = decode(data, _SEARCH)
    queries = [request.query] if isinstance(request.query, str) else request.query
    query = " ".join(queries).strip()
    if not query:
        message = "query: is empty"
        raise InvalidRequest(message, param="query")
    if not 1 <= request.max_num_results <= _MAX_RESULTS:
        message = f"max_num_results: must be 1 to {_MAX_RESULTS}, got {request.max_num_results}"
        raise InvalidRequest(message, param="max_num_results")
    query = await screen_text(route.input, query, services.work, exchange.record.findings)
    passages = await services.work.run(route.retriever.retrieve, query, request.max_num_results)
    answer = {
        "object": "vector_store.search_results.page",
        "search_query": queries,
        "data": [
            {
                "file_id": passage.document_id,
                "filename": passage.title,
                "score": passage.score,
                "attributes": {"passage_id": passage.id},
                "content": [{"type": "text", "text": passage.text}],
            }
            for passage in passages
        ],
        "has_more": False,
        "next_page": None,
    }
    exchange.respond(200, msgspec.json.encode(answer))
