"""Instructor: structured answers through tools and through JSON."""

from __future__ import annotations

import instructor
from pydantic import BaseModel

from tests.clients.rows.expected import CITY
from tests.fakes.stand import USER, Stand

NAME, PACKAGE = "Instructor", "instructor"


class City(BaseModel):
    """A city."""

    name: str
    people: int


OSLO = City(name="Oslo", people=717710)


def tools(stand: Stand) -> None:
    stand.up.answer = CITY
    client = instructor.from_openai(stand.client, mode=instructor.Mode.TOOLS)
    found = client.chat.completions.create(model="support", messages=USER, response_model=City, max_retries=0)
    assert found.model_dump() == OSLO.model_dump()


def json_schema(stand: Stand) -> None:
    stand.up.answer = CITY
    client = instructor.from_openai(stand.client, mode=instructor.Mode.JSON_SCHEMA)
    found = client.chat.completions.create(model="support", messages=USER, response_model=City, max_retries=0)
    assert found.model_dump() == OSLO.model_dump()


def partial(stand: Stand) -> None:
    stand.up.answer = CITY
    client = instructor.from_openai(stand.client, mode=instructor.Mode.JSON_SCHEMA)
    pieces = list(client.chat.completions.create_partial(model="support", messages=USER, response_model=City))
    assert pieces[-1].model_dump() == OSLO.model_dump()


TRIALS = {"tools": tools, "JSON schema": json_schema, "partial stream": partial}
