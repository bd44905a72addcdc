"""An ASGI application behind the server's own protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.errors import InternalError, body_of
from gateway.transport.inbound import ClientGone, Inbound

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
_log = logging.getLogger(__name__)
_JSON = ((b"content-type", b"application/json"),)


async def serve_asgi(inbound: Inbound, application: ASGI, transport: asyncio.Transport | None) -> None:
    """Answer *inbound* with *application*; what it leaves open is ended here."""
    try:
        await _serve(inbound, application, transport)
    finally:
        inbound.done()


async def _serve(inbound: Inbound, application: ASGI, transport: asyncio.Transport | None) -> None:
    gone = asyncio.Event()
    inbound.on_gone = gone.set
    more = True

    async def receive() -> MutableMapping[str, Any]:
        nonlocal more
        if more:
            try:
                data, more = await inbound.part()
            except ClientGone:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": data, "more_body": more}
        if not inbound.ended:
            await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = [(n, v) for n, v in message.get("headers", ()) if n not in _FRAMING]
            length = next((v for n, v in message.get("headers", ()) if n == b"content-length"), None)
            inbound.start(message["status"], headers, int(length) if length is not None else None)
        elif message.get("more_body", False):
            inbound.write(message.get("body", b""))
            if not inbound.writable:
                await inbound.drained()
        else:
            inbound.end(message.get("body", b""))

    try:
        await application(_scope(inbound, transport), receive, send)
    except ClientGone:
        return
    except Exception:  # noqa: BLE001 - whatever the application raises, the client gets an answer
        _log.exception("the control plane failed on %s", inbound.path[:200])
        if inbound.started:
            inbound.abort()
    if not inbound.started:
        data = body_of(InternalError())
        inbound.start(500, _JSON, len(data))
        inbound.end(data)
    elif not inbound.ended:
        inbound.abort()


_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})


def _scope(inbound: Inbound, transport: asyncio.Transport | None) -> Scope:
    peer = transport.get_extra_info("peername") if transport is not None else None
    local = transport.get_extra_info("sockname") if transport is not None else None
    secure = transport is not None and transport.get_extra_info("ssl_object") is not None
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": inbound.version,
        "method": inbound.method,
        "scheme": "https" if secure else "http",
        "path": inbound.path,
        "raw_path": inbound.path.encode(),
        "query_string": inbound.query,
        "root_path": "",
        "headers": inbound.headers,
        "client": tuple(peer[:2]) if isinstance(peer, tuple) else None,
        "server": tuple(local[:2]) if isinstance(local, tuple) else None,
        "state": {},
        "extensions": {},
    }
