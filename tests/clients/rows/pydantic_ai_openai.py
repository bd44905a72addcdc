"""Pydantic AI: an agent with a tool, plain, structured and streamed."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.output import NativeOutput
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.rows.expected import CITY
from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import Stand

NAME, PACKAGE = "Pydantic AI", "pydantic-ai-slim"


class City(BaseModel):
    """A city."""

    name: str
    people: int


def model(stand: Stand) -> OpenAIChatModel:
    return OpenAIChatModel("support", provider=OpenAIProvider(base_url=f"{stand.url}/v1", api_key=CLIENT_KEY))


def plain(stand: Stand) -> None:
    async def ask() -> str:
        return (await Agent(model(stand)).run("What is it?")).output

    assert asyncio.run(ask()) == "forty two"


def stream(stand: Stand) -> None:
    async def ask() -> list[str]:
        async with Agent(model(stand)).run_stream("What is it?") as result:
            return [text async for text in result.stream_text(delta=True)]

    assert "".join(asyncio.run(ask())) == "forty two"


def structured(stand: Stand) -> None:
    async def ask() -> City:
        return (await Agent(model(stand), output_type=NativeOutput(City)).run("Which city?")).output

    stand.up.answer = CITY
    assert asyncio.run(ask()) == City(name="Oslo", people=717710)


def responses(stand: Stand) -> None:
    async def ask() -> str:
        chosen = OpenAIResponsesModel(
            "support", provider=OpenAIProvider(base_url=f"{stand.url}/v1", api_key=CLIENT_KEY)
        )
        return (await Agent(chosen).run("What is it?")).output

    assert asyncio.run(ask()) == "forty two"


def output_tool(stand: Stand) -> None:
    async def ask() -> City:
        return (await Agent(model(stand), output_type=City).run("Which city?")).output

    stand.up.answer = CITY
    assert asyncio.run(ask()) == City(name="Oslo", people=717710)


TRIALS = {"plain": plain, "stream": stream, "structured output": structured, "tools": output_tool,
    "responses": responses,
}  # fmt: skip
