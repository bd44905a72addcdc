"""An ASGI application behind the server's own protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.errors import BodyTimeout, BodyTooLarge, GatewayError, InternalError, body_of, status_of
from gateway.transport.inbound import ClientGone, Inbound

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
_log = logging.getLogger(__name__)
_JSON = ((b"content-type", b"application/json"),)


async def serve_asgi(
    inbound: Inbound,
    application: ASGI,
    transport: asyncio.Transport | None,
    max_body_bytes: int,
    body_timeout_s: float,
) -> None:
    """
    Answer *inbound* with *application*; what it leaves open is ended here.

    The application is asked once the whole body is there, and never for one that is too long or too slow.
    """
    try:
        try:
            body = await inbound.body(max_body_bytes, body_timeout_s)
        except ClientGone:
            return
        except (BodyTooLarge, BodyTimeout) as error:
            _tell(inbound, error)
            return
        await _serve(inbound, application, transport, body)
    finally:
        inbound.done()


async def _serve(
    inbound: Inbound, application: ASGI, transport: asyncio.Transport | None, body: bytes
) -> None:
    gone = asyncio.Event()
    inbound.on_gone = gone.set
    asked = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}
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
        _tell(inbound, InternalError())
    elif not inbound.ended:
        inbound.abort()


def _tell(inbound: Inbound, error: GatewayError) -> None:
    data = body_of(error)
    inbound.start(status_of(error), _JSON, len(data))
    inbound.end(data)


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
