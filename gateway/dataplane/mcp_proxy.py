"""
Tools of other servers of the Model Context Protocol, as `SERVER__TOOL`, under this gateway's keys and limits.

A key may call them where its models cover `mcp/SERVER`, or `mcp/SERVER/TOOL` for a single one. A call is
counted as one of the model `mcp/SERVER`, which has no price unless one is set.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from gateway.dataplane.breaker import REFUSED, Breaker
from gateway.dataplane.complete import circuit_open
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.mcp_client import McpClient
from gateway.dataplane.reserve import reserve
from gateway.dataplane.services import Services
from gateway.dataplane.table import Grant
from gateway.errors import (
    CircuitOpen,
    InvalidRequest,
    UpstreamBroken,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTooLarge,
)
from gateway.guardrails.policy import Compiled, TextScreen
from registry.errors import PlatformError

SEPARATOR = "__"
_TOOL = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_TOLD = ("title", "description", "inputSchema", "outputSchema", "annotations")
_RESULT = ("content", "structuredContent", "isError")
_MOST_TOOLS = 1000
_LIST_S = 5.0
"""How long a list of tools waits for one server; the others are told without it."""
_AGAIN_S = 5.0
"""How long a server whose tools could not be listed is not asked again."""
_INLINE_BYTES = 2000
_OWN = ""
"""The account of the gateway itself, which lists tools."""
_log = logging.getLogger(__name__)
Findings = list[tuple[str, str]]
Tool = dict[str, Any]


@dataclass(slots=True)
class _Known:
    tools: tuple[Tool, ...] = ()
    until_s: float = 0.0
    failing: bool = False


class ToolServer:
    """One server whose tools are offered. Owned by one event loop."""

    def __init__(
        self, name: str, client: McpClient, *, patterns: Sequence[str] = ("*",), fresh_s: float = 60.0,
        breaker: Breaker | None = None, policy: Callable[[], Awaitable[Compiled | None]] | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            patterns: of the tools that are offered; all others are not there.
            fresh_s: how long a list of tools is believed.
            policy: what gives the screens of arguments and results, and raises where they cannot be had.
        """
        self.name = name
        self.model = f"mcp/{name}"
        self._client = client
        self._patterns = tuple(patterns)
        self._fresh_s = fresh_s
        self._breaker = breaker or Breaker()
        self._policy = policy
        self._known = _Known()
        self._listing: asyncio.Task[None] | None = None

    def offers(self, tool: str) -> bool:
        """Whether *tool* is one that may be offered."""
        return _TOOL.fullmatch(tool) is not None and any(fnmatchcase(tool, p) for p in self._patterns)

    def allowed(self, grant: Grant, tool: str) -> bool:
        """Whether a key may call *tool*."""
        return grant.allows(self.model) or grant.allows(f"{self.model}/{tool}")

    async def policy(self) -> Compiled | None:
        """The screens of arguments and results; None where there are none."""
        return await self._policy() if self._policy is not None else None

    async def tools(self) -> tuple[Tool, ...]:
        """Its tools; the last that are known where it does not answer in time. Raises nothing."""
        if time.monotonic() >= self._known.until_s:
            if self._listing is None:
                self._listing = asyncio.create_task(self._list())
            await asyncio.wait([self._listing], timeout=_LIST_S)
        return self._known.tools

    async def call(
        self, account: str, tool: str, arguments: Mapping[str, Any], trace: bytes = b""
    ) -> dict[str, Any]:
        """
        The result of *tool*, of which only what the protocol names is kept; *trace* is sent along.

        Raises:
            CircuitOpen: the server failed so often that it is left alone.
            UpstreamError: it could not be reached, did not answer in time, or answered with an error.
        """
        params = {"name": tool, "arguments": dict(arguments)}
        result = await self._guarded(lambda: self._client.request(account, "tools/call", params, trace))
        content = result.get("content", [])
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            raise UpstreamBroken(f"the result of tool {tool!r} of {self.name!r} has no list of content")
        if not isinstance(result.get("structuredContent"), dict | None) or "task" in result:
            raise UpstreamBroken(f"the result of tool {tool!r} of {self.name!r} is of a kind not understood")
        kept = {key: result[key] for key in _RESULT if result.get(key) is not None}
        return {"content": [], **kept, "isError": bool(result.get("isError"))}

    async def close(self) -> None:
        """End its sessions and connections. Idempotent."""
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.gather(self._listing, return_exceptions=True)
        await self._client.close()

    async def _guarded(self, ask: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """
        Call through the breaker. A slow tool or a large result says nothing of the server: else one client
        could shut out all others.
        """
        ticket = self._breaker.allow(time.monotonic())
        if ticket == REFUSED:
            raise circuit_open(f"the tool server {self.name!r}", self._breaker.wait_s(time.monotonic()))
        try:
            result = await ask()
        except UpstreamRefused as error:
            if error.upstream_status >= 500 or error.upstream_status == 401:
                self._breaker.failed(ticket, time.monotonic())
            else:
                self._breaker.succeeded(ticket)
            raise
        except (UpstreamTimeout, UpstreamTooLarge, asyncio.CancelledError):
            self._breaker.released(ticket)
            raise
        except UpstreamError:
            self._breaker.failed(ticket, time.monotonic())
            raise
        except BaseException:
            self._breaker.released(ticket)
            raise
        self._breaker.succeeded(ticket)
        return result

    async def _list(self) -> None:
        known = self._known
        try:
            found = await self._client.pages(_OWN, "tools/list", "tools")
        except PlatformError as error:
            if not known.failing:
                _log.warning("tools of %r cannot be listed: %s: %s", self.name, error.code, error.message)
            known.failing, known.until_s = True, time.monotonic() + _AGAIN_S
        else:
            tools = [self._told(tool) for tool in found if self._fits(tool)]
            if len(tools) > _MOST_TOOLS:
                _log.warning("%r has %d tools; the first %d are offered", self.name, len(tools), _MOST_TOOLS)
            known.tools = tuple(tools[:_MOST_TOOLS])
            known.failing, known.until_s = False, time.monotonic() + self._fresh_s
        finally:
            self._listing = None

    def _fits(self, tool: object) -> bool:
        """Whether it is allowed, and can be called without what this gateway does not speak (tasks)."""
        if not isinstance(tool, dict) or not isinstance(tool.get("inputSchema"), dict):
            return False
        execution = tool.get("execution")
        must_be_task = isinstance(execution, dict) and execution.get("taskSupport") == "required"
        return isinstance(tool.get("name"), str) and self.offers(tool["name"]) and not must_be_task

    def _told(self, tool: Tool) -> Tool:
        kept = {key: tool[key] for key in _TOLD if tool.get(key) is not None}
        return {"name": tool["name"], **kept}


def proxied(name: str, services: Services) -> tuple[ToolServer, str] | None:
    """The server and its tool that *name* means; None where it is no name of theirs."""
    server, separator, tool = name.partition(SEPARATOR)
    found = services.tool_servers.get(server) if separator else None
    return (found, tool) if found is not None else None


async def proxied_tools(exchange: Exchange, services: Services) -> list[Tool]:
    """Every tool of other servers that the key may call, sorted by server."""
    servers = [server for _, server in sorted(services.tool_servers.items()) if _may(exchange.grant, server)]
    lists = await asyncio.gather(*[server.tools() for server in servers])
    return [
        {**tool, "name": f"{server.name}{SEPARATOR}{tool['name']}"}
        for server, tools in zip(servers, lists, strict=True)
        for tool in tools
        if server.allowed(exchange.grant, tool["name"])
    ]


async def call_proxied(
    exchange: Exchange, services: Services, server: ToolServer, tool: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """
    The result of another server's tool, both ways screened by the server's policy.

    Raises:
        KeyNotAllowed: the key's models do not cover it.
        InvalidRequest: the tool is not offered.
        GuardrailBlocked: the policy refused the arguments or the result.
        UpstreamError: see `ToolServer.call`.
    """
    if not server.allowed(exchange.grant, tool):
        exchange.grant.require(server.model)
    if not server.offers(tool):
        shown = f"{server.name}{SEPARATOR}{tool[:100]}"
        message = f"params.name: there is no tool {shown!r}; `tools/list` says which there are"
        raise InvalidRequest(message, param="params.name")
    record = exchange.record
    record.release, record.model, record.upstream = "mcp/*", server.model, server.name
    await reserve(exchange, services, model=server.model)
    began = time.perf_counter()
    policy = await server.policy()
    if policy is not None and policy.input is not None:
        arguments = await _screened(exchange, services, policy.input, arguments, _anything)
    record.guard_s = time.perf_counter() - began
    record.attempts = 1
    trace = services.span(record) if services.span is not None else record.trace.encode()
    asked = time.perf_counter()
    try:
        result = await server.call(record.account, tool, arguments, trace)
    except CircuitOpen:
        record.attempts = 0
        raise
    except UpstreamRefused as error:
        if policy is None or policy.output is None:
            raise
        message = await _screened(exchange, services, policy.output, error.message, _anything)
        raise UpstreamRefused(
            message, status=error.status, kind=error.kind, code=error.code, headers=error.headers,
            upstream_status=error.upstream_status,
        ) from error  # fmt: skip
    finally:
        record.upstream_s = time.perf_counter() - asked
    if policy is not None and policy.output is not None:
        result = await _screened(exchange, services, policy.output, result, _result)
    return result


def _may(grant: Grant, server: ToolServer) -> bool:
    """Whether a key may call any tool of *server*, as far as that is known without its tools."""
    return grant.allows(server.model) or any(model.startswith(f"{server.model}/") for model in grant.models)


Walk = Callable[[TextScreen, Any, Findings], Any]


async def _screened(
    exchange: Exchange, services: Services, screen: TextScreen, value: Any, walk: Walk  # noqa: ANN401
) -> Any:  # fmt: skip # noqa: ANN401 - any JSON
    findings = exchange.record.findings
    if len(msgspec.json.encode(value)) <= _INLINE_BYTES:
        return walk(screen, value, findings)
    return await services.work.run(walk, screen, value, findings)


def _anything(screen: TextScreen, value: Any, findings: Findings) -> Any:  # noqa: ANN401 - any JSON
    """*value* with every text in it screened, names of fields too."""
    if isinstance(value, str):
        done = screen.apply(value)
        findings += [(match.rule, match.action) for match in done.findings]
        return done.text
    if isinstance(value, dict):
        return {
            _anything(screen, key, findings): _anything(screen, item, findings) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_anything(screen, item, findings) for item in value]
    return value


def _result(screen: TextScreen, result: dict[str, Any], findings: Findings) -> dict[str, Any]:
    """A result with every text in it screened; images and other base64 stay as they are."""
    screened = _anything(screen, {key: result[key] for key in result if key != "content"}, findings)
    return {**screened, "content": [_block(screen, block, findings) for block in result["content"]]}


def _block(screen: TextScreen, block: dict[str, Any], findings: Findings) -> dict[str, Any]:
    kind = block.get("type")
    bytes_in = "data" if kind in ("image", "audio") else "resource" if kind == "resource" else None
    rest = {key: value for key, value in block.items() if key not in ("type", bytes_in)}
    changed = {**block, **_anything(screen, rest, findings)}
    resource = block.get("resource")
    if bytes_in == "resource" and isinstance(resource, dict):
        told = {key: value for key, value in resource.items() if key != "blob"}
        changed["resource"] = {**resource, **_anything(screen, told, findings)}
    return changed
