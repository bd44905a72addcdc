"""
Any upstream that speaks OpenAI's dialect: OpenAI itself, Azure, Gemini, Mistral, Groq, OpenRouter, Together,
vLLM, SGLang, TGI, Ollama.

The body goes out as the relay made it and comes back as the upstream sent it, but for the key in a refusal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any
from urllib.parse import urlsplit

from gateway.errors import UpstreamUnreachable
from gateway.providers.base import Call, Reply
from gateway.providers.options import ProviderOptions
from gateway.providers.rotating import RotatingKey
from gateway.transport import Stats, TlsOptions, open_transport
from gateway.transport.base import Headers
from registry.errors import BadSettings

BASE_URLS = {
    "openai": "https://api.openai.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "together": "https://api.together.xyz/v1",
    "ollama": "http://127.0.0.1:11434/v1",
    "sglang": "http://127.0.0.1:30000/v1",
    "tgi": "http://127.0.0.1:8080/v1",
    "vllm": "http://127.0.0.1:8000/v1",
}
"""Where each provider is when nothing else is said; each resource of Azure has its own place."""
NEEDED_KEYS = {
    "openai": "OPENAI_API_KEY",
    "azure": "AZURE_OPENAI_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistral": "MISTRAL_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "together": "TOGETHER_API_KEY",
}
"""Provider that does not answer without a key → the environment variable its own tools read it from."""
_KEY_REFUSED = 401
_AZURE_API = "/openai/v1"
_MOST_OF_A_REFUSAL = 64_000
"""Bytes of a refusal that are read; its reason is told at its start."""
_LEAST_KEY = 8
"""Bytes of the shortest key that is one; servers on one's own machine take any word for a key."""


def build(model: str, options: ProviderOptions) -> OpenAI:
    """
    A provider for *model* at `options.base_url`, or at the provider's usual address.

    Raises:
        BadSettings: there is no address, or it is not an http or https URL; or the provider's own API has no
            key.
    """
    url = (options.base_url or BASE_URLS.get(options.name, "")).rstrip("/")
    if not url and options.name == "azure":
        message = f"azure/{model} needs an address: set AZURE_OPENAI_ENDPOINT to that of your resource"
        raise BadSettings(message)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"gateway.upstreams.{options.name}.base_url {url!r} is not an http or https URL"
        raise BadSettings(message)
    if options.name == "azure" and not parts.path:
        url += _AZURE_API
    if options.name in NEEDED_KEYS and not options.api_key and url == BASE_URLS.get(options.name, url):
        message = f"{options.name}/{model} needs a key: set {NEEDED_KEYS[options.name]} for the gateway"
        raise BadSettings(message)
    return OpenAI(model, url, options)


def _headers(name: str, key: str | None) -> Headers:
    headers = [(b"content-type", b"application/json"), (b"accept", b"*/*")]
    if key:
        given = key.encode()
        headers.append((b"api-key", given) if name == "azure" else (b"authorization", b"Bearer " + given))
    return tuple(headers)


class OpenAI:
    """One upstream and its pool of connections. Owned by one event loop."""

    def __init__(self, model: str, url: str, options: ProviderOptions) -> None:
        """Relay to *url*, the API's root; *model* is only told in errors and `status`."""
        self._model = model
        self._url = url
        self._name = options.name
        tls = TlsOptions(options.ca_file, options.client_certificate)
        self._transport = open_transport(options, options.http_client, options.proxy, tls)
        self._rotating = options.rotating
        self._key: str | None = None
        self._secret: bytes | None = None
        self._headers = _headers(self._name, None)
        self._use(options.api_key)
        self._closed = False

    async def start(self) -> None:
        """Nothing to wait for: connections are made when requests need them."""

    def open(self, call: Call) -> Coroutine[Any, Any, Reply]:
        """
        Relay *call*.

        Raises:
            UpstreamError: no connection, no answer in time, or something that is not HTTP.
        """
        if self._closed:
            message = f"{self._name}/{self._model} was closed; ask again"
            raise UpstreamUnreachable(message)
        url = self._url + call.path.removeprefix("/v1")
        waiting = (
            self._transport.request("POST", url, self._headers, call.body, call.trace)
            if self._rotating is None
            else self._open_again(url, call, self._rotating)
        )
        return waiting if self._secret is None else self._concealing(waiting)

    async def _open_again(self, url: str, call: Call, rotating: RotatingKey) -> Reply:
        """As `open`, with the newest key; once more where the one that was used has been replaced."""
        key = rotating.current()
        self._use(key)
        reply = await self._transport.request("POST", url, self._headers, call.body, call.trace)
        if reply.status != _KEY_REFUSED or not await rotating.refused(key):
            return reply
        await reply.close()
        self._use(rotating.known)
        return await self._transport.request("POST", url, self._headers, call.body, call.trace)

    async def _concealing(self, waiting: Coroutine[Any, Any, Reply]) -> Reply:
        """The reply that is waited for; where it is a refusal, without the key."""
        reply = await waiting
        if reply.status < 400 or self._secret is None:
            return reply
        return _Refusal(reply, self._secret)

    def _use(self, key: str | None) -> None:
        if key != self._key:
            self._key, self._headers = key, _headers(self._name, key)
            secret = (key or "").encode()
            self._secret = secret if len(secret) >= _LEAST_KEY else None

    async def close(self) -> None:
        """Close every connection; running replies are cut. Idempotent."""
        self._closed = True
        await self._transport.close()

    def connections(self) -> Stats:
        """Counts of its pool."""
        return self._transport.stats()

    def status(self) -> dict[str, Any]:
        """Where it relays to; ready unless closed: whether the upstream answers shows with each call."""
        return {"ready": not self._closed, "host": urlsplit(self._url).netloc.rpartition("@")[2]}


class _Refusal:
    """An upstream's refusal. Some quote the key that they refuse."""

    __slots__ = ("_key", "_reply", "headers", "status")

    def __init__(self, reply: Reply, key: bytes) -> None:
        self.status: int = reply.status
        self.headers: Sequence[tuple[bytes, bytes]] = reply.headers
        self._reply = reply
        self._key = key

    async def chunks(self) -> AsyncIterator[bytes]:
        body = bytearray()
        async for chunk in self._reply.chunks():
            body += chunk
            if len(body) > _MOST_OF_A_REFUSAL:
                break
        yield bytes(body).replace(self._key, b"[key]")

    async def close(self) -> None:
        await self._reply.close()
