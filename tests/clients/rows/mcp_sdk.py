"""The official SDK of the Model Context Protocol, over Streamable HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
from mcp import ClientSession, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import Stand

NAME, PACKAGE = "MCP SDK (Python)", "mcp"
Talk = Callable[[ClientSession], Awaitable[Any]]


def _say(stand: Stand, talk: Talk, key: str = CLIENT_KEY) -> Any:
    async def connected() -> Any:
        headers = {"authorization": f"Bearer {key}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=10) as http,
            streamable_http_client(f"{stand.url}/mcp", http_client=http) as (read, write, *_),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await talk(session)

    return asyncio.run(asyncio.wait_for(connected(), 20))


def tools(stand: Stand) -> None:
    found = _say(stand, lambda session: session.list_tools())
    names = {tool.name for tool in found.tools}
    assert {"list_releases", "ask_support", "search_books", "predict_churn"} <= names


def ask(stand: Stand) -> None:
    found = _say(stand, lambda session: session.call_tool("ask_support", {"question": "Why?"}))
    assert [part.text for part in found.content] == ["forty two"]
    assert stand.up.seen[-1].body["messages"] == [{"role": "user", "content": "Why?"}]


def predict(stand: Stand) -> None:
    row = {"plan": "basic", "months": 3}
    found = _say(stand, lambda session: session.call_tool("predict_churn", row))
    told = json.loads(found.content[0].text)
    assert (told["label"], told["probabilities"]) == ("Yes", {"No": 0.25, "Yes": 0.75})


def prompts(stand: Stand) -> None:
    async def talk(session: ClientSession) -> Any:
        (prompt,) = (await session.list_prompts()).prompts
        return await session.get_prompt(prompt.name, {"question": "Why?"})

    (message,) = _say(stand, talk).messages
    assert (message.role, message.content.text) == ("user", "Kindly: Why?")


def refused(stand: Stand) -> None:
    async def talk(session: ClientSession) -> str:
        try:
            await session.call_tool("ask_nobody", {"question": "Why?"})
        except MCPError as error:
            return str(error)
        raise AssertionError("a release that does not exist answered")

    assert "nobody" in _say(stand, talk)


def proxied(stand: Stand) -> None:
    """Only the tools that the gateway offers of a server that the SDK made; and its error when that fails."""

    async def talk(session: ClientSession) -> tuple[set[str], Any, Any]:
        names = {tool.name for tool in (await session.list_tools()).tools}
        added = await session.call_tool("things__add", {"a": 2, "b": 40})
        failed = await session.call_tool("things__fail", {})
        return names, added, failed

    names, added, failed = _say(stand, talk)
    assert {"things__add", "things__fail"} <= names
    assert "things__admin_reset" not in names
    assert (added.structured_content, failed.is_error) == ({"result": 42}, True)


TRIALS = {
    "list tools": tools,
    "ask a release": ask,
    "predict": predict,
    "prompts": prompts,
    "errors": refused,
    "tools of another server": proxied,
}
