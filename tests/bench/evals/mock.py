"""
An OpenAI-compatible endpoint with a fixed latency and as little work of its own as can be.

Asked `question 7` it answers `answer 7`. Asked for structured output it answers with the smallest instance of
the schema whose verdicts are good. `GET /stats` says what it was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from typing import Any, cast

import httptools
import uvloop

_QUESTION = re.compile(r"question (\d+)")


class Mock(asyncio.Protocol):
    """One connection; answers in the order of the latency's end."""

    asked: dict[str, int] = {}  # noqa: RUF012 - counted over all connections of the process
    under_way = 0
    most_under_way = 0

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.parser = httptools.HttpRequestParser(self)
        self.body: list[bytes] = []
        self.path = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.path = url

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        data, self.body = b"".join(self.body), []
        if self.path.endswith(b"/stats"):
            self.write({"asked": Mock.asked, "most_under_way": Mock.most_under_way})
            return
        body = json.loads(data)
        name = str(body.get("model", ""))
        Mock.asked[name] = Mock.asked.get(name, 0) + 1
        Mock.under_way += 1
        Mock.most_under_way = max(Mock.most_under_way, Mock.under_way)
        asyncio.get_running_loop().call_later(self.latency_s, self.finish, answer_to(body))

    def finish(self, answer: dict[str, Any]) -> None:
        Mock.under_way -= 1
        self.write(answer)

    def write(self, answer: dict[str, Any]) -> None:
        if self.transport.is_closing():
            return
        data = json.dumps(answer).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data)
        self.transport.write(head + data)


def answer_to(body: dict[str, Any]) -> dict[str, Any]:
    """The chat completion for a request's body."""
    text = "\n".join(str(message.get("content", "")) for message in body.get("messages", ()))
    form = body.get("response_format") or {}
    schema = (form.get("json_schema") or {}).get("schema")
    if schema is not None:
        said = json.dumps(instance(schema, schema.get("$defs", {})))
    elif form.get("type") == "json_object" or "JSON" in text:
        said = json.dumps({"reason": "It says so.", "score": 1, "pass": True, "verdict": 1, "value": "pass"})
    else:
        found = _QUESTION.search(text)
        said = f"answer {found[1]}" if found else "yes"
    message = {"role": "assistant", "content": said}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    about = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body.get("model", "")}
    return {**about, "choices": [choice], "usage": usage}


def instance(schema: dict[str, Any], known: dict[str, Any]) -> Any:
    """A small value that fits a JSON Schema: every property, one item, the greatest number allowed."""
    if "$ref" in schema:
        return instance(known[schema["$ref"].rpartition("/")[2]], known)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        good = [value for value in schema["enum"] if value in ("pass", "yes", "good", 1, True, 10, 5)]
        return (good or schema["enum"])[0]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return instance(schema[key][0], known)
    kind = schema.get("type")
    if kind == "object":
        return {name: instance(part, known) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance(schema.get("items", {}), known)]
    if kind in ("integer", "number"):
        return schema.get("maximum", 1)
    return True if kind == "boolean" else None if kind == "null" else "yes"


async def serve(port: int, latency_s: float) -> None:
    """Serve on loopback until killed; says where in one line."""
    server = await asyncio.get_running_loop().create_server(lambda: Mock(latency_s), "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--latency-ms", type=float, default=50.0)
    given = arguments.parse_args()
    uvloop.run(serve(given.port, given.latency_ms / 1000))
