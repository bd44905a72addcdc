"""
A server of the Model Context Protocol that the gateway calls: its sessions, its tools, its answers.

Source: Model Context Protocol, "Transports: Streamable HTTP" and "Lifecycle", revisions 2024-11-05 to
2025-11-25. Deviations: a stream that breaks off is not resumed, and no stream of the server's own (`GET`) is
opened, so that nothing is known of a tool list that changed until it is asked for again.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from gateway.dataplane import sse
from gateway.errors import (
    UpstreamBroken,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTooLarge,
)
from gateway.transport import HttpClient, HttpReply

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions of the protocol that are spoken, by both sides of the gateway."""
Message = dict[str, Any]
_SESSION_ID = re.compile(rb"[\x21-\x7e]{1,512}")
_MOST_PAGES = 50
_GOODBYE_S = 2.0
_MOST_GOODBYES = 64
_MOST_MESSAGES = 10_000
_INVALID_PARAMS, _NO_METHOD = -32602, -32601
_ANY = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Where a server is, and what bounds a request to it."""

    name: str
    url: str
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 60.0
    idle_timeout_s: float = 60.0
    total_timeout_s: float = 60.0
    max_response_bytes: int = 4_000_000
    max_sessions: int = 256
    """Sessions kept at the server; the one that was not used for longest is ended first."""


class _Session:
    """One account's session at the server."""

    __slots__ = ("id", "lock", "ready", "revision", "users")

    def __init__(self) -> None:
        self.id: bytes | None = None
        self.revision = b""
        self.ready = False
        self.users = 0
        self.lock = asyncio.Lock()


class _SessionLostError(Exception):
    """The server does not know the session any more."""


