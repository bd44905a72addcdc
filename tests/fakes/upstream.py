"""
A strict OpenAI-compatible upstream on a real socket, with faults on demand.

It refuses what OpenAI refuses (no key, unknown model, bad JSON), remembers what it was sent, and
notices when its client leaves.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "sk-upstream-secret"
MODEL = "tiny"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request."""

    status: int = 0
    """When set, the whole answer is this status with *body* and *headers*."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    silent: bool = False
    """Never sends a head."""
    cut_after: int | None = None
    """Aborts the connection after this many bytes of body."""
    stall_after: int | None = None
    """Sends this many bytes of body, then nothing more."""
    raw: bytes | None = None
    """The whole body, with the usual head."""


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Any
    raw: bytes = b""
    """The body's bytes."""


class Upstream:
    """Read its attributes from any thread; they grow as requests arrive."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self.faults: deque[Fault] = deque()
        self.answer = "forty two"
        self.message: Mapping[str, Any] = {}
        """Further fields of every chat message, such as `reasoning_content` or `refusal`."""
        self.chunk_bytes: int | None = None
        """When set, stream bodies are written in pieces of this size."""
        self._left = threading.Semaphore(0)

    def noticed_a_disconnect(self, timeout_s: float = 5.0) -> bool:
        """Whether a client left in the middle of an answer, waiting for it if need be."""
        return self._left.acquire(timeout=timeout_s)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return _error(401, f"Incorrect API key provided: {KEY}.", "invalid_api_key")
        raw = await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            return _error(400, "We could not parse the JSON body of your request.", None)
        self.seen.append(Seen(request.path, dict(request.headers), body, raw))
        fault = self.faults.popleft() if self.faults else Fault()
        try:
            return await self._answer(request, body, fault)
        except asyncio.CancelledError:
            self._left.release()
            raise

    async def _answer(self, request: web.Request, body: Any, fault: Fault) -> web.StreamResponse:
        if fault.silent:
            await asyncio.Event().wait()
        if fault.status:
            return web.Response(  # the scripted answer
                status=fault.status,
                body=fault.body,
                headers={"content-type": "application/json", **fault.headers},
            )
        if body.get("model") != MODEL:
            return _error(404, f"The model `{body.get('model')}` does not exist", "model_not_found")
        wrong = _wrong(body)
        if wrong:
            return _error(400, f"Invalid value for '{wrong}'.", "invalid_value")
        stream = body.get("stream") is True
        if request.path.endswith("/embeddings"):
            payload = _embeddings(body)
        elif request.path.endswith("/chat/completions"):
            if not body.get("messages"):
                return _error(400, "messages is required", None)
            payload = self._chat_stream(body) if stream else json.dumps(self._chat(body)).encode()
        else:
            payload = self._completion_stream(body) if stream else json.dumps(self._completion(body)).encode()
        if fault.raw is not None:
            payload = fault.raw
        return await self._send(request, payload, fault, stream=stream)

    async def _send(
        self, request: web.Request, payload: bytes, fault: Fault, *, stream: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-request-id": "up-1", "openai-version": "2020-10-01"})
        response.content_type = "text/event-stream" if stream else "application/json"
        if not stream:
            response.content_length = len(payload)
        response.headers["set-cookie"] = "tenant=a"
        await response.prepare(request)
        limit = fault.cut_after if fault.cut_after is not None else fault.stall_after
        shown = payload if limit is None else payload[:limit]
        size = self.chunk_bytes or len(shown) or 1
        for start in range(0, len(shown), size):
            await response.write(shown[start : start + size])
            await asyncio.sleep(0)
        if fault.cut_after is not None:
            assert request.transport is not None
            request.transport.abort()
            return response
        if fault.stall_after is not None:
            await asyncio.Event().wait()
        await response.write_eof()
        return response

    def _chat(self, body: Any) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.answer, "refusal": None} | dict(self.message)
        finish = "stop"
        if body.get("tools"):
            calls = [
                {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": self.answer}}
                for n, name in enumerate(_tool_names(body), 1)
            ]
            message, finish = message | {"content": None, "tool_calls": calls}, "tool_calls"
        logprobs = _logprobs(self._pieces()) if body.get("logprobs") else None
        choices = [
            {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}
            for index in range(body.get("n") or 1)
        ]
        return _envelope("chat.completion") | {
            "choices": choices,
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
            "unknown_field": {"kept": 12345678901234567890},
        }

    def _chat_stream(self, body: Any) -> bytes:
        pieces = self._pieces()
        names = _tool_names(body)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if names else ""}]
        if names:
            for n, name in enumerate(names):
                deltas.append({"tool_calls": [_call_head(n, name)]})
                deltas += [{"tool_calls": [{"index": n, "function": {"arguments": p}}]} for p in pieces]
        else:
            deltas += [{name: text} for name, text in self.message.items()]
            deltas += [{"content": piece} for piece in pieces]
        chunks = []
        for index in range(body.get("n") or 1):
            for delta in deltas:
                choice = {"index": index, "delta": delta, "finish_reason": None}
                if body.get("logprobs") and delta.get("content"):
                    choice["logprobs"] = _logprobs([delta["content"]])
                chunks.append(choice)
            chunks.append({"index": index, "delta": {}, "finish_reason": "tool_calls" if names else "stop"})
        return self._events("chat.completion.chunk", chunks, body)

    def _completion(self, body: Any) -> dict[str, Any]:
        text = f"{body['prompt']} {self.answer}" if body.get("echo", True) else self.answer
        choices = [
            {"index": index, "text": text, "logprobs": None, "finish_reason": "stop"}
            for index in range(body.get("n") or 1)
        ]
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        return _envelope("text_completion") | {"choices": choices, "usage": usage}

    def _completion_stream(self, body: Any) -> bytes:
        chunks = [
            {"index": 0, "text": piece, "logprobs": None, "finish_reason": None} for piece in self._pieces()
        ]
        chunks.append({"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"})
        return self._events("text_completion", chunks, body)

    def _events(self, kind: str, choices: list[dict[str, Any]], body: Any) -> bytes:
        events: list[dict[str, Any]] = [_envelope(kind) | {"choices": [choice]} for choice in choices]
        if (body.get("stream_options") or {}).get("include_usage"):
            count = len(self._pieces())
            usage = {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}
            events.append(_envelope(kind) | {"choices": [], "usage": usage})
        return b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events) + b"data: [DONE]\n\n"

    def _pieces(self) -> list[str]:
        """The answer, three characters at a time."""
        return [self.answer[at : at + 3] for at in range(0, len(self.answer), 3)]


@contextmanager
def upstream() -> Iterator[Upstream]:
    """A running upstream; `url` ends in `/v1`."""
    fake = Upstream()
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/{rest:.*}", fake.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
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


def _envelope(kind: str) -> dict[str, Any]:
    return {"id": "cmpl-1", "object": kind, "created": 1700000000, "model": MODEL}


def _wrong(body: Any) -> str | None:
    """The first of the fields read here that makes no sense."""
    n = body.get("n")
    if n is not None and not (type(n) is int and 1 <= n <= 128):
        return "n"
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        return "tools"
    return None if isinstance(body.get("stream_options") or {}, dict) else "stream_options"


def _tool_names(body: Any) -> list[str]:
    """The functions that are called: all that are offered, or only the first."""
    names = [tool["function"]["name"] for tool in body.get("tools") or ()]
    return names[:1] if body.get("parallel_tool_calls") is False else names


def _call_head(index: int, name: str) -> dict[str, Any]:
    function = {"name": name, "arguments": ""}
    return {"index": index, "id": f"call_{index + 1}", "type": "function", "function": function}


def _logprobs(tokens: list[str]) -> dict[str, Any]:
    content = [
        {"token": token, "logprob": -0.25, "bytes": list(token.encode()), "top_logprobs": []}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _embeddings(body: Any) -> bytes:
    vector: Any = [0.25, -0.5]
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<2f", *vector)).decode()
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [{"object": "embedding", "index": i, "embedding": vector} for i in range(len(inputs))]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return json.dumps({"object": "list", "data": data, "model": MODEL, "usage": usage}).encode()


def _error(status: int, message: str, code: str | None) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status)
