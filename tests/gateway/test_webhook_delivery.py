"""Several gateways deliver out of one registry, and wait for it while it is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.controlplane.webhooks import Webhooks
from registry import webhooks
from registry.errors import StoreUnavailable
from registry.settings import RegistrySettings
from registry.webhook_send import Tally
from registry.workspace import Workspace, open_workspace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(RegistrySettings(home=tmp_path)) as opened:
        yield opened


def tell(workspace: Workspace, url: str, count: int) -> None:
    with workspace.writing() as connection:
        webhooks.add(connection, url, ("*",), allow_private=True, actor="ann", now=NOW)
        for number in range(count):
            webhooks.enqueue(connection, "version.push", {"number": number}, NOW)


class Listener:
    """A receiver in the same loop; *enough* is set when it was told so many times."""

    def __init__(self, wanted: int) -> None:
        self.ids: list[str] = []
        self.enough = asyncio.Event()
        self._wanted = wanted
        application = web.Application()
        application.router.add_post("/hook", self._take)
        self.server = TestServer(application)

    async def _take(self, request: web.Request) -> web.Response:
        self.ids.append(request.headers["webhook-id"])
        await asyncio.sleep(0)
        if len(self.ids) >= self._wanted:
            self.enough.set()
        return web.Response(status=204)


def test_two_gateways_at_once_send_each_delivery_once(workspace: Workspace) -> None:
    async def scene() -> None:
        listener = Listener(20)
        async with listener.server as server:
            tell(workspace, str(server.make_url("/hook")), 20)
            with open_workspace(workspace.settings) as other:
                gateways = [Webhooks(one, clock=lambda: NOW) for one in (workspace, other)]
                tallies = await asyncio.gather(*(gateway.once() for gateway in gateways))
                while not all(tally == Tally() for tally in tallies):
                    assert all(not tally.failed for tally in tallies)
                    tallies = await asyncio.gather(*(gateway.once() for gateway in gateways))
        assert (len(listener.ids), len(set(listener.ids))) == (20, 20)

    asyncio.run(scene())


def test_a_running_gateway_delivers_what_comes_and_outlives_an_outage(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    outages = 2

    class Shaky(Workspace):
        """A registry that is away twice."""

        def reading(self) -> Any:
            nonlocal outages
            if outages:
                outages -= 1
                raise StoreUnavailable
            return super().reading()

    shaky = Shaky(workspace.settings, workspace.artifacts, workspace.engines)

    async def scene() -> None:
        listener = Listener(3)
        async with listener.server as server:
            tell(workspace, str(server.make_url("/hook")), 3)
            task = asyncio.create_task(Webhooks(shaky, clock=lambda: NOW, every_s=0.001).run())
            await asyncio.wait_for(listener.enough.wait(), 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert len(set(listener.ids)) == 3

    with caplog.at_level(logging.WARNING):
        asyncio.run(scene())
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "webhooks wait for the registry"
    ]
    assert outages == 0