class McpClient:
    """
    Requests to one server, in one session for each account. Owned by one event loop.

    A session is begun at its first request, and again when the server has forgotten it; that request is
    then sent once more, as the server says that it did nothing. No other request is repeated.
    """

    def __init__(
        self, options: ClientOptions, transport: HttpClient, key: Callable[[], Awaitable[str | None]]
    ) -> None:
        """*key* is asked before each request what `Authorization: Bearer` holds."""
        self._options = options
        self._transport = transport
        self._key = key
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._last_id = 0
        self._goodbyes: set[asyncio.Task[None]] = set()

    @property
    def sessions(self) -> int:
        """How many sessions are kept."""
        return len(self._sessions)

    async def request(self, account: str, method: str, params: Message, trace: bytes = b"") -> Message:
        """
        The result of *method*; *trace* is a valid `traceparent` to send along.

        Raises:
            UpstreamError: no answer could be had; `UpstreamRefused` where the server answered with an error.
        """
        async with self._session(account) as session:
            for _ in range(2):
                async with session.lock:
                    if not session.ready:
                        await self._open(session)
                used = session.id
                try:
                    return await self._ask(session, method, params, trace)
                except _SessionLostError:
                    if session.id == used:
                        session.ready, session.id = False, None
        message = f"the tool server {self._options.name!r} forgets each session at once"
        raise UpstreamBroken(message)

    async def pages(self, account: str, method: str, of: str) -> list[Any]:
        """
        Everything that a method which answers in pages lists under *of*.

        Raises:
            UpstreamError: as `request`, or there is no end of pages.
        """
        found: list[Any] = []
        params: Message = {}
        for _ in range(_MOST_PAGES):
            page = await self.request(account, method, params)
            items, cursor = page.get(of), page.get("nextCursor")
            if not isinstance(items, list) or not isinstance(cursor, str | None):
                raise self._broken(f"{method} has no list of {of}")
            found += items
            if cursor is None:
                return found
            params = {"cursor": cursor}
        message = f"the tool server {self._options.name!r} has more than {_MOST_PAGES} pages of {of}"
        raise UpstreamTooLarge(message)

    async def close(self) -> None:
        """End every session, for at most some seconds, and close every connection. Idempotent."""
        for session in self._sessions.values():
            self._say_goodbye(session)
        self._sessions.clear()
        if self._goodbyes:
            _, late = await asyncio.wait(self._goodbyes, timeout=_GOODBYE_S)
            for task in late:
                task.cancel()
        await self._transport.close()

    @asynccontextmanager
    async def _session(self, account: str) -> AsyncIterator[_Session]:
        session = self._sessions.get(account)
        if session is None:
            session = self._sessions[account] = _Session()
            self._evict()
        self._sessions.move_to_end(account)
        session.users += 1
        try:
            yield session
        finally:
            session.users -= 1

    def _evict(self) -> None:
        spare = len(self._sessions) - self._options.max_sessions
        for account, session in list(self._sessions.items())[:-1]:
            if spare <= 0:
                return
            if not session.users:
                del self._sessions[account]
                self._say_goodbye(session)
                spare -= 1

    async def _open(self, session: _Session) -> None:
        about = {
            "protocolVersion": VERSIONS[-1],
            "capabilities": {},
            "clientInfo": {"name": "sluicegate", "version": _own_version()},
        }
        session.id, session.revision = None, b""
        result = await self._ask(session, "initialize", about)
        revision = result.get("protocolVersion")
        if revision not in VERSIONS:
            raise self._broken(f"it speaks revision {str(revision)[:32]!r}, not one of {', '.join(VERSIONS)}")
        session.revision = str(revision).encode()
        await self._tell(session, "notifications/initialized", None)
        session.ready = True

    async def _ask(self, session: _Session, method: str, params: Message, trace: bytes = b"") -> Message:
        self._last_id += 1
        identity = self._last_id
        message = {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}
        try:
            reply = await self._post(session, message, trace)
            try:
                if not 200 <= reply.status < 300:
                    raise self._refused(reply, session)
                if method == "initialize":
                    session.id = self._session_id(reply)
                return await self._answer(session, reply, identity)
            finally:
                await reply.close()
        except (asyncio.CancelledError, UpstreamTimeout):
            if method != "initialize":
                gone = {"requestId": identity, "reason": "nobody waits for it any more"}
                self._in_background(self._tell(session, "notifications/cancelled", gone))
            raise

    async def _tell(self, session: _Session, method: str, params: Message | None) -> None:
        """Send a notification, whose answer says nothing."""
        message: Message = {"jsonrpc": "2.0", "method": method}
        await self._send(session, message if params is None else {**message, "params": params})

    async def _send(self, session: _Session, message: Message) -> None:
        reply = await self._post(session, message)
        await reply.close()

    async def _post(self, session: _Session, message: Message, trace: bytes = b"") -> HttpReply:
        body = msgspec.json.encode(message)
        return await self._transport.request(
            "POST", self._options.url, [*await self._headers(session), *_POSTED], body, trace
        )

    async def _headers(self, session: _Session) -> list[tuple[bytes, bytes]]:
        headers = []
        key = await self._key()
        if key:
            headers.append((b"authorization", b"Bearer " + key.encode()))
        if session.id is not None:
            headers.append((b"mcp-session-id", session.id))
        if session.revision:
            headers.append((b"mcp-protocol-version", session.revision))
        return headers

    async def _answer(self, session: _Session, reply: HttpReply, identity: int) -> Message:
        kind = next((value for name, value in reply.headers if name == b"content-type"), b"")
        count = 0
        async for data in _payloads(reply, kind, self._options.max_response_bytes):
            for message in self._messages(data):
                count += 1
                if message.get("id") == identity and ("result" in message or "error" in message):
                    return self._result(message)
                if count > _MOST_MESSAGES:
                    raise self._broken(f"it sent {_MOST_MESSAGES} messages and no answer")
                if isinstance(message.get("method"), str) and "id" in message:
                    self._in_background(self._send(session, _reply_to(message)))
        raise self._broken("its answer ended without a result")

    def _messages(self, data: bytes) -> list[Message]:
        try:
            decoded = _ANY.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._broken("its answer is not JSON") from error
        found = decoded if isinstance(decoded, list) else [decoded]
        if not all(isinstance(message, dict) for message in found):
            raise self._broken("its answer is no message of JSON-RPC")
        return found

    def _result(self, message: Message) -> Message:
        error = message.get("error")
        if error is not None:
            error = error if isinstance(error, dict) else {}
            wrong = error.get("code") == _INVALID_PARAMS
            text = f"the tool server {self._options.name!r} says: {str(error.get('message', ''))[:1000]}"
            raise UpstreamRefused(
                text, status=400 if wrong else 502, code="upstream_error", upstream_status=200,
                kind="invalid_request_error" if wrong else "server_error",
            )  # fmt: skip
        result = message["result"]
        if not isinstance(result, dict):
            raise self._broken("its result is no object")
        return result

    def _refused(self, reply: HttpReply, session: _Session) -> Exception:
        status, name = reply.status, self._options.name
        if status == 404 and session.id is not None:
            return _SessionLostError()
        message = f"the tool server {name!r} answered with status {status}"
        if status in (401, 403):
            message = f"the tool server {name!r} refused this gateway's credentials; its operator must act"
        hints = tuple(header for header in reply.headers if header[0] == b"retry-after")
        busy = status == 429
        return UpstreamRefused(
            message, status=429 if busy else 502, kind="rate_limit_error" if busy else "server_error",
            code="upstream_error", headers=hints, upstream_status=status,
        )  # fmt: skip

    def _session_id(self, reply: HttpReply) -> bytes | None:
        for name, value in reply.headers:
            if name == b"mcp-session-id":
                if not _SESSION_ID.fullmatch(value):
                    raise self._broken("its session id has more than 512 or unprintable characters")
                return value
        return None

    def _broken(self, why: str) -> UpstreamBroken:
        return UpstreamBroken(f"the tool server {self._options.name!r} cannot be understood: {why}")

    def _say_goodbye(self, session: _Session) -> None:
        if session.id is not None:
            self._in_background(self._delete(session))

    async def _delete(self, session: _Session) -> None:
        reply = await self._transport.request("DELETE", self._options.url, await self._headers(session))
        await reply.close()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Messages that nobody waits for: bounded in number and time, and their failures change nothing."""
        if len(self._goodbyes) >= _MOST_GOODBYES:
            work.close()
            return
        task = asyncio.create_task(_briefly(work))
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)


_POSTED = (
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
)


async def _briefly(work: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(asyncio.wait_for(work, _GOODBYE_S), return_exceptions=True)


async def _payloads(reply: HttpReply, kind: bytes, limit: int) -> AsyncIterator[bytes]:
    """The JSON texts of an answer: the body, or the data of each event."""
    if not kind.startswith(b"text/event-stream"):
        yield await reply.read(limit)
        return
    splitter = sse.Splitter(limit)
    async for chunk in reply.chunks():
        for event in splitter.push(chunk):
            data = sse.data_of(event)
            if data is not None and data.strip():
                yield data


def _reply_to(asked: Mapping[str, Any]) -> Message:
    """What a server is told that asks the client something: only `ping` is understood."""
    head = {"jsonrpc": "2.0", "id": asked["id"]}
    if asked["method"] == "ping":
        return {**head, "result": {}}
    return {**head, "error": {"code": _NO_METHOD, "message": "this client offers nothing of the kind"}}


def _own_version() -> str:
    try:
        return version("sluicegate")
    except PackageNotFoundError:
        return "0"
