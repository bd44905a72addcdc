"""
A provider on a real socket: it replays its fixtures to those who speak to it as it demands.

Another path, key, model or field than it takes is refused as the real one refuses it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.providers.wires import KEY, WIRES, Wire, error, stream, unknown_fields, whole

TOKEN_PATH = "/token"


@dataclass(frozen=True)
class Script:
    """What is answered instead of the usual."""

    error: str = ""
    """Name of a fixture of an error."""
    quote: str = ""
    """Put into the error's reason."""
    headers: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    """Fixture of the stream."""
    cut_after: int | None = None
    """Bytes of the body after which it ends."""
    aborts: bool = True
    """Whether a body that is cut ends with its connection, and not as if it were whole."""


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Any


class Fake:
    """Read its attributes from any thread."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.wire: Wire = WIRES[provider]
        self.root = ""
        self.seen: list[Request] = []
        self.refused: list[str] = []
        """What was wrong with requests that no script had refused."""
        self.scripts: deque[Script] = deque()
        self.piece: int | None = None
        """Bytes in which streams are written; whole where None."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == TOKEN_PATH:
            return web.json_response({"access_token": KEY, "expires_in": 3600, "token_type": "Bearer"})
        wrong = await self._wrong(request)
        if wrong:
            self.refused.append(wrong)
            return self._error(Script(error="unknown_key" if wrong == "key" else "refused"))
        body = json.loads(await request.read())
        self.seen.append(Request(request.path, dict(request.headers), body))
        script = self.scripts.popleft() if self.scripts else Script()
        if script.error:
            return self._error(script)
        asks_stream = request.path == self.wire.stream_path or body.get("stream") is True
        name = script.name or ("tool" if "tools" in body or "toolConfig" in body else "plain")
        if not asks_stream:
            # In full where the name has a status, as that of an error has.
            body = error(self.provider, name)[1] if script.name else whole(self.provider, name)
            return web.Response(body=body, content_type="application/json")
        data = stream(self.provider, "stream" if name == "plain" else name)
        return await self._stream(request, data, script)

    async def _stream(self, request: web.Request, data: bytes, script: Script) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": self.wire.stream_type})
        await response.prepare(request)
        shown = data if script.cut_after is None else data[: script.cut_after]
        size = self.piece or len(shown)
        for start in range(0, len(shown), size):
            await response.write(shown[start : start + size])
            await asyncio.sleep(0)
        if script.cut_after is not None and script.aborts:
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write_eof()
        return response

    def _error(self, script: Script) -> web.Response:
        status, body = error(self.provider, script.error)
        if script.quote:
            quoted = body.replace(self.wire.reason.replace('"', '\\"').encode(), script.quote.encode())
            assert quoted != body, "the fixture's reason is not where it is said to be"
            body = quoted
        return web.Response(status=status, body=body, content_type="application/json", headers=script.headers)

    async def _wrong(self, request: web.Request) -> str:
        """What the real one would refuse; empty where nothing is wrong."""
        wire = self.wire
        if request.method != "POST" or request.path not in (wire.path, wire.stream_path or wire.path):
            return f"path {request.method} {request.path}"
        key = request.headers.get(wire.key_header, "")
        if not key.startswith(wire.key_prefix) or not key.removeprefix(wire.key_prefix):
            return "key"
        if KEY not in wire.environment.values() and key != wire.key_prefix + KEY:
            return "key"
        for name, value in {"content-type": "application/json", **wire.headers}.items():
            if request.headers.get(name) != value:
                return f"header {name}"
        try:
            body = json.loads(await request.read())
        except ValueError:
            return "body"
        unknown = unknown_fields(wire, body)
        if unknown:
            return f"fields {unknown}"
        if wire.names_model and body.get("model") != wire.model.removeprefix("openai/" * bool(wire.folder)):
            return f"model {body.get('model')}"
        asked = (body.get("stream_options") or {}).get("include_usage")
        return (
            "usage was not asked for" if wire.asks_usage and body.get("stream") and asked is not True else ""
        )


@contextmanager
def serving_fake(provider: str) -> Iterator[Fake]:
    """*provider* at `root`, which has no path."""
    fake = Fake(provider)
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", fake.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        fake.root = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(10)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
