"""
What releases are to a client of the Model Context Protocol.

A chat release is a tool `ask_NAME` and, where it has a prompt, a prompt `NAME`; one that retrieves is a tool
`search_NAME`; a classical model is a tool `predict_NAME`. `list_releases` says what there is. Only releases
in production that the key may use are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from gateway.dataplane.augment import augment
from gateway.dataplane.complete import chat
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.mcp_proxy import call_proxied, proxied
from gateway.dataplane.predict import predictor_of, run_rows
from gateway.dataplane.request import messages_of, raw, role_of
from gateway.dataplane.reserve import reserve
from gateway.dataplane.resolve import resolve
from gateway.dataplane.screen import screen_body, screen_text
from gateway.dataplane.services import Services
from gateway.dataplane.table import Predictor, Route
from gateway.errors import InvalidRequest, NotReady

Arguments = dict[str, Any]
Tell = Callable[[Callable[[bytes], dict[str, Any]]], None]
"""Is told what makes the result of the body of an answer that is still to come."""
_ASK, _SEARCH, _PREDICT, _LIST = "ask_", "search_", "predict_", "list_releases"
_MOST_PASSAGES = 50
_TEXT = {"type": "string"}


def list_tools(exchange: Exchange) -> list[dict[str, Any]]:
    """Every tool that the key may call, as `tools/list` tells them."""
    tools = [
        _tool(
            _LIST,
            "What this key may use: releases in production, their kind and digest.",
            {},
            required=(),
        )
    ]
    for name, route in _releases(exchange):
        if route.kind == "prediction":
            if route.predictor is not None:
                tools.append(_prediction_tool(name, route.predictor))
            continue
        if route.balance is not None:
            about = f"Ask the release {name} a question; it answers with its own prompt and model."
            question = {"question": {**_TEXT, "description": "What to ask."}}
            tools.append(_tool(f"{_ASK}{name}", about, question, required=("question",)))
        if route.retriever is not None:
            about = f"Find passages in the index of the release {name}, best first."
            query = {
                "query": {**_TEXT, "description": "What to look for."},
                "limit": {"type": "integer", "minimum": 1, "maximum": _MOST_PASSAGES, "default": 5},
            }
            tools.append(_tool(f"{_SEARCH}{name}", about, query, required=("query",)))
    return tools


def list_prompts(exchange: Exchange) -> list[dict[str, Any]]:
    """Every prompt of a release that the key may use, as `prompts/list` tells them."""
    return [
        {
            "name": name,
            "description": f"The prompt of the release {name}, version {route.digest[:19]}.",
            "arguments": [{"name": "question", "description": "What the prompt is about.", "required": True}],
        }
        for name, route in _releases(exchange)
        if route.render is not None
    ]


async def get_prompt(
    exchange: Exchange, services: Services, name: str, arguments: Arguments
) -> dict[str, Any]:
    """
    The messages of a release's prompt for a question, with passages where it retrieves.

    The protocol has no role for instructions, so they come as the first words of the user.

    Raises:
        KeyNotAllowed, UnknownModel: the key may not use that release, or there is none.
        InvalidRequest: the release has no prompt, or an argument is missing or unknown.
    """
    route = await resolve(exchange, name, services)
    if route.render is None:
        raise InvalidRequest(f"params.name: release {name[:64]!r} has no prompt", param="params.name")
    question = _only(arguments, "question")
    await reserve(exchange, services)
    body = {"messages": raw([{"role": "user", "content": question}])}
    if route.input is not None:
        body = await screen_body(route.input, body, services.work, exchange.record.findings)
    rendered = await augment(route, body, services.work)
    messages = [
        {
            "role": "assistant" if role_of(message) == "assistant" else "user",
            "content": {"type": "text", "text": msgspec.json.decode(message["content"], type=str)},
        }
        for message in messages_of(rendered.body)
    ]
    return {"description": f"{name} {route.digest}", "messages": messages}


async def call_tool(
    exchange: Exchange, services: Services, name: str, arguments: Arguments, answered_by: Tell
) -> dict[str, Any] | None:
    """
    The result of a tool; None where the exchange has its answer already, by what *answered_by* was told.

    Raises:
        KeyNotAllowed, UnknownModel: the key may not use that release, or there is none.
        InvalidRequest: no such tool, or an argument is missing, unknown or of the wrong kind.
        UpstreamError: the server of a tool that is another's failed.
    """
    if name == _LIST:
        return _listed(exchange)
    found = proxied(name, services)
    if found is not None:
        return await call_proxied(exchange, services, *found, arguments)
    if name.startswith(_ASK):
        question = _only(arguments, "question")
        asked = {"model": name.removeprefix(_ASK), "messages": [{"role": "user", "content": question}]}
        answered_by(_said)
        await chat(exchange, services, msgspec.json.encode(asked))
        return None
    if name.startswith(_SEARCH):
        return await _search(exchange, services, name.removeprefix(_SEARCH), arguments)
    if name.startswith(_PREDICT):
        return await _predict(exchange, services, name.removeprefix(_PREDICT), arguments)
    message = f"params.name: there is no tool {name[:100]!r}; `tools/list` says which there are"
    raise InvalidRequest(message, param="params.name")


def _releases(exchange: Exchange) -> Iterator[tuple[str, Route]]:
    """Name and route of every release in production that can answer and that the key may use."""
    table = exchange.table
    for name, alias in sorted(table.aliases):
        target = table.targets.get(name)
        if alias != "production" or target is None or not exchange.grant.allows(name):
            continue
        if target.route.problem is None:
            yield name, target.route


def _tool(name: str, about: str, properties: dict[str, Any], *, required: tuple[str, ...]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = list(required)
    read_only = {"readOnlyHint": True, "openWorldHint": False}
    return {"name": name, "description": about, "inputSchema": schema, "annotations": read_only}


def _prediction_tool(name: str, predictor: Predictor) -> dict[str, Any]:
    kinds = {"number": "number", "text": "string"}
    properties = {
        feature.name: {"type": [kinds.get(feature.dtype, "string"), "null"]} for feature in predictor.features
    }
    about = f"Predict with the release {name}: one of {', '.join(predictor.classes)[:500]}."
    return _tool(f"{_PREDICT}{name}", about, properties, required=tuple(properties))


def _listed(exchange: Exchange) -> dict[str, Any]:
    found = [
        {"name": name, "kind": route.kind, "digest": route.digest} for name, route in _releases(exchange)
    ]
    return _result({"releases": found})


async def _search(
    exchange: Exchange, services: Services, name: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    limit = arguments.get("limit", 5)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= _MOST_PASSAGES:
        message = f"params.arguments.limit: must be a whole number from 1 to {_MOST_PASSAGES}"
        raise InvalidRequest(message, param="params.arguments.limit")
    query = _only({key: value for key, value in arguments.items() if key != "limit"}, "query")
    route = await resolve(exchange, name, services)
    if route.retriever is None:
        raise InvalidRequest(f"params.name: release {name[:64]!r} has no index", param="params.name")
    await reserve(exchange, services)
    query = await screen_text(route.input, query, services.work, exchange.record.findings)
    passages = await services.work.run(route.retriever.retrieve, query, limit)
    shown = [{"id": p.id, "title": p.title, "text": p.text, "score": p.score} for p in passages]
    return _result({"passages": shown})


async def _predict(exchange: Exchange, services: Services, name: str, row: Arguments) -> dict[str, Any]:
    route, predictor = await predictor_of(exchange, name, services)
    predictions = await run_rows(exchange, route, predictor, [row], services)
    if not predictions.labels:
        raise NotReady
    probabilities = dict(zip(predictor.classes, predictions.probabilities[0], strict=True))
    return _result({"label": predictions.labels[0], "probabilities": probabilities, "digest": route.digest})


def _only(arguments: Mapping[str, Any], name: str) -> str:
    """The one argument there may be. Raises InvalidRequest."""
    unknown = sorted(set(arguments) - {name})
    if unknown:
        where = f"params.arguments.{unknown[0][:64]}"
        raise InvalidRequest(f"{where}: is not known; there is only {name}", param=where)
    value = arguments.get(name)
    if not isinstance(value, str) or not value.strip():
        where = f"params.arguments.{name}"
        raise InvalidRequest(f"{where}: must be text and not empty", param=where)
    return value


def _result(content: dict[str, Any]) -> dict[str, Any]:
    text = msgspec.json.encode(content).decode()
    return {"content": [{"type": "text", "text": text}], "structuredContent": content, "isError": False}


def _said(body: bytes) -> dict[str, Any]:
    """The result for a chat completion: what the model said."""
    answer = msgspec.json.decode(body, type=_Answer)
    text = (
        (answer.choices[0].message.content or answer.choices[0].message.refusal) if answer.choices else None
    )
    return {"content": [{"type": "text", "text": text or ""}], "isError": text is None}


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []
