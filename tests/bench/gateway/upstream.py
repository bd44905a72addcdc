"""
An OpenAI-compatible server that costs little: what stands behind every gateway that is measured.

Run as `python -m tests.bench.gateway.upstream --port 9100`. It checks key and body of every request;
`POST /control` sets latency, chunks and their pace for all requests that follow; `[[fault=NAME]]` in a
message makes that one request go wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
from typing import Any

import httptools
import uvloop

KEY = "bench-upstream-key"
MODEL = "mock"
MARK = b"~w~"
"""Stands once in every content chunk, so that a reader can count them whatever the framing."""
FAULTS = ("500", "429", "cut", "reset", "slow")
SLOW_S = 0.2

_HEAD = {"id": "chatcmpl-bench", "created": 1_700_000_000, "model": MODEL}
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_AUTHORIZATION = f"Bearer {KEY}".encode()


class Script:
    """What every request gets; changed by `/control`, read by all connections."""

    def __init__(self) -> None:
        self.latency_s = 0.0
        self.chunk_delay_s = 0.01
        self.served = 0
        self.plain = _response(200, _completion())
        self.plain_head = len(self.plain) - len(_completion())
        self.events: list[bytes] = []
        self.usage = b""
        self.set_chunks(64)

    def set_chunks(self, count: int) -> None:
        """Streams have *count* content chunks between the role and the finish."""
        pieces = [f" {MARK.decode()}{index:04d} token" for index in range(count)]
        deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
        deltas += [({"content": piece}, None) for piece in pieces]
        deltas.append(({}, "stop"))
        self.events = [
            _event({"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})
            for delta, finish in deltas
        ]
        usage = {"prompt_tokens": 180, "completion_tokens": count, "total_tokens": 180 + count}
        self.usage = _event({"choices": [], "usage": usage})

    def apply(self, change: dict[str, Any]) -> None:
        """Set what *change* names."""
        self.latency_s = change.get("latency_ms", self.latency_s * 1000) / 1000
        self.chunk_delay_s = change.get("chunk_delay_ms", self.chunk_delay_s * 1000) / 1000
        if "chunks" in change:
            self.set_chunks(change["chunks"])


class Answering(asyncio.Protocol):
    """One connection of a gateway."""

    def __init__(self, script: Script, loop: asyncio.AbstractEventLoop) -> None:
        self.script = script
        self.loop = loop
        self.transport: Any = None
        self.timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self.parser = httptools.HttpRequestParser(self)
        self.on_message_begin()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_message_begin(self) -> None:
        self.url = b""
        self.body = b""
        self.authorized = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) == 13 and name.lower() == b"authorization":
            self.authorized = value == _AUTHORIZATION

    def on_body(self, piece: bytes) -> None:
        self.body = self.body + piece if self.body else piece

    def on_message_complete(self) -> None:
        if self.url.startswith(b"/control"):
            if self.body:
                self.script.apply(json.loads(self.body))
            self.transport.write(_response(200, json.dumps({"served": self.script.served}).encode()))
            return
        self.script.served += 1
        latency_s = self.script.latency_s
        if b"[[fault=" in self.body:
            fault = self.body.partition(b"[[fault=")[2].partition(b"]]")[0].decode()
            if fault == "slow":
                latency_s += SLOW_S
        else:
            fault = ""
        if latency_s:
            self.timer = self.loop.call_later(latency_s, self._answer, fault)
        else:
            self._answer(fault)

    def _answer(self, fault: str) -> None:
        script = self.script
        streamed = b'"stream":true' in self.body or b'"stream": true' in self.body
        if not self.authorized:
            self.transport.write(_response(401, _error("no valid upstream key", "invalid_api_key")))
        elif b'"messages"' not in self.body or not self.url.endswith(b"/chat/completions"):
            self.transport.write(_response(400, _error("no messages, or an unknown path", "bad_request")))
        elif fault == "500":
            self.transport.write(_response(500, _error("scripted failure", "server_error")))
        elif fault == "429":
            self.transport.write(_response(429, _error("scripted refusal", "rate_limit_exceeded")))
        elif streamed:
            tail = script.usage if b"include_usage" in self.body else b""
            self.transport.write(_STREAM_HEAD)
            self._next(0, self.loop.time(), tail, fault)
        elif fault in ("cut", "reset"):
            self.transport.write(script.plain[: script.plain_head + 100])
            self._break(fault)
        else:
            self.transport.write(script.plain)

    def _next(self, index: int, begun: float, tail: bytes, fault: str) -> None:
        """Write event *index*, and plan the next by the clock, so that no delay adds up."""
        events = self.script.events
        if index == len(events):
            self.timer = None
            self.transport.write(tail + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
            return
        self.transport.write(events[index])
        if fault in ("cut", "reset") and index == len(events) // 2:
            self._break(fault)
            return
        index += 1
        delay_s = self.script.chunk_delay_s
        if delay_s:
            self.timer = self.loop.call_at(begun + index * delay_s, self._next, index, begun, tail, fault)
        else:
            self.timer = self.loop.call_soon(self._next, index, begun, tail, fault)

    def _break(self, fault: str) -> None:
        """End the connection in the middle: politely, or with a reset."""
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
        else:
            self.transport.close()


def _completion() -> bytes:
    """A plain answer of about 1 KB."""
    words = " ".join(f"word{index:03d}" for index in range(90))
    message = {"role": "assistant", "content": words, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 180, "completion_tokens": 90, "total_tokens": 270}
    answer = _HEAD | {"object": "chat.completion", "choices": [choice], "usage": usage}
    return json.dumps(answer, separators=(",", ":")).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(fields: dict[str, Any]) -> bytes:
    text = json.dumps(_HEAD | {"object": "chat.completion.chunk"} | fields, separators=(",", ":"))
    return _chunk(f"data: {text}\n\n".encode())


def _error(message: str, code: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": code, "param": None, "code": code}}).encode()


def _response(status: int, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\nx-request-id: req-bench\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def serve(port: int) -> None:
    """Answer on loopback until cancelled."""
    loop = asyncio.get_running_loop()
    script = Script()
    server = await loop.create_server(lambda: Answering(script, loop), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main() -> None:
    """Serve on `--port`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
