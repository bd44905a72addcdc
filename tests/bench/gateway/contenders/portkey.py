"""Portkey's open-source gateway on Node, sent to the mock by its custom-host header."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench.gateway import install, upstream
from tests.bench.gateway.contenders.base import Contender, Door, Launch, Place, bearer, free_port

_VERSION = "1.15.2"
_MANIFEST = json.dumps(
    {
        "private": True,
        "dependencies": {"@portkey-ai/gateway": _VERSION},
        # With a newer node-server every stream of this release is answered 500.
        "overrides": {"@hono/node-server": "1.14.1"},
    }
)


def _install(cache: Path) -> str:
    install.npm(cache / "portkey", _MANIFEST)
    return f"{_VERSION} on node {install.run(['node', '--version']).strip()}"


def _launch(place: Place) -> Launch:
    script = place.cache / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    port = free_port()
    headers = bearer(upstream.KEY) | {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": place.upstream_url,
    }
    env = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost", "NODE_ENV": "production"}
    command = ["node", str(script), f"--port={port}", "--headless"]
    return Launch(command, Door(port, upstream.MODEL, headers), env)


PORTKEY = Contender(
    "portkey", _install, _launch, "no key of its own: the caller's key is passed on; no metrics"
)
