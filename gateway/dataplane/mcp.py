"""
Model Context Protocol: releases as tools and prompts, at `/mcp`.

Source: Model Context Protocol, "Base protocol", "Transports: Streamable HTTP", "Tools" and "Prompts",
revisions 2024-11-05 to 2025-11-25. Each request is answered by itself with JSON: there are no sessions and no
stream that a server would write to, so `GET` and `DELETE` are answered with 405, as the protocol says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.mcp_client import VERSIONS
from gateway.dataplane.mcp_proxy import proxied_tools
from gateway.dataplane.mcp_tools import (
    Arguments,
    call_tool,
    get_prompt,
    list_prompts,
    list_tools,
)
from gateway.dataplane.services import Services
from gateway.errors import InvalidRequest, NotAMessage, ParseFailed, UnknownMethod

_PARSE_ERROR, _NOT_A_REQUEST, _NO_METHOD, _BAD_PARAMS, _INTERNAL = -32700, -32600, -32601, -32602, -32603
_SERVER_ERROR = -32000
_CODES = {400: _BAD_PARAMS, 404: _BAD_PARAMS, 413: _BAD_PARAMS, 500: _INTERNAL}
_OWN_CODES = {"unknown_method": _NO_METHOD, "parse_error": _PARSE_ERROR, "not_a_message": _NOT_A_REQUEST}
_ABOUT = (
    "Tools and prompts are releases of this gateway. Each call passes the limits, guardrails and records of "
    "the key it was made with."
)


class Message(msgspec.Struct):
    """One message of a client, as JSON-RPC 2.0 has it."""

    jsonrpc: str
    method: str | None = None
    id: str | int | msgspec.UnsetType | None = msgspec.UNSET
    params: dict[str, Any] = {}


class _Initialize(msgspec.Struct, rename="camel"):
    protocol_version: str = ""


class _Named(msgspec.Struct):
    name: str
    arguments: Arguments | None = None


_MESSAGE = msgspec.json.Decoder(Message)


class Reply:
    """A `Dialect` that tells results and errors of one request as JSON-RPC does."""

    def __init__(self, request_id: str = "", identity: str | int | None = None) -> None:
        """*identity* is the `id` of the client's message; *request_id* stands in a header already."""
        del request_id
        self.identity = identity
        self.result: Callable[[bytes], dict[str, Any]] | None = None
        """What makes a result of the body of an answer; None where the body is the whole message."""

    def whole(self, status: int, body: bytes) -> bytes:
        """The message for a whole answer, or for an error where *status* is 400 or more."""
        if status >= 400:
            return self._error(status, body)
        if self.result is None:
            return body
        return _encoded(self.identity, result=self.result(body))

    def events(self, data: bytes) -> bytes:
        """Nothing is streamed here."""
        return data

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def _error(self, status: int, body: bytes) -> bytes:
        try:
            said = msgspec.json.decode(body)["error"]
            message, machine = str(said["message"]), said.get("code")
        except (msgspec.MsgspecError, KeyError, TypeError):
            message, machine = "the request failed", None
        code = _OWN_CODES.get(str(machine)) or _CODES.get(status, _SERVER_ERROR)
        error = {"code": code, "message": message, "data": {"code": machine, "status": status}}
        return msgspec.json.encode({"jsonrpc": "2.0", "id": self.identity, "error": error})


async def serve(exchange: Exchange, services: Services) -> None:
    """
    `POST /mcp`: one message.

    Raises:
        ParseFailed, NotAMessage, UnknownMethod, InvalidRequest: it cannot be understood or done.
        KeyNotAllowed, UnknownModel: the key may not use that release, or there is none.
    """
    reply = Reply()
    exchange.dialect = reply
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    message = _read(data)
    if message.method is None or message.id is msgspec.UNSET:
        # A notification, or an answer to a question that nobody here asks.
        exchange.dialect = None
        exchange.respond(202, b"", ())
        return
    reply.identity = message.id
    method = _METHODS.get(message.method)
    if method is None:
        there_is = ", ".join(sorted(_METHODS))
        raise UnknownMethod(f"method {message.method[:64]!r} is not one of: {there_is}", param="method")
    await method(exchange, services, reply, message.params)


def _read(data: bytes) -> Message:
    try:
        message = _MESSAGE.decode(data)
    except msgspec.ValidationError as error:
        text = f"this is no message of JSON-RPC 2.0, one for each request: {error}"
        raise NotAMessage(text) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ParseFailed("the body is not JSON in UTF-8") from error
    if message.jsonrpc != "2.0":
        raise NotAMessage(f"jsonrpc: {message.jsonrpc[:16]!r} is not '2.0'", param="jsonrpc")
    return message


def _params(params: dict[str, Any], shape: type[Any]) -> Any:  # noqa: ANN401 - *shape* types it
    try:
        return msgspec.convert(params, shape)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"params: {error}", param="params") from error


def _encoded(identity: str | int | None, *, result: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": identity, "result": result})


async def _initialize(exchange: Exchange, services: Services, reply: Reply, params: dict[str, Any]) -> None:
    del services
    asked: _Initialize = _params(params, _Initialize)
    try:
        number = version("sluicegate")
    except PackageNotFoundError:
        number = "0"
    result = {
        "protocolVersion": asked.protocol_version if asked.protocol_version in VERSIONS else VERSIONS[-1],
        "capabilities": {"tools": {"listChanged": False}, "prompts": {"listChanged": False}},
        "serverInfo": {"name": "sluicegate", "version": number},
        "instructions": _ABOUT,
    }
    _answer(exchange, reply, result)


async def _ping(exchange: Exchange, services: Services, reply: Reply, params: dict[str, Any]) -> None:
    del services, params
    _answer(exchange, reply, {})


async def _tools(exchange: Exchange, services: Services, reply: Reply, params: dict[str, Any]) -> None:
    del params
    tools = list_tools(exchange)
    if services.tool_servers:
        tools += await proxied_tools(exchange, services)
    _answer(exchange, reply, {"tools": tools})


async def _prompts(exchange: Exchange, services: Services, reply: Reply, params: dict[str, Any]) -> None:
    del services, params
    _answer(exchange, reply, {"prompts": list_prompts(exchange)})


async def _prompt(exchange: Exchange, services: Services, reply: Reply, params: dict[str, Any]) -> None:
    asked: _Named = _params(params, _Named)
    _answer(exchange, reply, await get_prompt(exchange, services, asked.name, asked.arguments or {}))


async def _call(exchange: Exchange, services: Services, reply: Reply, params: dict[str, Any]) -> None:
    asked: _Named = _params(params, _Named)

    def answered_by(result: Callable[[bytes], dict[str, Any]]) -> None:
        reply.result = result

    result = await call_tool(exchange, services, asked.name, asked.arguments or {}, answered_by)
    if result is not None:
        _answer(exchange, reply, result)


def _answer(exchange: Exchange, reply: Reply, result: dict[str, Any]) -> None:
    reply.result = None
    exchange.respond(200, _encoded(reply.identity, result=result))


Method = Callable[[Exchange, Services, Reply, dict[str, Any]], Awaitable[None]]
_METHODS: dict[str, Method] = {
    "initialize": _initialize,
    "ping": _ping,
    "tools/list": _tools,
    "tools/call": _call,
    "prompts/list": _prompts,
    "prompts/get": _prompt,
}
