"""Whether an engine answers: with a real token, or at all."""

from __future__ import annotations

import aiohttp
import msgspec

from gateway.engines.errors import EngineFailed, EngineNotReady

_MOST_BYTES = 1_000_000
_REFUSALS = frozenset({400, 401, 403, 404, 422})
_PROMPT = "Hello"


class _Usage(msgspec.Struct):
    completion_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: _Usage


_COMPLETION = msgspec.json.Decoder(_Completion)


async def one_token(
    session: aiohttp.ClientSession, url: str, model: str, *, api_key: str | None, timeout_s: float
) -> None:
    """
    Return once the engine at *url* has generated one token of *model*.

    An engine that says it is well may still be compiling, or hold a model that answers nothing.

    Args:
        url: root, without `/v1`.

    Raises:
        EngineNotReady: no answer within *timeout_s*, or one that says to wait.
        EngineFailed: it refuses the request itself: another model or key is served there.
    """
    body = {"model": model, "prompt": _PROMPT, "max_tokens": 1, "temperature": 0}
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with session.post(
            f"{url}/v1/completions",
            json=body,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            allow_redirects=False,
        ) as answer:
            status = answer.status
            data = await _at_most(answer, _MOST_BYTES)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        message = f"no token of {model} from {url} yet: {type(error).__name__}"
        raise EngineNotReady(message) from error
    if status in _REFUSALS:
        message = f"{url} answers a request for one token of {model} with status {status}"
        raise EngineFailed(message)
    if status != 200:
        message = f"{url} answers with status {status}"
        raise EngineNotReady(message)
    try:
        completion = _COMPLETION.decode(data)
    except msgspec.DecodeError as error:
        message = f"{url} answers 200 with what is no completion"
        raise EngineNotReady(message) from error
    if not completion.choices or completion.usage.completion_tokens < 1:
        message = f"{url} answers without a token"
        raise EngineNotReady(message)


async def alive(session: aiohttp.ClientSession, url: str, *, timeout_s: float) -> bool:
    """Whether `/health` of the engine at *url* answers 200 within *timeout_s*."""
    try:
        async with session.get(
            f"{url}/health", timeout=aiohttp.ClientTimeout(total=timeout_s), allow_redirects=False
        ) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def _at_most(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, or as much of it as passes *limit* by one piece."""
    pieces = bytearray()
    async for piece in answer.content.iter_any():
        pieces += piece
        if len(pieces) > limit:
            break
    return bytes(pieces)
