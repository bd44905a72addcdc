"""
Upstreams that speak an API of their own: Anthropic's Messages, and OpenAI's Responses.

A chat completion is turned into their words, and what they answer back into a chat completion.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from gateway.errors import InvalidRequest, UnknownPath, UpstreamTooLarge, UpstreamUnreachable
from gateway.providers import messages_back, responses_back
from gateway.providers.base import Call, Reply
from gateway.providers.chunks import Json
from gateway.providers.local_reply import JSON_HEADERS, SSE_HEADERS
from gateway.providers.messages_out import to_messages
from gateway.providers.options import ProviderOptions
from gateway.providers.responses_out import to_responses
from gateway.transport import Stats, TlsOptions, open_transport
from registry.errors import BadSettings

CHAT = "/v1/chat/completions"
VERSION = b"2023-06-01"
"""Of Anthropic's API."""
_CHAT = msgspec.json.Decoder(dict[str, Any]).decode
_HINTS = frozenset({b"retry-after", b"retry-after-ms", b"x-should-retry"})
_MOST_ERROR_BYTES = 64_000
_KEY_REFUSED = 401
_CLAUDE = re.compile(r"claude-[a-z]+-(\d+)(?:[-.](\d{1,2})(?!\d))?")


class Turning(Protocol):
    """Turns one answer's stream."""

    def push(self, data: bytes) -> bytes:
        """The chunks for what *data* completes. Raises UpstreamBroken."""
        ...

    def end(self) -> None:
        """The stream has ended. Raises UpstreamBroken where its answer had not."""
        ...


@dataclass(frozen=True, slots=True)
class Api:
    """One API: where it is asked, and how it is turned."""

    path: str
    """Below the root of the API."""
    root: str
    """The API's root where nothing else is said."""
    key: str
    """The environment variable that its makers' own tools read the key from."""
    headers: Callable[[str], Sequence[tuple[bytes, bytes]]]
    """Headers for a key."""
    asked: Callable[[Json, str], Json]
    """The body for a chat request, and the model's name."""
    whole: Callable[[bytes, int], bytes]
    stream: Callable[[int], Turning]
    error: Callable[[int, bytes], bytes] | None = None
    """None where errors have OpenAI's shape already."""


def _to_claude(chat: Json, model: str) -> Json:
    """Models from 4.6 on think as much as they like; from 4.7 on nobody sets how they sample."""
    found = _CLAUDE.search(model)
    version = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
    return to_messages(chat, adaptive=version >= (4, 6), sampling=version < (4, 7))


APIS = {
    "anthropic": Api(
        "/messages",
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        lambda key: ((b"x-api-key", key.encode()), (b"anthropic-version", VERSION)),
        _to_claude,
        messages_back.whole,
        messages_back.Stream,
        messages_back.error,
    ),
    "responses": Api(
        "/responses",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        lambda key: ((b"authorization", b"Bearer " + key.encode()),),
        lambda chat, _model: to_responses(chat),
        responses_back.whole,
        responses_back.Stream,
    ),
}
"""Provider → its API."""


def build(model: str, options: ProviderOptions) -> Native:
    """
    A provider for *model* at `options.base_url`, or at the API's own address.

    Raises:
        BadSettings: the address is not an http or https URL, or the API's own address has no key.
    """
    api = APIS[options.name]
    url = (options.base_url or api.root).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        message = f"gateway.upstreams.{options.name}.base_url {url!r} is not an http or https URL"
        raise BadSettings(message)
    if not parts.path:
        url += "/v1"  # Anthropic's own tools are told the place without the version
    if not options.api_key and url == api.root:
        message = f"{options.name}/{model} needs a key: set {api.key} for the gateway"
        raise BadSettings(message)
    return Native(model, url, options, api)


