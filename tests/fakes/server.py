"""Any ASGI application on a real socket, served by uvicorn in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn


@contextlib.contextmanager
def serving(app: Any, lifespan: str = "on") -> Iterator[str]:
    """The URL of *app*, on the server that production uses; a `site` of its own has its own protocol."""
    listener = socket.create_server(("127.0.0.1", 0))
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    site = getattr(app, "site", None)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=site.protocol if site is not None else "httptools",
        ws="none",
        lifespan=lifespan,  # type: ignore[arg-type]
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert started.wait(10)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
