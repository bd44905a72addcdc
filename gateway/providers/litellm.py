"""
Providers whose dialect this gateway does not speak, such as Cohere's, through the litellm SDK.

litellm costs seconds to import and milliseconds a call, so it is imported when a release first
starts, and only then. It is kept offline: no price list, no telemetry, no retries of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import msgspec

from gateway.errors import (
    InvalidRequest,
    NotReady,
    UnknownPath,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamUnreachable,
)
from gateway.providers.base import Call, Reply
from gateway.providers.local_reply import DONE, SSE_HEADERS, LocalReply, error_reply
from gateway.providers.options import ProviderOptions
from registry.errors import MissingExtra
from registry.parse import nearest
from registry.plugins import EXTRA_OF, is_installed

OFFLINE: Mapping[str, str] = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    # By default 100 equal pieces of text end a stream with an error.
    "REPEATED_STREAMING_CHUNK_LIMIT": "1000000000",
}
"""Switches that litellm reads while it is imported."""

_LISTENERS = (
    "callbacks", "input_callback", "success_callback", "failure_callback", "service_callback",
    "_async_input_callback", "_async_success_callback", "_async_failure_callback",
)  # fmt: skip
"""Lists of what litellm tells each call to; they stay empty."""
PARAMETERS = frozenset(
    (
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "service_tier",
        "stop",
        "stream_options",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    )
)
"""
Fields of a request that are passed on.

All others are refused: litellm would take `api_base`, `extra_headers` or `mock_response` from a
client as readily as from us, and send the provider's key where the client says.
"""
_KEY_REFUSED = 401
_LOGINS: Mapping[str, tuple[str, ...]] = {"bedrock": ("botocore",), "vertex_ai": ("google.auth",)}
"""Modules that litellm imports late, to make the provider's credentials of what the environment holds."""
_ROUTING = frozenset(("model", "stream"))
_KEY_LIKE = re.compile(r"[\w.*-]*(?:\*{3,}|(?:sk|key|token|AIza)[-_])[\w.*-]+|(?=[\w-]*\d)[\w-]{24,200}")
_EXPLAINED = frozenset((400, 404, 408, 409, 413, 422, 429))
"""Statuses whose reason is the client's business; what others say may concern our own account."""


def build(model: str, options: ProviderOptions) -> LiteLLM:
    """
    A provider for `bedrock/…`, `vertex_ai/…`, or `litellm/<as litellm calls it>`.

    Raises:
        MissingExtra: litellm, or what it needs to log in at this provider, is not installed.
    """
    extra = EXTRA_OF.get(options.name, "litellm")
    for module in ("litellm", *_LOGINS.get(options.name, ())):
        if not is_installed(module):
            message = f"the provider {options.name} needs {module}: pip install 'sluicegate[{extra}]'"
            raise MissingExtra(message)
    return LiteLLM(model if options.name == "litellm" else f"{options.name}/{model}", options)


class LiteLLM:
    """Calls one model through litellm. Owned by one event loop."""

    def __init__(self, model: str, options: ProviderOptions) -> None:
        """*model* is litellm's own name of it, such as `anthropic/claude-sonnet-4-5`."""
        self._model = model
        self._options = options
        self._sdk: Any = None

    async def start(self) -> None:
        """Import litellm, in a thread: it takes seconds. Idempotent."""
        if self._sdk is None:
            self._sdk = await asyncio.to_thread(_import_offline)
        _STARTED.add(self)

    async def open(self, call: Call) -> Reply:
        """
        The answer to a chat completion, in OpenAI's form; a refusal by the provider keeps its status.

        Raises:
            UnknownPath: not a chat completion.
            InvalidRequest: a field that is not passed on; the message offers the nearest.
            NotReady: not started.
            UpstreamError: no answer could be had; its subclass says why.
        """
        if call.path != "/v1/chat/completions":
            message = f"the provider {self._options.name} answers /v1/chat/completions, not {call.path}"
            raise UnknownPath(message)
        arguments = _arguments(call.body)
        if self._sdk is None:
            raise NotReady
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.total_timeout_s
        rotating = self._options.rotating
        key = rotating.current() if rotating is not None else self._options.api_key
        try:
            async with asyncio.timeout(self._options.first_byte_timeout_s):
                answer = await self._sdk.acompletion(
                    model=self._model,
                    api_key=key,
                    api_base=self._options.base_url,
                    stream=call.stream,
                    timeout=self._options.total_timeout_s,
                    max_retries=0,
                    num_retries=0,
                    **arguments,
                )
                if call.stream:
                    # Some of its providers are asked only once the first piece is.
                    stream = aiter(answer)
                    first = await anext(stream, None)
        except Exception as error:  # noqa: BLE001 - litellm raises what each provider's code raises
            if (
                rotating is not None
                and key is not None
                and getattr(error, "status_code", None) == _KEY_REFUSED
            ):
                await rotating.refused(key)  # for those who ask next
            return self._refusal(error, key)
        if call.stream:
            return _StreamReply(answer, _after(first, stream), self._options, deadline)
        body = answer.model_dump_json(exclude_none=True).encode()
        if len(body) > self._options.max_response_bytes:
            raise UpstreamTooLarge
        return LocalReply(200, (body,))

    async def close(self) -> None:
        """Close litellm's connections, which all its models share, with the last of them; idempotent."""
        sdk, self._sdk = self._sdk, None
        _STARTED.discard(self)
        if sdk is not None and not _STARTED:
            with suppress(Exception):
                await sdk.close_litellm_async_clients()
            sdk.in_memory_llm_clients_cache.flush_cache()  # it would hand out closed ones

    def status(self) -> dict[str, Any]:
        """Ready once litellm is imported; whether the provider answers shows with each call."""
        return {"ready": self._sdk is not None}

    def _refusal(self, error: Exception, key: str | None) -> Reply:
        """The provider's refusal as a reply, or the error to raise where there was no answer."""
        if type(error).__name__ == "MidStreamFallbackError":
            # So litellm wraps what the provider said to a stream's request.
            error = getattr(error, "original_exception", None) or error
        status = getattr(error, "status_code", None)
        headers = getattr(error, "litellm_response_headers", None)
        if not isinstance(status, int) or status < 400 or type(error).__name__ == "Timeout":
            raise _failure(error) from None  # the cause may quote the key
        if status >= 500 and headers is None:
            # litellm makes up a 500 for what never reached the provider, but no headers with it.
            raise _failure(error) from None
        message = f"the provider refused the request with status {status}"
        if status in _EXPLAINED:
            message = _without_keys(str(getattr(error, "message", "")), key) or message
        code = getattr(error, "code", None)
        family = "invalid_request_error" if status < 500 else "server_error"
        reply = error_reply(status, message, family, code if isinstance(code, str) else None)
        wait = (headers or {}).get("retry-after")
        if wait:
            reply.headers = (*reply.headers, (b"retry-after", str(wait).encode()))
        return reply


