"""HTTP to upstreams, behind one small interface so that the client can be swapped."""

from __future__ import annotations

from gateway.transport.base import HttpClient, HttpReply, Stats, Timeouts
from gateway.transport.client import Transport
from gateway.transport.pool import PoolRules
from gateway.transport.reply import TransportReply
from gateway.transport.tls import TlsOptions
from registry.errors import BadSettings

__all__ = [
    "HttpClient", "HttpReply", "PoolRules", "Stats", "Timeouts", "TlsOptions", "Transport", "TransportReply",
    "open_transport",
]  # fmt: skip


def open_transport(
    limits: Timeouts,
    client: str = "native",
    proxy: str | None = None,
    tls: TlsOptions | None = None,
) -> HttpClient:
    """
    A client whose requests *limits* bound.

    Args:
        client: `native`, the fast one; `aiohttp` where a forward proxy is needed.
        proxy: URL of a forward proxy, such as `http://user:password@proxy.example:3128`.

    Raises:
        BadSettings: the client's name is unknown, or the native one was given a proxy.
    """
    if client == "native":
        if proxy is not None:
            message = "the client 'native' knows no forward proxy; choose 'aiohttp', or leave the proxy out"
            raise BadSettings(message)
        return Transport(limits, tls=tls)
    if client == "aiohttp":
        from gateway.transport.aiohttp import AiohttpTransport

        return AiohttpTransport(limits, proxy=proxy, tls=tls)
    message = f"the client {client[:40]!r} is unknown; choose 'native' or 'aiohttp'"
    raise BadSettings(message)
