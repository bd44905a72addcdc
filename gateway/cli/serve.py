"""`gateway serve`: the server process, from a listening socket to a graceful end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer

from gateway.settings import GatewaySettings
from rag.settings import RagSettings
from registry import settings as registry_settings
from registry.errors import BadSettings
from registry.terminal import Json
from registry.workspace import open_workspace


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    as_json: Json = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests may end first. Needs no settings file."""
    settings = registry_settings.load("gateway", GatewaySettings)
    store = registry_settings.load("rag", RagSettings).store
    settings = replace(
        settings,
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    listener = _listen(settings.host, settings.port)
    with open_workspace() as workspace:
        # The server's libraries load only here, so that `gateway --help` answers at once.
        import uvicorn
        from prometheus_client import disable_created_metrics

        from gateway.app import Gateway

        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nothing here reads

        app = Gateway(settings, workspace, store=store)
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=app.site.protocol,  # type: ignore[arg-type]  # whatever makes a protocol will do
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            backlog=2048,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_s)),
        )

        class Server(uvicorn.Server):
            """Says when it serves, and ends with exit code 0 when it is told to."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started:
                    _announce(settings.host, listener.getsockname()[1], as_json=as_json)

            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                before = {
                    number: signal.signal(number, self.handle_exit)
                    for number in (signal.SIGINT, signal.SIGTERM)
                }
                try:
                    yield
                finally:
                    for number, handler in before.items():
                        signal.signal(number, handler)

        server = Server(config)
        server.run(sockets=[listener])
        if not server.started:
            message = "the gateway could not start; the lines above say why"
            raise BadSettings(message)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        message = (
            f"cannot listen on {host}:{port}: {error.strerror}; give another --port, or 0 for a free one"
        )
        raise BadSettings(message) from error
    listener.set_inheritable(True)
    return listener


def _announce(host: str, port: int, *, as_json: bool) -> None:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    url = f"http://{shown}:{port}"
    print(f"gateway: serving {url} (OpenAI base URL {url}/v1; stop with Ctrl-C)", file=sys.stderr, flush=True)
    if as_json:
        print(json.dumps({"url": url, "pid": os.getpid()}), flush=True)
