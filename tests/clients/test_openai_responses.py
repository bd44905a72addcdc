"""The official Python client's Responses API against backends that speak chat completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from gateway.dataplane.stored import Stored
from gateway.dataplane.table import Route
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, provider_at, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.fakes.upstream import MODEL, Fault, Upstream

ARGUMENTS = '{"city": "Tromsø"}'
PDF = "data:application/pdf;base64,JVBE"
LOOK: Any = {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}
TOOLS: Any = [
    {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": True}
    for name in ("weather", "time")
]


class City(BaseModel):
    """What `parse` is to make of an answer."""

    name: str


@pytest.fixture(scope="module")
def kept(up: Upstream) -> Iterator[Stand]:
    """A gateway that keeps responses."""
    routes = {"support": Route(name="support", digest=DIGEST, model=MODEL, provider=provider_at(up.url))}
    stand = Stand("", up)
    plane = DataPlane(FixedSources(table_of(routes)), stand.records.append, responses=Stored(60))
    with serving(plane) as stand.url:
        yield stand
        stand.client.close()


@pytest.fixture
def served(kept: Stand) -> Iterator[Stand]:
    kept.up.seen.clear()
    kept.up.faults.clear()
    kept.records.clear()
    kept.up.answer, kept.up.message, kept.up.chunk_bytes = "forty two", {}, None
    yield kept
    kept.up.answer, kept.up.message, kept.up.chunk_bytes = "forty two", {}, None


def create(stand: Stand, **more: Any) -> Any:
    return stand.client.responses.create(**{"model": "support", "input": "What is it?"} | more)


def test_a_plain_answer_is_read_whole(served: Stand) -> None:
    answer = create(served, instructions="Be brief.", max_output_tokens=64, metadata={"a": "b"})
    assert answer.output_text == "forty two"
    assert (answer.status, answer.model, answer.metadata) == ("completed", "tiny", {"a": "b"})
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (7, 2, 9)
    assert served.up.seen[0].path == "/v1/chat/completions"
    assert served.up.seen[0].body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is it?"},
        ],
        "max_tokens": 64,
    }


@pytest.mark.parametrize("size", [None, 1, 7])
def test_a_stream_is_the_same_however_the_upstream_cut_it(served: Stand, size: int | None) -> None:
    served.up.answer = "Tromsø, 北京 and 🦉"
    served.up.chunk_bytes = size
    with served.client.responses.stream(model="support", input="What is it?") as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == served.up.answer
    assert final.output_text == served.up.answer
    assert final.usage is not None
    assert final.usage.input_tokens == 7


@pytest.mark.parametrize("streamed", [False, True])
def test_parallel_tool_calls_arrive_and_their_results_go_back(served: Stand, streamed: bool) -> None:
    served.up.answer = ARGUMENTS
    served.up.chunk_bytes = 11
    if streamed:
        with served.client.responses.stream(model="support", input="?", tools=TOOLS) as stream:
            answer: Any = stream.get_final_response()
    else:
        answer = create(served, tools=TOOLS, tool_choice="required", parallel_tool_calls=True)
    calls = [item for item in answer.output if item.type == "function_call"]
    assert [(call.call_id, call.name, call.arguments) for call in calls] == [
        ("call_1", "weather", ARGUMENTS),
        ("call_2", "time", ARGUMENTS),
    ]
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "12"} for call in calls]
    create(served, previous_response_id=answer.id, input=results)
    said = served.up.seen[-1].body["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in said[1]["tool_calls"]] == ["call_1", "call_2"]


def test_a_conversation_goes_on_and_can_be_read_and_forgotten(served: Stand) -> None:
    first = create(served, input="One?")
    second = create(served, input="Two?", previous_response_id=first.id)
    assert [message["content"] for message in served.up.seen[-1].body["messages"]] == [
        "One?",
        "forty two",
        "Two?",
    ]
    read = served.client.responses.retrieve(second.id)
    assert (read.id, read.output_text, read.previous_response_id) == (second.id, "forty two", first.id)
    items = served.client.responses.input_items.list(second.id).data
    assert [item.type for item in items] == ["message"] * 3
    served.client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        served.client.responses.retrieve(second.id)


def test_input_items_are_read_page_by_page(served: Stand) -> None:
    items: Any = [{"role": "user", "content": str(at), "type": "message"} for at in range(5)]
    listed = served.client.responses.input_items.list
    name = create(served, input=items).id

    def texts(page: Any) -> list[str]:
        return [item.content[0].text for item in page]

    assert texts(listed(name)) == ["4", "3", "2", "1", "0"]
    assert texts(listed(name, order="asc", limit=2)) == ["0", "1", "2", "3", "4"]
    page = listed(name, limit=2, after="item_3")
    assert (texts(page.data), page.has_more) == (["2", "1"], True)
    for wrong in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "item_9"}):
        with pytest.raises(openai.BadRequestError) as caught:
            listed(name, **wrong)
        assert caught.value.param == next(iter(wrong))


def test_what_is_not_to_be_stored_is_not(served: Stand) -> None:
    answer = create(served, store=False)
    assert answer.store is False
    with pytest.raises(openai.NotFoundError) as caught:
        create(served, previous_response_id=answer.id)
    assert caught.value.code == "previous_response_not_found"


def test_images_files_and_earlier_items_reach_the_model(served: Stand) -> None:
    items = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "low"},
                {"type": "input_file", "filename": "a.pdf", "file_data": PDF},
            ],
        },
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Hm."}],
        },
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "gone"},
        {"role": "developer", "content": "Be brief."},
    ]
    create(served, input=items)
    assert served.up.seen[0].body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO", "detail": "low"}},
                {
                    "type": "file",
                    "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
            "reasoning_content": "Hm.",
        },
        {"role": "tool", "tool_call_id": "c1", "content": "gone"},
        {"role": "system", "content": "Be brief."},
    ]


@pytest.mark.parametrize("streamed", [False, True])
def test_reasoning_and_refusals_are_items_of_their_own(served: Stand, streamed: bool) -> None:
    served.up.message = {"refusal": "I may not.", "reasoning_content": "Let me think."}
    if streamed:
        with served.client.responses.stream(
            model="support", input="?", reasoning={"effort": "low"}
        ) as stream:
            answer: Any = stream.get_final_response()
    else:
        answer = create(served, reasoning={"effort": "low"})
    items = {item.type: item for item in answer.output}
    assert items["reasoning"].content[0].text == "Let me think."
    assert "refusal" in {part.type for part in items["message"].content}
    assert served.up.seen[0].body["reasoning_effort"] == "low"


def test_an_answer_is_parsed_into_a_model(served: Stand) -> None:
    served.up.answer = '{"name": "Oslo"}'
    answer = served.client.responses.parse(model="support", input="Which?", text_format=City)
    assert answer.output_parsed == City(name="Oslo")
    sent = served.up.seen[0].body["response_format"]
    assert (sent["type"], sent["json_schema"]["name"]) == ("json_schema", "City")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input.0.content.0",
        ),
        ({"extra_body": {"unheard_of": 1}}, "unheard_of"),
        ({"extra_body": {"api_base": "http://x"}}, "api_base"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(served: Stand, more: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(served, **more)
    assert words in caught.value.message
    assert served.up.seen == []


def test_a_stream_that_breaks_off_fails_and_is_not_kept(served: Stand) -> None:
    served.up.faults.append(Fault(cut_after=300))
    stream = served.client.responses.create(model="support", input="?", stream=True)
    events: Any = list(stream)
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert (events[-2].code, events[-1].response.status) == ("upstream_broken", "failed")
    with pytest.raises(openai.NotFoundError):
        served.client.responses.retrieve(events[0].response.id)


HALF = b'{"model": "tiny", "choices": [{"index": 0, "%s": {"content": "half"}, "finish_reason": null}]}'


def test_an_answer_that_does_not_say_how_it_ended_is_an_error_and_not_kept(served: Stand) -> None:
    served.up.faults.append(Fault(raw=HALF % b"message"))
    with pytest.raises(openai.InternalServerError) as caught:
        create(served)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_broken")
    assert (served.record().status, served.record().error) == (502, "upstream_broken")
    assert len(served.up.seen) == 1


def test_a_stream_that_is_done_without_having_ended_fails(served: Stand) -> None:
    served.up.faults.append(Fault(raw=b"data: " + HALF % b"delta" + b"\n\ndata: [DONE]\n\n"))
    events: Any = list(served.client.responses.create(model="support", input="?", stream=True))
    kinds = [event.type for event in events]
    assert kinds[-3:] == ["response.output_text.delta", "error", "response.failed"]
    with pytest.raises(openai.NotFoundError):
        served.client.responses.retrieve(events[0].response.id)


def test_usage_is_recorded_as_of_any_other_request(served: Stand) -> None:
    create(served)
    record = served.record()
    assert (record.route, record.prompt_tokens, record.completion_tokens) == ("/v1/responses", 7, 2)
