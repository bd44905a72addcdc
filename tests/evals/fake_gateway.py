"""A gateway that answers like the real one on a real socket, strictly, from scripted knowledge."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "sk-sg-test"
Row = dict[str, Any]


@dataclass
class Release:
    """What the fake serves under one digest."""

    digest: str
    chat: Callable[[str], str] = lambda question: f"I do not know {question}"
    search: Callable[[str], list[str]] = lambda _query: []
    predict: Callable[[Row], str] = lambda _row: "No"


@dataclass
class FakeGateway:
    """Scripted releases and faults; records every request it got."""

    url: str = ""
    releases: dict[str, Release] = field(default_factory=dict)
    """By the model name a client sends."""
    faults: list[Callable[[web.Request], web.StreamResponse | None]] = field(default_factory=list)
    """Taken one a request, first to last; None means answer as usual."""
    requests: list[tuple[str, Any]] = field(default_factory=list)
    """(path, body) of every authorised request."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return error(401, "invalid_api_key")
        body = await request.json()
        self.requests.append((request.path, body))
        if self.faults:
            answer = self.faults.pop(0)(request)
            if answer is not None:
                return answer
        parts = request.path.strip("/").split("/")
        if request.path == "/v1/chat/completions":
            return self._answer(body["model"], body, {"model", "messages"}, self._chat)
        if parts[:2] == ["v1", "vector_stores"] and parts[3] == "search":
            return self._answer(parts[2], body, {"query", "max_num_results"}, self._search)
        if parts[:2] == ["v2", "models"] and parts[3] == "infer":
            return self._answer(parts[2], body, {"inputs"}, self._infer)
        return error(404, "unknown_url")

    def _answer(
        self, model: str, body: Any, keys: set[str], answer: Callable[[Release, Any], Any]
    ) -> web.StreamResponse:
        release = self.releases.get(model)
        if release is None:
            return error(404, "model_not_found")
        if set(body) != keys:
            return error(400, "invalid_request")
        reply = answer(release, body)
        if reply is None:
            return error(400, "invalid_request")
        return web.json_response(reply, headers={"x-sluicegate-digest": release.digest})

    @staticmethod
    def _chat(release: Release, body: Any) -> Any:
        ((message),) = body["messages"]
        if message["role"] != "user" or not message["content"]:
            return None
        text = release.chat(message["content"])
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        return {"object": "chat.completion", "choices": [choice], "usage": usage}

    @staticmethod
    def _search(release: Release, body: Any) -> Any:
        if not 1 <= body["max_num_results"] <= 50:
            return None
        found = release.search(body["query"])[: body["max_num_results"]]
        data = [
            {
                "file_id": document,
                "filename": document,
                "score": 1 / rank,
                "attributes": {"passage_id": f"{document}-{rank}"},
                "content": [{"type": "text", "text": "…"}],
            }
            for rank, document in enumerate(found, 1)
        ]
        return {"object": "vector_store.search_results.page", "data": data, "has_more": False}

    @staticmethod
    def _infer(release: Release, body: Any) -> Any:
        (n,) = {tensor["shape"][0] for tensor in body["inputs"]}
        types = {"BYTES": str, "FP64": int | float}
        for tensor in body["inputs"]:
            kind = types[tensor["datatype"]]
            if len(tensor["data"]) != n or n > 64:
                return None
            if not all(value is None or isinstance(value, kind) for value in tensor["data"]):
                return None
        rows = [{tensor["name"]: tensor["data"][i] for tensor in body["inputs"]} for i in range(n)]
        if any(row.get("poison") for row in rows):
            return None
        labels = [release.predict(row) for row in rows]
        return {
            "model_name": "m",
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [n], "data": labels},
                {
                    "name": "probability",
                    "datatype": "FP64",
                    "shape": [n, 2],
                    "data": [share for _ in labels for share in (0.75, 0.25)],
                },
            ],
        }


def error(status: int, code: str, **headers: str) -> web.Response:
    """An error as OpenAI writes it."""
    body = {"error": {"message": "scripted", "type": "error", "param": None, "code": code}}
    return web.json_response(body, status=status, headers=headers)


def fault(status: int, code: str, **headers: str) -> Callable[[web.Request], web.StreamResponse | None]:
    """A fault that answers with an error."""
    return lambda _request: error(status, code, **headers)


def hang_up(request: web.Request) -> web.StreamResponse | None:
    """A fault that closes the connection without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@contextmanager
def serve() -> Iterator[FakeGateway]:
    """A fake gateway on a free loopback port, in a thread of its own."""
    fake = FakeGateway()
    loop = asyncio.new_event_loop()
    started = threading.Event()
    runner: web.AppRunner | None = None

    async def start() -> None:
        nonlocal runner
        application = web.Application()
        application.router.add_post("/{path:.*}", fake.handle)
        runner = web.AppRunner(application, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        fake.url = f"http://{host}:{port}"

    def work() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(start())
        started.set()
        loop.run_forever()

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(10)
    try:
        yield fake
    finally:
        assert runner is not None
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
