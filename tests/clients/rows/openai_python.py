"""The official Python client; `test_openai_python.py` tries it in depth."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.clients.rows.expected import ARGUMENTS, CITY, TOOLS
from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import USER, Stand

NAME, PACKAGE = "openai (Python)", "openai"


class City(BaseModel):
    name: str
    people: int


def plain(stand: Stand) -> None:
    answer = stand.client.chat.completions.create(model="support", messages=USER)
    assert answer.choices[0].message.content == "forty two"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 9


def stream(stand: Stand) -> None:
    chunks = stand.client.chat.completions.create(model="support", messages=USER, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "forty two"


def tools(stand: Stand) -> None:
    stand.up.answer = ARGUMENTS
    given: Any = TOOLS
    answer = stand.client.chat.completions.create(model="support", messages=USER, tools=given)
    calls: Any = answer.choices[0].message.tool_calls
    assert [(call.function.name, call.function.arguments) for call in calls] == [("weather", ARGUMENTS)]


def structured(stand: Stand) -> None:
    stand.up.answer = CITY
    answer = stand.client.chat.completions.parse(model="support", messages=USER, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Oslo", people=717710)


def concurrent(stand: Stand) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{stand.url}/v1", api_key=CLIENT_KEY, timeout=10) as client:
            create = client.chat.completions.create
            answers = await asyncio.gather(*(create(model="support", messages=USER) for _ in range(8)))
        return [answer.choices[0].message.content for answer in answers]

    assert asyncio.run(ask()) == ["forty two"] * 8


def errors(stand: Stand) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        stand.client.chat.completions.create(model="nonesuch", messages=USER)
    assert caught.value.code == "model_not_found"


def embeddings(stand: Stand) -> None:
    found = stand.client.embeddings.create(model="vllm/tiny", input=["a", "b"])
    assert [item.embedding for item in found.data] == [[0.25, -0.5]] * 2


def moderations(stand: Stand) -> None:
    (result,) = stand.client.moderations.create(input="Write to ann@example.org").results
    assert result.flagged


def responses(stand: Stand) -> None:
    answer = stand.client.responses.create(model="support", input="What is it?")
    assert answer.output_text == "forty two"
    with stand.client.responses.stream(model="support", input="What is it?") as pieces:
        assert pieces.get_final_response().output_text == "forty two"


def models(stand: Stand) -> None:
    assert "support" in {model.id for model in stand.client.models.list()}


TRIALS = {
    "plain": plain, "stream": stream, "tools": tools, "structured output": structured, "async": concurrent,
    "typed errors": errors, "embeddings": embeddings, "responses": responses,
    "moderations": moderations, "models": models,
}  # fmt: skip
