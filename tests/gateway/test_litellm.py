"""The litellm provider: what works without it, and with it against a real socket."""

import asyncio
import importlib.util
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import (
    InvalidRequest,
    NotReady,
    UnknownPath,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.providers.base import Call
from gateway.providers.litellm import LiteLLM, _without_keys, build
from gateway.providers.options import ProviderOptions
from registry.errors import MissingExtra
from tests.fakes.upstream import KEY, MODEL, Fault, Upstream, upstream

OPTIONS = ProviderOptions(name="litellm", home=Path(), api_key=KEY)
INSTALLED = importlib.util.find_spec("litellm") is not None
needs_litellm = pytest.mark.skipif(not INSTALLED, reason="the extra litellm is not installed")
MESSAGES = [{"role": "user", "content": "What is the answer?"}]
ANSWER = {
    "id": "cmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": MODEL,
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "forty two"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}


def test_without_litellm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(MissingExtra, match=r"cohere needs litellm: pip install 'sluicegate\[litellm\]'"):
        build("claude-x", replace(OPTIONS, name="cohere"))


def test_the_module_does_not_import_litellm() -> None:
    script = "import sys, gateway.providers.litellm; print('litellm' in sys.modules, 'openai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def opened(provider: LiteLLM, path: str = "/v1/chat/completions", **fields: Any) -> Awaitable[Any]:
    body = {"model": "as the client said", "messages": MESSAGES, **fields}
    return provider.open(Call(path, json.dumps(body).encode(), bool(fields.get("stream"))))


@pytest.mark.parametrize("field", ["api_base", "api_key", "base_url", "extra_headers", "mock_response"])
def test_a_client_cannot_steer_litellm(field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{field} is not a field") as caught:
        asyncio.run(_ignore(opened(LiteLLM("m", OPTIONS), **{field: "x"})))
    assert caught.value.param == field


def test_other_paths_and_an_unstarted_provider_are_refused() -> None:
    with pytest.raises(UnknownPath, match="/v1/embeddings"):
        asyncio.run(_ignore(opened(LiteLLM("m", OPTIONS), "/v1/embeddings")))
    with pytest.raises(NotReady):
        asyncio.run(_ignore(opened(LiteLLM("m", OPTIONS))))
    with pytest.raises(InvalidRequest, match="not a JSON object"):
        asyncio.run(_ignore(LiteLLM("m", OPTIONS).open(Call("/v1/chat/completions", b"[]", False))))


async def _ignore(awaitable: Awaitable[object]) -> None:
    await awaitable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("litellm.BadRequestError: OpenAIException - too long", "too long"),
        (
            'litellm.BadRequestError: AnthropicException - {"type":"error","error":{"message":"too big"}}',
            "too big",
        ),
        ("litellm.RateLimitError: RateLimitError: OpenAIException - slow", "slow"),
        ("Incorrect API key provided: my-own-key.", "Incorrect API key provided: [key]."),
        ("bad key sk-abc***xyz given", "bad key [key] given"),
        ("bad abcdef0123456789abcdef0123456789", "bad [key]"),
        ("temperature must be at most 2", "temperature must be at most 2"),
    ],
)
def test_no_key_is_quoted(text: str, expected: str) -> None:
    assert _without_keys(text, "my-own-key") == expected


def through_litellm(scenario: Callable[[LiteLLM, Upstream], Awaitable[None]], **changes: Any) -> None:
    """Run *scenario* with a provider that reaches the fake upstream as an OpenAI-compatible one."""

    async def run(fake: Upstream) -> None:
        options = replace(OPTIONS, base_url=fake.url, **changes)
        provider = build(f"openai/{MODEL}", options)
        await provider.start()
        try:
            await scenario(provider, fake)
        finally:
            await provider.close()

    with upstream() as fake:
        asyncio.run(run(fake))


async def body_of(reply: Any) -> bytes:
    try:
        return b"".join([chunk async for chunk in reply.chunks()])
    finally:
        await reply.close()


