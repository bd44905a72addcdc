"""Prompt, passages and parameters in the client's request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gateway.dataplane.augment import augment, passages_header
from gateway.dataplane.request import encode, parse, raw
from gateway.dataplane.table import Route
from gateway.dataplane.work import Work
from gateway.errors import InvalidRequest
from gateway.providers.base import Ground
from registry.entities import PromptContent, PromptMessage, Retrieval
from registry.templates import compile_prompt
from tests.fakes.parts import FoundPassage, ListRetriever

PROMPT = PromptContent(
    (
        PromptMessage("system", "Answer from the context."),
        PromptMessage(
            "user", "{% for p in passages %}[{{ p.id }}] {{ p.text }} {% endfor %}Q: {{ question }}"
        ),
    ),
    {"question": "text", "passages": "list"},
)
TOWER = FoundPassage("tower#0", "tower", "Tower", "The tower was built in 1889. It is tall.", 0.9)
RIVER = FoundPassage("river#0", "river", "River", "A river runs there.", 0.5)


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work(1, 4)
    yield work
    work.close()


def route(**changes: Any) -> Route:
    values: dict[str, Any] = {
        "name": "support",
        "retriever": ListRetriever((TOWER, RIVER)),
        "retrieval": Retrieval(k=2),
        "render": compile_prompt(PROMPT),
        "variables": frozenset(PROMPT.variables),
    }
    return Route(**(values | changes))


def run(body: dict[str, Any], work: Work, on: Route | None = None) -> tuple[dict[str, Any], Any]:
    done = asyncio.run(augment(on or route(), parse(json.dumps(body).encode()), work))
    return json.loads(encode(done.body)), done


def test_the_question_is_rendered_with_its_passages(work: Work) -> None:
    body, done = run({"messages": [{"role": "user", "content": "When was the tower built?"}]}, work)
    assert body["messages"] == [
        {"role": "system", "content": "Answer from the context."},
        {
            "role": "user",
            "content": "[tower#0] The tower was built in 1889. It is tall. Q: When was the tower built?",
        },
    ]
    assert done.question == "When was the tower built?"
    assert done.grounds == (Ground("tower#0", TOWER.text, 0.9),)


def test_max_sentences_shows_only_the_best_ones(work: Work) -> None:
    body, done = run(
        {"messages": [{"role": "user", "content": "the tower?"}]},
        work,
        route(retrieval=Retrieval(k=2, max_sentences=1)),
    )
    assert body["messages"][1]["content"] == "[tower#0] The tower was built in 1889 Q: the tower?"
    assert [ground.text for ground in done.grounds] == ["The tower was built in 1889"]


def test_earlier_and_later_turns_stay_around_the_rendered_message(work: Work) -> None:
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi", "extra": 1.5},
        {"role": "user", "content": "river?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
    ]
    body, _ = run({"messages": turns}, work)
    assert body["messages"] == [
        {"role": "system", "content": "Answer from the context."},
        *turns[:3],
        {"role": "user", "content": "[river#0] A river runs there. Q: river?", "name": "ann"},
        *turns[4:],
    ]


def test_images_beside_the_question_are_kept(work: Work) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [{"type": "text", "text": "river?"}, image]
    body, done = run({"messages": [{"role": "user", "content": content}]}, work)
    assert done.question == "river?"
    assert body["messages"][1]["content"] == [
        {"type": "text", "text": "[river#0] A river runs there. Q: river?"},
        image,
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "x"}],
        [{"role": "user", "content": "  "}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "user", "content": None}],
    ],
)
def test_a_request_without_a_question_is_refused(messages: list[Any], work: Work) -> None:
    with pytest.raises(InvalidRequest, match="last user message"):
        run({"messages": messages}, work)


def test_parameters_are_defaults_only_where_they_say_how_to_sample(work: Work) -> None:
    parameters: dict[str, msgspec.Raw] = {
        "temperature": raw(0), "max_tokens": raw(16), "response_format": raw({"type": "text"}),
    }  # fmt: skip
    plain = Route(name="plain", parameters=parameters)
    asked = {"temperature": 1, "response_format": {"type": "json_object"}, "max_completion_tokens": 5}
    body, _ = run({"messages": [], **asked}, work, plain)
    assert body == {
        "messages": [],
        "temperature": 1,
        "max_completion_tokens": 5,
        "response_format": {"type": "text"},
    }
    body, _ = run({"messages": []}, work, plain)
    assert body == {
        "messages": [],
        "temperature": 0,
        "max_tokens": 16,
        "response_format": {"type": "text"},
    }


def test_without_prompt_and_index_the_bytes_stay() -> None:
    body = parse(b'{"model":"x","top_p":1.50,"messages":[ {"role" : "user"} ]}')
    work = Work(1, 1)
    done = asyncio.run(augment(Route(name="plain"), body, work))
    work.close()
    assert encode(done.body) == b'{"model":"x","top_p":1.50,"messages":[ {"role" : "user"} ]}'


def test_the_passages_header_is_encoded_distinct_and_bounded() -> None:
    grounds = [Ground("a b,é#1", "", 1), Ground("z#0", "", 1), Ground("a b,é#1", "", 1)]
    assert passages_header(grounds) == b"a%20b%2C%C3%A9#1,z#0"
    many = [Ground(f"{i}" * 100, "", 1) for i in range(100, 200)]
    assert len(passages_header(many)) <= 2000
