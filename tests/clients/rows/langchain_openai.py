"""LangChain's chat model and embeddings for OpenAI."""

from __future__ import annotations

import asyncio

import openai
import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from tests.clients.rows.expected import ARGUMENTS, CITY
from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import Stand

NAME, PACKAGE = "LangChain (`ChatOpenAI`)", "langchain-openai"


class City(BaseModel):
    """A city."""

    name: str
    people: int


@tool
def weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"Rain in {city}."


def model(stand: Stand, name: str = "support") -> ChatOpenAI:
    return ChatOpenAI(
        model=name, base_url=f"{stand.url}/v1", api_key=lambda: CLIENT_KEY, max_retries=0, timeout=10
    )


def plain(stand: Stand) -> None:
    answer = model(stand).invoke("What is it?")
    assert answer.content == "forty two"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 9


def stream(stand: Stand) -> None:
    assert "".join(str(chunk.content) for chunk in model(stand).stream("What is it?")) == "forty two"


def tools(stand: Stand) -> None:
    stand.up.answer = ARGUMENTS
    answer = model(stand).bind_tools([weather]).invoke("The weather in Oslo?")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("weather", {"city": "Oslo"})]


def structured(stand: Stand) -> None:
    stand.up.answer = CITY
    found = model(stand).with_structured_output(City).invoke("Which city?")
    assert found == City(name="Oslo", people=717710)


def concurrent(stand: Stand) -> None:
    async def ask() -> str:
        return str((await model(stand).ainvoke("What is it?")).content)

    assert asyncio.run(ask()) == "forty two"


def errors(stand: Stand) -> None:
    with pytest.raises(openai.NotFoundError):
        model(stand, "nonesuch").invoke("What is it?")


def responses(stand: Stand) -> None:
    chat = ChatOpenAI(
        model="support",
        base_url=f"{stand.url}/v1",
        api_key=lambda: CLIENT_KEY,
        max_retries=0,
        timeout=10,
        use_responses_api=True,
    )
    assert chat.invoke("What is it?").text == "forty two"


def embeddings(stand: Stand) -> None:
    embedder = OpenAIEmbeddings(
        model="vllm/tiny",
        base_url=f"{stand.url}/v1",
        api_key=lambda: CLIENT_KEY,
        check_embedding_ctx_length=False,
    )
    assert embedder.embed_documents(["a", "b"]) == [[0.25, -0.5]] * 2


TRIALS = {
    "plain": plain, "stream": stream, "tools": tools, "structured output": structured, "async": concurrent,
    "typed errors": errors, "embeddings": embeddings, "responses": responses,
}  # fmt: skip
