"""A whole gateway over a registry, before a fake upstream, and API keys to ask it with."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.app import Gateway
from gateway.settings import GatewaySettings, UpstreamSettings
from registry import accounts, prices
from registry.clock import utc_now
from registry.entities import Price
from registry.workspace import Workspace
from tests.fakes.server import serving
from tests.fakes.stand import until
from tests.fakes.upstream import KEY, MODEL, Upstream

DIRECT = f"vllm/{MODEL}"
PRICE = Price(DIRECT, utc_now(), 2_000_000, 6_000_000)
"""Two micro-USD for a prompt token, six for one written."""


@dataclass
class Answered:
    status: int
    body: Any
    headers: dict[str, str]


@dataclass
class Whole:
    """`vllm/tiny` is the upstream; *keys* are API keys by name, each an account of its own."""

    url: str
    workspace: Workspace
    gateway: Gateway
    keys: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: Any = None, key: str | None = "app", **headers: str
    ) -> Answered:
        """Status, decoded body and headers; *key* is one of *keys*, or a token as it is."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.url}{path}", data, method=method)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        if key is not None:
            request.add_header("authorization", f"Bearer {self.keys.get(key, key)}")
        if data is not None:
            request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                raw, status, got = response.read(), response.status, dict(response.headers)
        except urllib.error.HTTPError as error:
            raw, status, got = error.read(), error.code, dict(error.headers)
        got = {name.lower(): value for name, value in got.items()}
        is_json = got.get("content-type", "").startswith("application/json")
        return Answered(status, json.loads(raw) if is_json and raw else raw, got)

    def chat(self, key: str = "app", *, stream: bool = False, **more: Any) -> Answered:
        """One answer of the upstream, plain or as a stream."""
        headers = {name: more.pop(name) for name in ("traceparent", "x_sluicegate_user") if name in more}
        messages = [{"role": "user", "content": "What is it?"}]
        body = {"model": DIRECT, "messages": messages, "stream": stream} | more
        return self.ask("POST", "/v1/chat/completions", body, key, **headers)


@contextmanager
def whole(
    workspace: Workspace, up: Upstream, folder: Path, *, vllm: UpstreamSettings | None = None, **settings: Any
) -> Iterator[Whole]:
    """A gateway that serves *workspace*, with the keys `app` and `other`, and a price for the upstream."""
    secret = folder / "upstream.key"
    secret.write_text(KEY + "\n")
    place = vllm or UpstreamSettings(base_url=up.url, api_key_file=secret)
    usual: dict[str, Any] = {"refresh_interval_s": 0.02, "upstreams": {"vllm": place}, "max_retries": 0}
    chosen = GatewaySettings(**(usual | settings))
    keys: dict[str, str] = {}
    with workspace.writing() as connection:
        prices.set_price(connection, PRICE, actor="ann", now=utc_now())
        for name in ("app", "other"):
            _, keys[name] = accounts.create_key(connection, name, models=("*",), actor="ann", now=utc_now())
    gateway = Gateway(chosen, workspace)
    with serving(gateway) as url:
        made = Whole(url, workspace, gateway, keys)
        until(lambda: made.ask("GET", "/v1/models").status == 200)
        yield made
