"""`gateway serve`: one process or several on one port, from a listening socket to a graceful end."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.workers import supervise
from gateway.settings import GatewaySettings
from rag.settings import RagSettings
from registry import settings as registry_settings
from registry.errors import BadSettings, StoreUnavailable
from registry.terminal import Json
from registry.workspace import open_workspace

if TYPE_CHECKING:
    from gateway.app import Gateway
    from gateway.controlplane.siblings import Siblings


_SWITCH_S = 0.0005


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that serve the port.")] = None,
    limits_per_worker: Annotated[
        bool,
        typer.Option(
            "--limits-per-worker",
            help="Serve with several workers though no store counts limits for all: each counts by itself.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests may end first. Needs no settings file."""
    settings = registry_settings.load("gateway", GatewaySettings)
    store = registry_settings.load("rag", RagSettings).store
    settings = replace(
        settings,
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
        workers=settings.workers if workers is None else workers,
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.workers == 1:
        listener = _bind(settings.host, settings.port)
        address = listener.getsockname()[1]
        _run(settings, store, listener, lambda: _announce(settings, address, as_json=as_json))
    else:
        _serve_several(settings, store, limits_per_worker=limits_per_worker, as_json=as_json)


def _serve_several(settings: GatewaySettings, store: str, *, limits_per_worker: bool, as_json: bool) -> None:
    if not settings.limits_store and not limits_per_worker:
        message = (
            f"{settings.workers} workers need gateway.limits_store, which counts limits for all of them, such"
            " as redis://127.0.0.1:6379/0; or give --limits-per-worker, and each worker counts by itself, so"
            f" that clients get up to {settings.workers} times their limits"
        )
        raise BadSettings(message)
    if sys.platform != "linux":
        message = f"gateway.workers is {settings.workers}, but only Linux spreads connections over processes"
        raise BadSettings(message)
    # Imported before the workers are forked and kept out of the collector's way, so that they share it.
    import uvicorn
    import uvloop

    import gateway.app
    import gateway.controlplane.api
    from gateway.controlplane.siblings import Siblings, make_folder

    del uvicorn, uvloop, gateway
    with contextlib.suppress(StoreUnavailable), open_workspace():
        pass  # its schema is up to date from now on; the workers need not do that all at once
    home = registry_settings.registry_settings().home
    listener = _reserve(settings.host, settings.port)
    settings = replace(settings, port=listener.getsockname()[1])
    folder = make_folder(home)
    gc.collect()
    gc.freeze()

    def work(index: int, ready: Callable[[], None]) -> None:
        siblings = Siblings(folder, index, settings.workers)
        _run(settings, store, _bind(settings.host, settings.port, together=True), ready, siblings)

    def announce() -> None:
        _announce(settings, settings.port, as_json=as_json)

    try:
        supervise(settings.workers, work, ready=announce, grace_s=settings.shutdown_grace_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        listener.close()


def _run(
    settings: GatewaySettings,
    store: str,
    listener: socket.socket,
    ready: Callable[[], None],
    siblings: Siblings | None = None,
) -> None:
    """Serve in this process until SIGTERM or SIGINT."""
    # The server's libraries load only here, so that `gateway --help` answers at once.
    import uvicorn
    from prometheus_client import disable_created_metrics

    from gateway.app import Gateway

    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nothing here reads
    with open_workspace(later=True) as workspace:
        app = Gateway(settings, workspace, store=store, siblings=siblings)
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
                if siblings is not None:
                    await siblings.start(app.telemetry.render, lambda: _state(app))
                await super().startup(sockets)
                if self.started:
                    # What lives now lives long: the collector need not look at it again, and what requests
                    # leave behind is mostly freed without it. Saves 3 % of the CPU of a busy process.
                    gc.collect()
                    gc.freeze()
                    gc.set_threshold(50_000, 20, 50)
                    # A thread that stores usage gives way to requests after this, and not after ten times it.
                    sys.setswitchinterval(_SWITCH_S)
                    ready()

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                await super().shutdown(sockets)
                if siblings is not None:
                    await siblings.stop()

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


def _state(app: Gateway) -> dict[str, Any]:
    return {"pid": os.getpid(), "revision": app.live.table.revision, "ready": app.live.ready}


def _reserve(host: str, port: int) -> socket.socket:
    """
    A socket that keeps the port for the workers and takes no connection itself.

    Each worker then has a listening socket of its own and the kernel spreads new connections over them by a
    hash of their addresses: 64 go 34 to 30 or so. With one socket for all, the worker that wakes first takes
    a whole burst, up to 57 of the 64. A worker that dies leaves the group at once.
    """
    # Alone first: a second gateway of the same user could share the port without anyone noticing.
    alone = _bind(host, port)
    port = alone.getsockname()[1]
    alone.close()
    return _bind(host, port, together=True)


def _bind(host: str, port: int, *, together: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if together:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        message = (
            f"cannot listen on {host}:{port}: {error.strerror}; give another --port, or 0 for a free one"
        )
        raise BadSettings(message) from error
    return listener


def _announce(settings: GatewaySettings, port: int, *, as_json: bool) -> None:
    host, workers = settings.host, settings.workers
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    url = f"http://{shown}:{port}"
    several = f" with {workers} workers" if workers > 1 else ""
    print(
        f"gateway: serving {url}{several} (OpenAI base URL {url}/v1; stop with Ctrl-C)",
        file=sys.stderr,
        flush=True,
    )
    if as_json:
        facts: dict[str, Any] = {"url": url, "pid": os.getpid()}
        print(json.dumps(facts | ({"workers": workers} if workers > 1 else {})), flush=True)
