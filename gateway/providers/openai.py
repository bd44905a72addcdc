"""
Any upstream that speaks OpenAI's dialect: OpenAI itself, vLLM, Ollama.

The body goes out as the relay made it and comes back as the upstream sent it.
"""

from __future__ import annotations

from collections.abc import Coroutine
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
    "vllm": "http://127.0.0.1:8000/v1",
    "ollama": "http://127.0.0.1:11434/v1",
}
"""Where each provider is when nothing else is said."""
_NEEDS_KEY = frozenset({"openai"})
_KEY_REFUSED = 401


def build(model: str, options: ProviderOptions) -> OpenAI:
    """
    A provider for *model* at `options.base_url`, or at the provider's usual address.

    Raises:
        BadSettings: the address is not an http or https URL, or OpenAI's own API has no key.
    """
    url = (options.base_url or BASE_URLS.get(options.name, "")).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"gateway.upstreams.{options.name}.base_url {url!r} is not an http or https URL"
        raise BadSettings(message)
    if options.name in _NEEDS_KEY and not options.api_key and url == BASE_URLS[options.name]:
        message = f"{options.name}/{model} needs a key: set {options.name.upper()}_API_KEY for the gateway"
        raise BadSettings(message)
    return OpenAI(model, url, options)


def _headers(key: str | None) -> Headers:
    headers = [(b"content-type", b"application/json"), (b"accept", b"*/*")]
    if key:
        headers.append((b"authorization", b"Bearer " + key.encode()))
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
        self._key = options.api_key
        self._headers = _headers(options.api_key)
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
        if self._rotating is not None:
            return self._open_again(url, call, self._rotating)
        return self._transport.request("POST", url, self._headers, call.body, call.trace)

    async def _open_again(self, url: str, call: Call, rotating: RotatingKey) -> Reply:
        """As `open`, with the newest key; once more where the one that was used has been replaced."""
        key = self._use(rotating.current())
        reply = await self._transport.request("POST", url, self._headers, call.body, call.trace)
        if reply.status != _KEY_REFUSED or not await rotating.refused(key):
            return reply
        await reply.close()
        self._use(rotating.known)
        return await self._transport.request("POST", url, self._headers, call.body, call.trace)

    def _use(self, key: str) -> str:
        if key != self._key:
            self._key, self._headers = key, _headers(key)
        return key

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
