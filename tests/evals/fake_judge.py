"""An OpenAI-compatible server for judges on a real socket: strict about requests, scripted in its answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.evals.fake_gateway import error

KEY = "sk-judge-test"
KNOWN = {
    "model", "messages", "temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "stop",
    "response_format", "n", "stream", "user",
}  # fmt: skip
"""The request fields it knows; any other is a 400, as of a strict server."""


@dataclass
class FakeJudge:
    """Answers with what `say` returns for a request's body; keeps every body it got."""

    say: Callable[[Any], str] = lambda _body: "yes"
    embed: Callable[[str], list[float]] = lambda text: [float(len(text)), 1.0]
    delay_s: float = 0.0
    faults: list[Callable[[Any], web.StreamResponse | None]] = field(default_factory=list)
    """Taken one a request, first to last; None means answer as usual."""
    url: str = ""
    """Ends in /v1."""
    bodies: list[Any] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return error(401, "invalid_api_key")
        body = await request.json()
        self.bodies.append(body)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self.faults:
                answer = self.faults.pop(0)(body)
                if answer is not None:
                    return answer
            return self._answer(request.path, body)
        finally:
            self.under_way -= 1

    def _answer(self, path: str, body: Any) -> web.StreamResponse:
        if path == "/v1/embeddings":
            rows = [
                {"object": "embedding", "index": i, "embedding": self.embed(t)}
                for i, t in enumerate(body["input"])
            ]
            usage = {"prompt_tokens": len(rows), "total_tokens": len(rows)}
            return web.json_response({"object": "list", "model": body["model"], "data": rows, "usage": usage})
        if path != "/v1/chat/completions":
            return error(404, "unknown_url")
        messages = body.get("messages")
        if set(body) - KNOWN or not messages or not all(set(m) == {"role", "content"} for m in messages):
            return error(400, "invalid_request")
        return chat(self.say(body), body["model"])


def chat(text: str | None, model: str = "judge", finish: str = "stop") -> web.Response:
    """A chat completion that says *text*."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    return web.json_response(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [choice],
            "usage": usage,
        }
    )


@contextmanager
def serve_judge(judge: FakeJudge | None = None) -> Iterator[FakeJudge]:
    """A judge on a free port, in a thread of its own."""
    judge = judge or FakeJudge()
    loop = asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        application = web.Application(client_max_size=64_000_000)
        application.router.add_post("/{path:.*}", judge.handle)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    judge.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield judge
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
