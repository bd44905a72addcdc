"""
The composition root: settings and workspace in, one ASGI application out.

Two lanes on one port: paths of the data plane go straight to the relay, everything else to the
control plane, whose framework is imported when its first request comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.controlplane.refresh import Live
from gateway.dataplane.exchange import Receive, Scope, Send
from gateway.dataplane.relay import PATHS, Relay
from gateway.dataplane.services import Limits, Services
from gateway.dataplane.work import Work
from gateway.settings import GatewaySettings
from gateway.telemetry import Telemetry
from registry.clock import Clock, utc_now
from registry.ids import sortable_id
from registry.workspace import Workspace

ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
_DATA_PREFIXES = ("/v1/", "/v2/")


class Gateway:
    """The whole gateway as an ASGI application. Serves after its lifespan has started."""

    def __init__(
        self,
        settings: GatewaySettings,
        workspace: Workspace,
        *,
        store: str = "chroma",
        clock: Clock = utc_now,
    ) -> None:
        """
        Serve what *workspace* holds; the caller closes it after the lifespan has ended.

        Args:
            store: plug-in of `sluicegate.stores` that the indexes were built with.
        """
        self.live = Live(settings, workspace, store)
        self.telemetry = Telemetry(self.live)
        self._clock = clock
        self._work = Work(settings.threads, settings.max_waiting)
        limits = Limits(settings.max_body_bytes, settings.body_timeout_s, settings.max_batch_rows)
        services = Services(self.live, self._work, limits, settings.default_predict)
        self._relay = Relay(services, self.telemetry.emit, clock)
        self._control: ASGI | None = None
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The lane switch."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if path in PATHS or path.startswith(_DATA_PREFIXES):
                await self._relay(scope, receive, send)
            else:
                control = self._control or await self._control_plane()
                await control(scope, receive, _identified(send, sortable_id("req", self._clock())))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _control_plane(self) -> ASGI:
        async with self._making:
            if self._control is None:
                self._control = await asyncio.to_thread(self._make_control_plane)
        return self._control

    def _make_control_plane(self) -> ASGI:
        from gateway.controlplane.api import control_plane

        app: Any = control_plane(self.live, self.telemetry, self._clock)
        made: ASGI = app
        return made

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.live.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.live.close()
        self._work.close()
        await send({"type": "lifespan.shutdown.complete"})


def _identified(send: Send, request_id: str) -> Send:
    """*send*, with the header `x-request-id` that the relay gives its own answers."""

    async def identified(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
        await send(message)

    return identified