_STARTED: WeakSet[LiteLLM] = WeakSet()
"""Models that use litellm now: it keeps its connections for the process, not for the model."""


class _StreamReply:
    """litellm's chunks as server-sent events."""

    def __init__(
        self,
        stream: Any,  # noqa: ANN401 - litellm's own
        pieces: AsyncIterator[Any],
        options: ProviderOptions,
        deadline: float,
    ) -> None:
        self.status = 200
        self.headers: Sequence[tuple[bytes, bytes]] = SSE_HEADERS
        self._stream = stream
        self._pieces = pieces
        self._options = options
        self._deadline = deadline

    async def chunks(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        received = 0
        while True:
            try:
                until = min(loop.time() + self._options.idle_timeout_s, self._deadline)
                async with asyncio.timeout_at(until):
                    chunk = await anext(self._pieces)
            except StopAsyncIteration:
                break
            except Exception as error:  # noqa: BLE001 - litellm raises what each provider's code raises
                raise _failure(error, begun=True) from None  # the cause may quote the key
            if self._is_made_up(chunk):
                raise UpstreamBroken
            event = b"data: " + chunk.model_dump_json(exclude_none=True).encode() + b"\n\n"
            received += len(event)
            if received > self._options.max_response_bytes:
                raise UpstreamTooLarge
            yield event
        yield DONE

    async def close(self) -> None:
        with suppress(Exception):
            await self._stream.aclose()

    def _is_made_up(self, chunk: Any) -> bool:  # noqa: ANN401 - litellm's own
        """Whether *chunk* says that the answer is complete and the provider did not: it ended too early."""
        reasons = ("received_finish_reason", "intermittent_finish_reason")
        if any(getattr(self._stream, name, "unknown") is not None for name in reasons):
            return False
        return any(choice.finish_reason is not None for choice in chunk.choices)


async def _after(first: object, rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """*first*, unless it is None, then *rest*."""
    if first is not None:
        yield first
    async for piece in rest:
        yield piece


def _import_offline() -> Any:  # noqa: ANN401 - a module without types
    for name, value in OFFLINE.items():
        os.environ.setdefault(name, value)
    sdk: Any = importlib.import_module("litellm")
    sdk.telemetry = False
    sdk.suppress_debug_info = True
    sdk.disable_streaming_logging = True  # nobody reads its logs; usage is read from the stream here
    for name in _LISTENERS:
        # Who listens is told prompts and answers. To have them hidden instead would copy each of them.
        setattr(sdk, name, [])
    return sdk


def _arguments(body: bytes) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        message = f"the request is not a JSON object: {error}"
        raise InvalidRequest(message) from error
    for field in request:
        if field not in PARAMETERS | _ROUTING:
            message = f"{field} is not a field that this provider passes on{nearest(field, PARAMETERS)}"
            raise InvalidRequest(message, param=field)
    return {field: value for field, value in request.items() if field in PARAMETERS and value is not None}


def _failure(error: Exception, *, begun: bool = False) -> UpstreamError:
    """What it means that litellm raised *error* and the provider gave no whole answer."""
    if isinstance(error, TimeoutError) or type(error).__name__ == "Timeout":
        return UpstreamTimeout()
    if begun:
        return UpstreamBroken()
    if "Connection error" in str(error) or type(error).__name__ == "APIConnectionError":
        return UpstreamUnreachable()
    return UpstreamError(f"litellm failed with {type(error).__name__}")


class _Inner(msgspec.Struct):
    message: str


class _Wrapped(msgspec.Struct):
    error: _Inner | None = None
    message: str = ""


def _without_keys(text: str, key: str | None) -> str:
    """What the provider said, without litellm's prefix and anything that looks like a credential."""
    text = re.sub(r"^litellm\.\w+: (?:\w+: )?(?:\w+ - )?", "", text)
    with suppress(msgspec.MsgspecError):
        told = msgspec.json.decode(text, type=_Wrapped)
        text = told.error.message if told.error is not None else told.message or text
    if key:
        text = text.replace(key, "[key]")
    return _KEY_LIKE.sub("[key]", text)[:1000]