class Native:
    """One upstream and its pool of connections. Owned by one event loop."""

    def __init__(self, model: str, url: str, options: ProviderOptions, api: Api) -> None:
        """Ask *url*, the API's root, in the words of *api*."""
        self._model = model
        self._url = url
        self._name = options.name
        self._api = api
        tls = TlsOptions(options.ca_file, options.client_certificate)
        self._transport = open_transport(options, options.http_client, options.proxy, tls)
        self._rotating = options.rotating
        self._key = options.api_key or ""
        self._headers = self._with(self._key)
        self._most_bytes = options.max_response_bytes
        self._closed = False

    async def start(self) -> None:
        """Nothing to wait for: connections are made when requests need them."""

    async def open(self, call: Call) -> Reply:
        """
        Send *call* and wait for the head of the answer.

        Raises:
            UnknownPath: not a chat completion.
            InvalidRequest: what the API cannot carry.
            UpstreamError: no connection, no answer in time, or something that is not HTTP.
        """
        if self._closed:
            message = f"{self._name}/{self._model} was closed; ask again"
            raise UpstreamUnreachable(message)
        if call.path != CHAT:
            message = f"the provider {self._name} answers {CHAT}, not {call.path}"
            raise UnknownPath(message)
        try:
            chat = _CHAT(call.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest("the request is not a JSON object") from error
        body = msgspec.json.encode(self._api.asked(chat, self._model))
        reply = await self._post(body, call.trace)
        return Turned(
            reply, self._api, int(time.time()), is_stream=call.stream, most=self._most_bytes,
            secret=(self._rotating.known if self._rotating is not None else self._key).encode(),
        )  # fmt: skip

    async def _post(self, body: bytes, trace: bytes) -> Reply:
        """The upstream's answer; asked once more where the key that was used has been replaced."""
        url, rotating = self._url + self._api.path, self._rotating
        if rotating is None:
            return await self._transport.request("POST", url, self._headers, body, trace)
        key = rotating.current()
        reply = await self._transport.request("POST", url, self._with(key), body, trace)
        if reply.status != _KEY_REFUSED or not await rotating.refused(key):
            return reply
        await reply.close()
        return await self._transport.request("POST", url, self._with(rotating.known), body, trace)

    def _with(self, key: str) -> Sequence[tuple[bytes, bytes]]:
        plain = ((b"content-type", b"application/json"), (b"accept", b"*/*"))
        return (*plain, *self._api.headers(key))

    async def close(self) -> None:
        """Close every connection; running replies are cut. Idempotent."""
        self._closed = True
        await self._transport.close()

    def connections(self) -> Stats:
        """Counts of its pool."""
        return self._transport.stats()

    def status(self) -> dict[str, Any]:
        """Where it asks; ready unless closed: whether the upstream answers shows with each call."""
        return {"ready": not self._closed, "host": urlsplit(self._url).netloc.rpartition("@")[2]}


class Turned:
    """A reply in the words of chat completions."""

    def __init__(
        self, reply: Reply, api: Api, created_s: int, *, is_stream: bool, most: int, secret: bytes = b""
    ) -> None:
        """
        Turn *reply*.

        Args:
            created_s: seconds since 1970.
            most: bytes of a whole answer.
            secret: the key, which some refusals quote.
        """
        self._secret = secret
        self.status = reply.status
        self._reply = reply
        self._api = api
        self._created_s = created_s
        self._most = most
        self._is_stream = is_stream and 200 <= reply.status < 300
        hints = tuple(header for header in reply.headers if header[0] in _HINTS)
        self.headers: Sequence[tuple[bytes, bytes]] = (
            *(SSE_HEADERS if self._is_stream else JSON_HEADERS),
            *hints,
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """
        The body, once.

        Raises:
            UpstreamError: the upstream broke off, or what it says cannot be understood.
        """
        if self._is_stream:
            stream = self._api.stream(self._created_s)
            async for chunk in self._reply.chunks():
                turned = stream.push(chunk)
                if turned:
                    yield turned
            stream.end()
            return
        is_error = not 200 <= self.status < 300
        most = _MOST_ERROR_BYTES if is_error else self._most
        body = bytearray()
        async for chunk in self._reply.chunks():
            body += chunk
            if len(body) > most:
                if is_error:
                    break
                raise UpstreamTooLarge
        if not is_error:
            yield self._api.whole(bytes(body), self._created_s)
        else:
            said = bytes(body).replace(self._secret, b"[key]") if self._secret else bytes(body)
            yield self._api.error(self.status, said) if self._api.error else said

    async def close(self) -> None:
        """Give the upstream up, now; safe at any time and more than once."""
        await self._reply.close()
