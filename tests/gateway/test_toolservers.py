"""A whole gateway offers the tools that its settings name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.controlplane.toolservers import _Key, open_tool_servers
from gateway.settings import GatewaySettings, McpServerSettings
from registry import accounts, policies, traffic
from registry.clock import utc_now
from registry.entities import GuardrailRule
from registry.errors import BadInput, BadSettings, SecretUnavailable
from registry.policies import PolicyFile
from tests.fakes.server import serving
from tests.fakes.stand import Stand, until
from tests.fakes.toolserver import MAIL, TOOLS_KEY, Seen, sdk_serving
from tests.fakes.upstream import Upstream
from tests.registry.conftest import House, house, workspace

__all__ = ["house", "workspace"]
STRICT = PolicyFile(kind="guardrails", name="strict", rules=(GuardrailRule("pii", "input", "redact"),))


def call(stand: Stand, secret: str, tool: str, **arguments: Any) -> Any:
    params = {"name": tool, "arguments": arguments}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return stand.post("/mcp", json.dumps(body).encode(), {"authorization": f"Bearer {secret}"})[2]


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[tuple[Seen, McpServerSettings]]:
    seen = Seen()
    (tmp_path / "key").write_text(f"{TOOLS_KEY}\n")
    with sdk_serving(seen, key=TOOLS_KEY) as url:
        yield seen, McpServerSettings(url, api_key_file=tmp_path / "key", tools=("echo",), list_s=0.01)


def test_a_gateway_offers_screens_records_and_says_goodbye(
    house: House, tools: tuple[Seen, McpServerSettings]
) -> None:
    seen, server = tools
    settings = GatewaySettings(
        refresh_interval_s=0.02, mcp={"things": server, "guarded": replace(server, guardrails="strict:1")}
    )
    with house.workspace.writing() as connection:
        _, secret = accounts.create_key(
            connection, "desk", models=("mcp/*",), routes=("/mcp",), now=utc_now()
        )
    with serving(Gateway(settings, house.workspace)) as url:
        stand = Stand(url, Upstream())
        plain = call(stand, secret, "things__echo", text=MAIL)
        assert plain["result"]["content"][0]["text"] == MAIL
        refused = call(stand, secret, "guarded__echo", text=MAIL)["error"]
        assert refused["data"]["code"] == "release_not_ready"
        assert "not_found" in refused["message"]
        with house.workspace.writing() as connection:
            policies.push(connection, STRICT, actor="ann", now=utc_now())
        screened = call(stand, secret, "guarded__echo", text=MAIL)
        assert screened["result"]["content"][0]["text"] == "write to [EMAIL]"
    until(lambda: [method for method, _, _ in seen.requests].count("DELETE") == 2)
    with house.workspace.reading() as connection:
        rows = traffic.usage(connection, by="model", since=utc_now() - timedelta(days=1))
    assert {row["model"]: (row["requests"], row["cost_microusd"]) for row in rows} == {
        "mcp/things": (1, 0),
        "mcp/guarded": (1, 0),
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"url": "ftp://x"}, "does not begin with"),
        ({"timeout_s": 0}, "timeout_s must be above 0"),
        ({"list_s": -1}, "list_s must be above 0"),
        ({"api_key": "sk-secret"}, "is no reference"),
        ({"api_key": "env:X", "api_key_env": "X"}, "leave out"),
    ],
)
def test_settings_that_could_not_be_used_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told) as caught:
        McpServerSettings(**({"url": "http://x/mcp"} | changes))
    assert "sk-secret" not in caught.value.message


@pytest.mark.parametrize("name", ["", "A", "a_b", "a__b", "-a", "a" * 33, "a/b"])
def test_a_servers_name_can_stand_before_its_tools(name: str) -> None:
    with pytest.raises(BadInput, match="a server's name"):
        GatewaySettings(mcp={name: McpServerSettings("http://x/mcp")})


def test_a_key_comes_from_where_the_settings_say(house: House, tmp_path: Path) -> None:
    def key(**where: Any) -> str | None:
        server = McpServerSettings("http://x/mcp", **where)
        environ = {"HERE": " one ", "THERE": "two", "LINES": "a\nb"}
        open_tool_servers(GatewaySettings(mcp={"x": server}), house.workspace, environ)
        return asyncio.run(_Key("x", server, environ).current())

    assert (key(), key(api_key_env="HERE"), key(api_key="env:THERE")) == (None, "one", "two")
    with pytest.raises(BadSettings, match=r"gateway\.mcp\.x\.api_key_env: NOWHERE is not set"):
        key(api_key_env="NOWHERE")
    with pytest.raises(BadSettings, match="printable ASCII"):
        key(api_key_env="LINES")
    with pytest.raises(BadSettings, match=r"gateway\.mcp\.x\.api_key_file"):
        key(api_key_file=tmp_path / "none")
    with pytest.raises((BadSettings, SecretUnavailable)):
        key(api_key="env:NOWHERE")


@pytest.mark.parametrize("url", ["http://", "http://a b/mcp", "https://user:sk-secret@x/mcp"])
def test_a_url_that_cannot_be_called_is_refused_at_the_start(house: House, url: str) -> None:
    settings = GatewaySettings(mcp={"x": McpServerSettings(url)})
    with pytest.raises(BadSettings, match=r"gateway\.mcp\.x\.url") as caught:
        open_tool_servers(settings, house.workspace, {})
    assert "sk-secret" not in caught.value.message
