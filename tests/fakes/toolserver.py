"""Servers of the Model Context Protocol: the official SDK's, and one that says what a test tells it to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from gateway.dataplane.breaker import Breaker
from gateway.dataplane.mcp_client import ClientOptions, McpClient
from gateway.dataplane.mcp_proxy import ToolServer
from gateway.transport import open_transport
from tests.fakes.server import serving

TOOLS_KEY = "tools-key"
MAIL = "write to ann@example.org"
PIXEL = b"\x89PNG\r\n\x1a\nann@example.org"


@dataclass
class Seen:
    """What came in at a server's door."""

    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    """Method, headers and message of each."""
    running: set[str] = field(default_factory=set)
    """Tools that have begun and not ended."""

    def methods(self) -> list[str]:
        """The messages by method, in order."""
        return [message.get("method", "answer") for _, _, message in self.requests if message]

    def sessions(self) -> list[str]:
        """Distinct session ids that were sent, in order."""
        ids = [headers.get("mcp-session-id") for _, headers, _ in self.requests]
        return list(dict.fromkeys(one for one in ids if one))


def sdk_server(seen: Seen) -> MCPServer:
    """Tools that add, repeat, hang, fail and talk much."""
    server = MCPServer("things")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def echo(text: str) -> str:
        """Say it again."""
        return text

    @server.tool()
    async def hang() -> str:
        """Never answer."""
        seen.running.add("hang")
        try:
            await anyio.sleep_forever()
        finally:
            seen.running.discard("hang")
        return ""

    @server.tool()
    def leak() -> str:
        """Say what nobody may hear."""
        return MAIL

    @server.tool()
    def fail() -> str:
        """Fail."""
        raise ToolError(MAIL)

    @server.tool()
    def much(size: int) -> str:
        """Talk much."""
        return "x" * size

    @server.tool()
    async def progress(ctx: Context) -> str:
        """Say how far it is, then be done."""
        for step in range(3):
            await ctx.report_progress(step, 3)
        return "done"

    @server.tool()
    def picture() -> Image:
        """Show a picture."""
        return Image(data=PIXEL, format="png")

    @server.tool()
    def admin_reset() -> str:
        """What nobody outside may do."""
        return "gone"

    return server


class _Door:
    """Notes each request, and asks for a key where one is wanted."""

    def __init__(self, app: Any, seen: Seen, key: str | None) -> None:
        self._app, self._seen, self._key = app, seen, key

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        self._seen.requests.append((scope["method"], headers, json.loads(body) if body else None))
        if self._key is not None and headers.get("authorization") != f"Bearer {self._key}":
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"tools-key is wrong"})
            return
        given = False

        async def again() -> Any:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self._app(scope, again, send)


@contextlib.contextmanager
def sdk_serving(seen: Seen, *, key: str | None = None, **how: Any) -> Iterator[str]:
    """The URL of the official SDK's server; *how* is of `streamable_http_app`."""
    with serving(_Door(sdk_server(seen).streamable_http_app(**how), seen, key)) as url:
        yield f"{url}/mcp"


Say = Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes]]
"""A message → status, headers and body of the answer."""


@contextlib.contextmanager
def scripted(seen: Seen, say: Say) -> Iterator[str]:
    """The URL of a server that answers each message as *say* does, and begins sessions by itself."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = (await receive()).get("body", b"")
        status, headers, body = say(json.loads(message) if message else {})
        shown = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": shown})
        await send({"type": "http.response.body", "body": body})

    with serving(_Door(app, seen, None), lifespan="off") as url:
        yield f"{url}/mcp"


def result_of(message: dict[str, Any], **result: Any) -> tuple[int, dict[str, str], bytes]:
    """A JSON answer to *message*; the start of a session and notifications have their usual one."""
    if message.get("method") == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "x"}}
    elif "id" not in message:
        return 202, {}, b""
    answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
    return 200, {"content-type": "application/json"}, json.dumps(answer).encode()


def tool_server(url: str, name: str = "things", key: str | None = None, **changes: Any) -> ToolServer:
    """The gateway's side of the server at *url*; *changes* are of `ClientOptions` and `ToolServer`."""
    own = {"patterns", "fresh_s", "breaker", "policy"} & set(changes)
    mine = {"breaker": Breaker(3, 60.0), **{one: changes.pop(one) for one in own}}
    options = ClientOptions(name, url, **({"connect_timeout_s": 2.0, "total_timeout_s": 5.0} | changes))

    async def known() -> str | None:
        return key

    return ToolServer(name, McpClient(options, open_transport(options), known), **mine)
