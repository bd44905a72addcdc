"""A judge at work over HTTP: every call cached, priced, paced and counted."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgspec

from evals.cache import Cache, CallAnswer
from evals.cost import Purse
from evals.errors import ScoreFailed
from evals.judging.base import Message
from evals.upstream import Refused, Upstream
from registry.entities import JudgeContent

_SENT = ("temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "stop", "reasoning_effort")
"""Parameters of a judge that are sent with each request; others steer the rubric."""


Read = Callable[[Any], CallAnswer | str]


@dataclass(slots=True)
class Counts:
    """What a judge's calls came to."""

    calls: int = 0
    """Answers that came from the server, not from the cache."""
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Desk:
    """What all benches of one judge share."""

    judge: JudgeContent
    model: str
    """The model's name at its server."""
    upstream: Upstream
    cache: Cache | None
    purse: Purse
    embedder: str = ""
    """The embedding model at the same server; empty where there is none."""
    counts: Counts = field(default_factory=Counts)
    under_way: dict[str, asyncio.Future[CallAnswer]] = field(default_factory=dict)

    def bench(self, epoch: int = 0) -> JudgeBench:
        """The judge for repetition *epoch*."""
        return JudgeBench(self, epoch)


@dataclass(frozen=True, slots=True)
class JudgeBench:
    """A `Bench` over a `Desk`."""

    desk: Desk
    epoch: int = 0

    @property
    def judge(self) -> JudgeContent:
        """The judge: model, rubric, parameters and calibration."""
        return self.desk.judge

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> str:
        """The model's text for *messages*: see `Bench.ask`."""
        own = {key: self.judge.parameters[key] for key in _SENT if key in self.judge.parameters}
        body: dict[str, Any] = {"model": self.desk.model, "temperature": 0, **own, **(parameters or {})}
        body["messages"] = list(messages)
        if schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "schema": dict(schema), "strict": True},
            }
        return (await self._answer("/chat/completions", body, _chat)).text

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text: see `Bench.embed`."""
        if not self.desk.embedder:
            raise ScoreFailed("judge_no_embedder", "this judge names no embedder: set parameters.embedder")
        body = {"model": self.desk.embedder, "input": list(texts), "encoding_format": "float"}
        found = await self._answer("/embeddings", body, _embeddings)
        if len(found.vectors) != len(texts):
            self._fail("judge_bad_answer")
        return found.vectors

    async def _answer(self, path: str, body: dict[str, Any], read: Read) -> CallAnswer:
        """From the cache, from an equal call under way, or from the server."""
        desk = self.desk
        data = msgspec.json.encode(body)  # in the order given: a schema asks for the reason first
        key = hashlib.sha256(f"{desk.judge.model}\0{path}\0{self.epoch}\0".encode() + data).hexdigest()
        kept = desk.cache.get_call(key) if desk.cache else None
        if kept is not None:
            desk.counts.cached += 1
            return kept
        running = desk.under_way.get(key)
        if running is not None:
            return await asyncio.shield(running)
        task = asyncio.ensure_future(self._call(key, path, body, data, read))
        desk.under_way[key] = task
        try:
            return await task
        finally:
            del desk.under_way[key]

    async def _call(self, key: str, path: str, body: dict[str, Any], data: bytes, read: Read) -> CallAnswer:
        desk = self.desk
        most = body.get("max_completion_tokens", body.get("max_tokens"))
        async with desk.purse.hold(desk.judge.model, len(data), most) as hold:
            reply = await desk.upstream.post(path, data)
            if isinstance(reply, Refused):
                self._fail(f"judge_{reply.kind}")
            found = read(reply.body)
            if isinstance(found, str):
                self._fail(found)
            hold.settle(found.prompt_tokens, found.completion_tokens)
        desk.counts.calls += 1
        desk.counts.prompt_tokens += found.prompt_tokens
        desk.counts.completion_tokens += found.completion_tokens
        if desk.cache:
            desk.cache.put_call(key, found)
        return found

    def _fail(self, kind: str) -> NoReturn:
        failures = self.desk.counts.failures
        failures[kind] = failures.get(kind, 0) + 1
        raise ScoreFailed(kind)


def _chat(body: Any) -> CallAnswer | str:  # noqa: ANN401
    """The answer in a chat completion, or the kind of what is wrong with it."""
    try:
        choice = body["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        return "judge_bad_answer"
    if message.get("refusal") or finish == "content_filter":
        return "judge_refused"
    if finish == "length":
        return "judge_truncated"
    if not isinstance(text, str) or not text.strip():
        return "judge_empty_answer"
    return CallAnswer(text, [], *_usage(body))


def _embeddings(body: Any) -> CallAnswer | str:  # noqa: ANN401
    try:
        rows = sorted(body["data"], key=lambda row: row["index"])
        vectors = [[float(x) for x in row["embedding"]] for row in rows]
    except (KeyError, TypeError, ValueError):
        return "judge_bad_answer"
    return CallAnswer("", vectors, *_usage(body))


def _usage(body: Any) -> tuple[int, int, str]:  # noqa: ANN401
    usage = body.get("usage") or {}
    counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) else 0 for count in counts)
    model = body.get("model")
    return prompt, completion, model if isinstance(model, str) else ""
