"""Which function answers which path and method of the data plane, and whether it takes a key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.dataplane import (
    catalogue,
    generations,
    infer,
    invocations,
    mcp,
    moderate,
    predict,
    repository,
    search,
    speak,
)
from gateway.dataplane.complete import complete, embed, order
from gateway.dataplane.dialects.inference import InferenceErrors
from gateway.dataplane.dialects.messages_reply import Messages
from gateway.dataplane.exchange import Dialect, Exchange
from gateway.dataplane.invocations import MlflowErrors
from gateway.dataplane.services import Services
from gateway.errors import UnknownPath, WrongMethod

Handler = Callable[[Exchange, Services], Awaitable[None]]
EXACT: dict[str, tuple[str, Handler, bool]] = {
    "/v1/chat/completions": ("POST", complete, True),
    "/v1/completions": ("POST", complete, True),
    "/v1/embeddings": ("POST", embed, True),
    "/v1/responses": ("POST", speak.respond, True),
    "/v1/moderations": ("POST", moderate.moderate, True),
    "/v1/rerank": ("POST", order, True),
    "/v1/messages": ("POST", speak.messages, True),
    "/v1/messages/count_tokens": ("POST", speak.count_tokens, True),
    "/v1/feedback": ("POST", generations.feedback, True),
    "/v1/models": ("GET", catalogue.models, True),
    "/v2": ("GET", catalogue.server, False),
    "/v2/health/live": ("GET", catalogue.live, False),
    "/v2/health/ready": ("GET", catalogue.ready, False),
    "/v2/repository/index": ("POST", repository.index, True),
    "/mcp": ("POST", mcp.serve, True),
    "/invocations": ("POST", invocations.invoke, True),
    "/ping": ("GET", invocations.ping, False),
    "/version": ("GET", invocations.about, False),
    "/predict": ("POST", predict.predict, True),
    "/predict/batch": ("POST", predict.predict_batch, True),
}
"""Path → method, handler, and whether it takes a key."""
PATTERNS: tuple[tuple[str, str, str, str, Handler], ...] = (
    ("/v1/models/", "", "/v1/models/{id}", "GET", catalogue.model),
    ("/v1/generations/", "", "/v1/generations/{id}", "GET", generations.generation),
    ("/v1/responses/", "/input_items", "/v1/responses/{id}/input_items", "GET", speak.input_items),
    ("/v1/responses/", "", "/v1/responses/{id}", "GET", speak.response),
    ("/v1/responses/", "", "/v1/responses/{id}", "DELETE", speak.forget_response),
    ("/v1/vector_stores/", "/search", "/v1/vector_stores/{release}/search", "POST", search.search),
    ("/v2/repository/models/", "/load", "/v2/repository/models/{name}/load", "POST", repository.load),
    ("/v2/repository/models/", "/unload", "/v2/repository/models/{name}/unload", "POST", repository.unload),
    ("/v2/models/", "/infer", "/v2/models/{name}/infer", "POST", infer.infer),
    ("/v2/models/", "/ready", "/v2/models/{name}/ready", "GET", catalogue.model_ready),
    ("/v2/models/", "", "/v2/models/{name}", "GET", catalogue.metadata),
)
"""How a path begins and ends, its name in usage records, method, handler; the first that fits."""
DIALECTS: dict[str, Callable[[str], Dialect]] = {
    "/v1/messages": Messages,
    "/v1/messages/count_tokens": Messages,
    "/invocations": MlflowErrors,
    "/mcp": mcp.Reply,
}
"""Path → how errors are told there, made with the request's id; see `dialect_of` for the others."""
_PREFIXES = ("/v1/", "/v2/")


def is_data_plane(path: str) -> bool:
    """Whether the relay answers *path*: its own paths, and everything below `/v1/` and `/v2/`."""
    return path in EXACT or path.startswith(_PREFIXES)


def dialect_of(path: str) -> Callable[[str], Dialect] | None:
    """How errors of *path* are told; None: as OpenAI tells them."""
    if path.startswith("/v2/") or path == "/v2":
        return InferenceErrors
    return DIALECTS.get(path)


def handler_of(exchange: Exchange) -> tuple[Handler, bool]:
    """
    The function for path and method, and whether it needs a key; the record names the route.

    Raises:
        UnknownPath, WrongMethod: there is none.
    """
    path = exchange.path
    exact = EXACT.get(path)
    if exact is not None:
        exchange.record.route = name = path
        method, handler, needs_key = exact
    else:
        name, method, handler = _by_pattern(path, exchange.method)
        exchange.record.route = name
        needs_key = True
    if exchange.method != method:
        message = f"{name} answers {method}, not {exchange.method[:16]}"
        raise WrongMethod(message, param=method)
    return handler, needs_key


def _by_pattern(path: str, asked: str) -> tuple[str, str, Handler]:
    """The first that fits; of several methods of one name that which was asked."""
    found: tuple[str, str, Handler] | None = None
    for prefix, suffix, name, method, handler in PATTERNS:
        if found is not None and found[0] != name:
            break
        if path.startswith(prefix) and path.endswith(suffix) and len(path) >= len(prefix) + len(suffix):
            found = (name, method, handler)
            if method == asked:
                break
    if found is None:
        raise UnknownPath(f"there is nothing at {path[:200]!r}")
    return found
