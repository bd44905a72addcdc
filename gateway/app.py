"""
The composition root: settings and workspace in, a site to serve out.

Two lanes on one port. The server's own protocol hands paths of the data plane to the relay, without a
framework between; everything else is an ASGI application, the control plane, whose framework is imported
when its first request comes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import MutableMapping
from typing import IO, TYPE_CHECKING, Any

from gateway.controlplane import ledger, segments
from gateway.controlplane.otlp import open_export
from gateway.controlplane.records import Records
from gateway.controlplane.refresh import Live
from gateway.controlplane.requestlog import RequestLog
from gateway.controlplane.toolservers import open_tool_servers
from gateway.controlplane.webhooks import Webhooks
from gateway.dataplane.admission import Admission
from gateway.dataplane.cache import Cache
from gateway.dataplane.idempotency import Answers
from gateway.dataplane.journal import Journal
from gateway.dataplane.limits import open_limiter
from gateway.dataplane.mirror import Mirrors
from gateway.dataplane.relay import Relay
from gateway.dataplane.routes import is_data_plane
from gateway.dataplane.services import Limits, Services
from gateway.dataplane.stored import Stored
from gateway.dataplane.table import Subject
from gateway.dataplane.usage import UsageRecord
from gateway.dataplane.work import Work
from gateway.settings import GatewaySettings
from gateway.telemetry import Gauges, Telemetry
from gateway.transport.bridge import ASGI, Receive, Scope, Send
from gateway.transport.server import Bounds, Site
from registry.clock import Clock, utc_now
from registry.ids import sortable_id
from registry.workspace import Workspace

if TYPE_CHECKING:
    from gateway.controlplane.siblings import Siblings

_DRAIN_EVERY_S = 0.5
_MOST_COPIES = 64
_LAST_DRAIN_S = 5.0
"""How long the end waits for another process that is just draining."""
_log = logging.getLogger(__name__)


class Gateway:
    """The whole gateway. Serves after its lifespan has started."""

    def __init__(
        self,
        settings: GatewaySettings,
        workspace: Workspace,
        *,
        store: str = "chroma",
        clock: Clock = utc_now,
        siblings: Siblings | None = None,
    ) -> None:
        """
        Serve what *workspace* holds; the caller closes it after the lifespan has ended.

        Args:
            store: plug-in of `sluicegate.stores` that the indexes were built with.
            siblings: the other processes that serve the same port, where there are any.
        """
        self.live = Live(settings, workspace, store, clock)
        self._settings, self._workspace = settings, workspace
        self._clock = clock
        self._siblings = siblings
        self._work = Work(settings.threads, settings.max_waiting)
        self._control: ASGI | None = None
        self._making = asyncio.Lock()
        self._draining: asyncio.Task[None] | None = None
        self._webhooks = Webhooks(workspace, may_open=lambda: self.live.reached)
        self._telling: asyncio.Task[None] | None = None
        folder = workspace.settings.home / "usage"
        name = sortable_id("usage", clock())
        self._ledger = ledger.Ledger(workspace, folder, settings.usage_days, clock)
        self._journal = Journal(folder, name)
        self._records = Records(self._ledger, may_open=lambda: bool(workspace.engines) or self.live.reached)
        self._journal_lock: IO[str] = segments.hold(folder, name)
        admission = Admission(settings.max_in_flight, settings.max_lag_ms / 1000)
        self._limiter = open_limiter(settings.limits_store, settings.limits_store_down, self._spent, clock)
        self._request_log = RequestLog() if settings.log_requests else None
        self._export = open_export(settings.otlp, os.environ, self._hosts)
        self.telemetry = Telemetry(
            self.live,
            Gauges(
                admission,
                limits_store_up=lambda: bool(self._limiter.status()["reachable"]),
                unwritten_records=lambda: self._journal.waiting,
                journal_bytes=self._ledger.backlog_bytes,
                spent=lambda: self._ledger.sums,
                unlogged=lambda: self._request_log.dropped if self._request_log is not None else 0,
                unexported=lambda: self._export.dropped if self._export is not None else 0,
            ),
        )
        self._shadow_work = Work(1, _MOST_COPIES)
        self._mirrors = Mirrors(
            self._shadow_work, self._limiter, self._journal.append, self.telemetry.arms, clock
        )
        self._tool_servers = open_tool_servers(settings, workspace, os.environ)
        keep_s, wait_s = settings.idempotency_s, settings.total_timeout_s
        answers = Answers(keep_s, wait_s=wait_s) if keep_s else None
        services = Services(
            self.live,
            self._work,
            Limits(
                settings.max_body_bytes,
                settings.body_timeout_s,
                settings.max_batch_rows,
                settings.default_max_tokens,
                settings.unknown_price,
            ),
            settings.default_predict,
            settings.default_prediction,
            admission,
            self._limiter,
            answers,
            self._journal,
            Cache(settings.cache_s) if settings.cache_s else None,
            Stored(settings.responses_s) if settings.responses_s else None,
            self._mirrors,
            self._records,
            self._export.onward if self._export is not None else None,
            self._tool_servers,
        )
        bounds = Bounds(
            settings.max_head_bytes,
            settings.max_body_bytes,
            settings.head_timeout_s,
            settings.keep_alive_s,
            settings.idle_timeout_s,
            settings.body_timeout_s,
        )
        self.site = Site(Relay(services, self._emit, clock), is_data_plane, self, bounds)
        """What a server serves."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The control plane and the lifespan, as an ASGI application."""
        if scope["type"] == "http":
            control = self._control or await self._control_plane()
            await control(scope, receive, _identified(send, sortable_id("req", self._clock())))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    def _emit(self, record: UsageRecord) -> None:
        """Keep what was used and what was decided, then count it."""
        used = bool(record.attempts or record.rows or record.prompt_tokens)
        if used:
            self._journal.append(record)
        if record.error or record.findings:
            self._ledger.decisions.note(record, journaled=used)
        self.telemetry.emit(record)
        if self._request_log is not None:
            self._request_log.add(record)
        if self._export is not None:
            self._export.add(record)

    def _hosts(self) -> dict[str, str]:
        """Name of each upstream → its host, where it has one."""
        named = {upstream.name: upstream.provider for upstream in self.live.upstreams}
        return {name: str(provider.status().get("host", "")) for name, provider in named.items()}

    async def _spent(self, subject: Subject, start: str) -> int:
        return await asyncio.to_thread(self._ledger.spent, subject, start)

    async def _control_plane(self) -> ASGI:
        async with self._making:
            if self._control is None:
                self._control = await asyncio.to_thread(self._make_control_plane)
        return self._control

    def _make_control_plane(self) -> ASGI:
        from gateway.controlplane.api import control_plane

        app: Any = control_plane(
            self.live,
            self.telemetry,
            self._clock,
            self._siblings,
            self._workspace if self._settings.registry_api else None,
        )
        made: ASGI = app
        return made

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._limiter.start()
        await self.live.start()
        self._draining = asyncio.create_task(self._drain())
        self._telling = asyncio.create_task(self._webhooks.run())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._draining.cancel()
        self._telling.cancel()
        await asyncio.gather(self._draining, self._telling, return_exceptions=True)
        await self._mirrors.close()
        await asyncio.gather(*[server.close() for server in self._tool_servers.values()])
        await self.live.close()
        await self._limiter.close()
        self._journal.close()
        await asyncio.to_thread(self._ledger.drain, _LAST_DRAIN_S)
        self._journal_lock.close()
        if self._request_log is not None:
            self._request_log.close()
        if self._export is not None:
            await asyncio.to_thread(self._export.close)
        self._work.close()
        self._shadow_work.close()
        self._records.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _drain(self) -> None:
        """Move the journal into the registry, again and again."""
        while True:
            await asyncio.sleep(_DRAIN_EVERY_S)
            self._journal.rotate()
            try:
                await asyncio.to_thread(self._ledger.drain)
            except Exception:  # noqa: BLE001 - whatever fails, the files stay and are tried again
                _log.exception("the usage journal could not be drained; it is tried again")


def _identified(send: Send, request_id: str) -> Send:
    """*send*, with the header `x-request-id` that the relay gives its own answers."""

    async def identified(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
        await send(message)

    return identified