@needs_litellm
@pytest.mark.filterwarnings("ignore")  # what litellm and its dependencies warn about is not ours
class TestWithLitellm:
    def test_an_answer_comes_back_in_openais_form(self) -> None:
        async def scenario(provider: LiteLLM, fake: Upstream) -> None:
            fake.faults.append(Fault(raw=json.dumps(ANSWER).encode()))
            reply = await opened(provider, temperature=0.5)
            answer = json.loads(await body_of(reply))
            assert reply.status == 200
            assert answer["choices"][0]["message"]["content"] == "forty two"
            assert answer["choices"][0]["finish_reason"] == "stop"
            assert answer["usage"]["total_tokens"] == 9
            assert fake.seen[0].body == {"model": MODEL, "messages": MESSAGES, "temperature": 0.5}

        through_litellm(scenario)

    def test_a_stream_ends_with_usage_and_done(self) -> None:
        async def scenario(provider: LiteLLM, fake: Upstream) -> None:
            fake.answer = "ha" * 900
            reply = await opened(provider, stream=True, stream_options={"include_usage": True})
            *events, done, end = (await body_of(reply)).decode().split("\n\n")
            assert (done, end) == ("data: [DONE]", "")
            parts = [json.loads(event.removeprefix("data: ")) for event in events]
            text = "".join(c["delta"].get("content") or "" for part in parts for c in part["choices"])
            assert text == fake.answer
            assert parts[-1]["usage"]["completion_tokens"] == 600

        through_litellm(scenario)

    def test_a_refusal_keeps_its_status_and_loses_the_key(self) -> None:
        async def scenario(provider: LiteLLM, fake: Upstream) -> None:
            error = {"error": {"message": f"slow down, {KEY}", "type": "t", "code": "rate_limited"}}
            body = json.dumps(error).encode()
            fake.faults.append(Fault(status=429, body=body, headers={"retry-after": "7"}))
            reply = await opened(provider)
            shown = await body_of(reply)
            assert reply.status == 429
            assert dict(reply.headers)[b"retry-after"] == b"7"
            assert b"slow down" in shown
            assert KEY.encode() not in shown
            wrong = {"error": {"message": f"Incorrect API key provided: {KEY}", "type": "t"}}
            fake.faults.append(Fault(status=401, body=json.dumps(wrong).encode()))
            reply = await opened(provider)
            assert reply.status == 401
            assert json.loads(await body_of(reply))["error"]["message"] == (
                "the provider refused the request with status 401"
            )

        through_litellm(scenario)

    def test_timeouts_and_cuts_are_told_apart(self) -> None:
        async def scenario(provider: LiteLLM, fake: Upstream) -> None:
            fake.faults.append(Fault(silent=True))
            with pytest.raises(UpstreamTimeout):
                await opened(provider)
            fake.faults.append(Fault(stall_after=300))
            with pytest.raises(UpstreamTimeout):
                await body_of(await opened(provider, stream=True))
            fake.faults.append(Fault(cut_after=300))
            with pytest.raises(UpstreamBroken):
                await body_of(await opened(provider, stream=True))

        through_litellm(scenario, first_byte_timeout_s=2, idle_timeout_s=1)

    def test_closing_a_stream_leaves_the_upstream(self) -> None:
        async def scenario(provider: LiteLLM, fake: Upstream) -> None:
            fake.faults.append(Fault(stall_after=300))
            reply = await opened(provider, stream=True)
            async for _chunk in reply.chunks():
                break
            await reply.close()
            assert await asyncio.to_thread(fake.noticed_a_disconnect)

        through_litellm(scenario)

    def test_closing_one_model_leaves_the_others_their_connections(self) -> None:
        async def scenario(provider: LiteLLM, fake: Upstream) -> None:
            for _time in range(2):
                other = build(f"openai/{MODEL}", replace(OPTIONS, base_url=fake.url))
                await other.start()
                assert (await opened(other)).status == 200
                await other.close()
                reply = await opened(provider)
                assert b"forty two" in await body_of(reply)
            await provider.close()
            await provider.start()
            assert (await opened(provider)).status == 200

        through_litellm(scenario)

    def test_a_stream_that_ends_before_its_answer_is_broken(self) -> None:
        async def scenario(provider: LiteLLM, fake: Upstream) -> None:
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
            choice = {"index": 0, "delta": {"role": "assistant", "content": "forty"}, "finish_reason": None}
            event = b"data: " + json.dumps(chunk | {"choices": [choice]}).encode() + b"\n\n"
            fake.faults.append(Fault(raw=event))
            with pytest.raises(UpstreamBroken):
                await body_of(await opened(provider, stream=True))

        through_litellm(scenario)

    def test_nobody_listening_is_unreachable(self) -> None:
        async def run() -> None:
            provider = build(f"openai/{MODEL}", replace(OPTIONS, base_url="http://127.0.0.1:9/v1"))
            await provider.start()
            with pytest.raises(UpstreamError) as caught:
                await opened(provider)
            assert type(caught.value) is UpstreamUnreachable
            await provider.close()

        asyncio.run(run())
