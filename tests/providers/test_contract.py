"""One contract for all providers, against fakes that replay what each publishes as its own wire format."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from gateway.dataplane.usage import UsageRecord
from gateway.providers.openai import BASE_URLS
from registry import plugins
from tests.fakes.stand import USER
from tests.providers.conftest import Contract
from tests.providers.server import Script
from tests.providers.wires import KEY, LOCAL, TEXT, WIRES, error, has, stream

# What litellm and its dependencies warn about is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_every_provider_has_a_contract() -> None:
    assert set(plugins.names("providers")) == set(WIRES) | LOCAL


@pytest.mark.parametrize("provider", sorted(set(BASE_URLS) & set(WIRES)))
def test_fakes_stand_where_the_provider_does(provider: str) -> None:
    assert urlsplit(BASE_URLS[provider]).path + "/chat/completions" == WIRES[provider].path


def ask(contract: Contract, model: str = "once", **fields: Any) -> Any:
    return contract.stand.client.chat.completions.create(model=model, messages=USER, **fields)


def post(contract: Contract, model: str = "once", **fields: Any) -> tuple[int, dict[str, str], Any]:
    body = {"model": model, "messages": USER, **fields}
    return contract.stand.post("/v1/chat/completions", json.dumps(body).encode())


def used(record: UsageRecord) -> tuple[int, int, int, int]:
    assert not record.estimated
    return record.prompt_tokens, record.completion_tokens, record.cached_tokens, record.reasoning_tokens


def told(contract: Contract) -> UsageRecord:
    """What was noted of the one request there was."""
    record = contract.stand.record()
    assert contract.fake.refused == []
    return record


def test_a_call_goes_to_its_path_with_its_key(contract: Contract) -> None:
    ask(contract, temperature=0.5)
    wire, (request,) = contract.fake.wire, contract.fake.seen
    assert request.path == wire.path
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers[wire.key_header].startswith(wire.key_prefix)
    assert "sk-sg-" not in json.dumps(headers)  # the client's own key stays here
    assert told(contract).model == f"{contract.fake.provider}/{wire.model}"


def test_a_whole_answer_has_its_text_end_and_usage(contract: Contract) -> None:
    answer = ask(contract)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", TEXT, "stop")
    record = told(contract)
    assert (record.status, record.error) == (200, "")
    assert used(record) == contract.fake.wire.usage


@pytest.mark.parametrize("piece", [None, 1, 7])
def test_a_stream_has_its_text_end_and_usage_however_its_bytes_come(
    contract: Contract, piece: int | None
) -> None:
    contract.fake.piece = piece
    chunks = [choice for chunk in ask(contract, stream=True) for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in chunks) == TEXT
    assert [choice.finish_reason for choice in chunks if choice.finish_reason] == ["stop"]
    record = told(contract)
    assert (record.status, record.error, record.streaming) == (200, "", True)
    assert used(record) == contract.fake.wire.usage
    assert (contract.fake.seen[0].path) == (contract.fake.wire.stream_path or contract.fake.wire.path)


def test_a_stream_ends_with_done(contract: Contract) -> None:
    body = json.dumps({"model": "once", "messages": USER, "stream": True}).encode()
    assert raw_stream(contract, body).splitlines()[-2].replace(b" ", b"") == b"data:[DONE]"


def raw_stream(contract: Contract, body: bytes) -> bytes:
    with contract.stand.connect() as connection:
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer "
            b"sk-sg-test\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        connection.settimeout(20)
        connection.sendall(head + body)
        data = b""
        while piece := connection.recv(65536):
            data += piece
    return unchunked(data.partition(b"\r\n\r\n")[2])


def unchunked(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size, 16)
        whole, data = whole + rest[:length], rest[length + 2 :]
        if not length:
            break
    return whole


def test_a_tool_call_keeps_its_name_and_arguments(contract: Contract) -> None:
    (choice,) = ask(contract, tools=[TOOL]).choices
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert call.id == (contract.fake.wire.tool_id or call.id) != ""
    assert choice.finish_reason == "tool_calls"
    assert used(told(contract)) == contract.fake.wire.usage


@pytest.mark.parametrize("piece", [None, 5])
def test_a_streamed_tool_call_keeps_its_name_and_arguments(contract: Contract, piece: int | None) -> None:
    contract.fake.piece = piece
    chunks = [choice for chunk in ask(contract, stream=True, tools=[TOOL]) for choice in chunk.choices]
    calls = [call for choice in chunks for call in choice.delta.tool_calls or ()]
    assert {call.index for call in calls} == {0}
    assert "".join(call.function.name or "" for call in calls) == "weather"
    assert json.loads("".join(call.function.arguments or "" for call in calls)) == {"city": "Paris"}
    assert calls[0].id == (contract.fake.wire.tool_id or calls[0].id) != ""
    assert [choice.finish_reason for choice in chunks if choice.finish_reason] == ["tool_calls"]
    assert used(told(contract)) == contract.fake.wire.usage


def test_a_request_of_another_dialect_has_only_fields_that_it_takes(contract: Contract) -> None:
    asked = {
        "model": "once", "max_tokens": 100, "messages": USER, "temperature": 0.5, "top_k": 4,
        "metadata": {"user_id": "u-1"}, **({"stop_sequences": ["END"]} if contract.fake.wire.stops else {}),
    }  # fmt: skip
    status, _, answer = contract.stand.post("/v1/messages", json.dumps(asked).encode())
    assert contract.fake.refused == []
    assert status == 200, answer
    assert answer["content"] == [{"type": "text", "text": TEXT}]
    (request,) = contract.fake.seen
    assert "100" in json.dumps(request.body)  # the bound on the answer's length


def test_a_refusal_keeps_its_status_and_says_why(contract: Contract) -> None:
    contract.fake.scripts.append(Script(error="refused"))
    status, _, answer = post(contract, "twice")
    assert status == error(contract.fake.provider, "refused")[0]
    assert contract.fake.wire.before + contract.fake.wire.reason in answer["error"]["message"]
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert len(contract.fake.seen) == 1  # and is not asked again: it would say the same
    assert told(contract).status == status


def test_too_many_requests_keep_their_wait(contract: Contract) -> None:
    contract.fake.scripts.append(Script(error="limited", headers={"retry-after": "20"}))
    status, headers, answer = post(contract)
    assert (status, headers["retry-after"]) == (429, "20")
    assert answer["error"]["message"]
    assert told(contract).status == 429


@pytest.mark.parametrize("streams", [False, True])
def test_a_failure_of_the_provider_is_asked_elsewhere(contract: Contract, streams: bool) -> None:
    contract.fake.scripts.append(Script(error="failed"))
    if streams:
        chunks = ask(contract, "twice", stream=True)
        text = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
    else:
        text = ask(contract, "twice").choices[0].message.content
    assert text == TEXT
    record = told(contract)
    assert (record.attempts, record.status, record.error) == (2, 200, "")
    assert used(record) == contract.fake.wire.usage


def test_a_failure_with_nobody_else_to_ask_is_the_gateways_to_explain(contract: Contract) -> None:
    contract.fake.scripts.append(Script(error="failed"))
    status, _, answer = post(contract)
    assert status in (502, 503)
    assert answer["error"]["type"] == "server_error"
    assert told(contract).status == status


@pytest.mark.parametrize("aborts", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.65])
def test_a_stream_that_is_cut_ends_with_an_error(contract: Contract, share: float, aborts: bool) -> None:
    if not aborts and not contract.fake.wire.shows_cuts:
        return
    size = len(stream(contract.fake.provider, "stream"))
    contract.fake.scripts.append(Script(cut_after=int(size * share), aborts=aborts))
    with pytest.raises(openai.APIError):
        list(ask(contract, stream=True))
    assert told(contract).error in ("upstream_broken", "upstream_error", "upstream_unreachable")


def test_a_stream_that_tells_of_a_failure_ends_with_an_error(contract: Contract) -> None:
    if not has(contract.fake.provider, "broken"):
        return  # it publishes no such event
    contract.fake.scripts.append(Script(name="broken"))
    with pytest.raises(openai.APIError):
        list(ask(contract, stream=True))
    assert told(contract).error == "upstream_broken"


def test_reasoning_is_kept_apart_from_the_answer(contract: Contract) -> None:
    if not has(contract.fake.provider, "reasoning"):
        return
    contract.fake.scripts.append(Script(name="reasoning"))
    deltas = [choice.delta for chunk in ask(contract, stream=True) for choice in chunk.choices]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thought == "The tower is meant."
    assert "".join(delta.content or "" for delta in deltas) == TEXT
    told(contract)


def test_an_error_that_comes_with_status_200_is_an_error(contract: Contract) -> None:
    if not has(contract.fake.provider, "failed_late"):
        return
    contract.fake.scripts.append(Script(name="failed_late"))
    assert ask(contract, "twice").choices[0].message.content == TEXT
    assert told(contract).attempts == 2


def test_a_key_that_the_provider_does_not_know_is_the_operators_to_correct(contract: Contract) -> None:
    fake = contract.fake
    if fake.wire.environment:  # the key is made of what the environment holds
        fake.scripts.append(Script(error="unknown_key"))
    status, _, answer = post(contract, "stranger")
    assert fake.refused == ([] if fake.wire.environment else ["key"])
    assert (status, answer["error"]["type"]) == (502, "server_error")
    assert answer["error"]["message"].startswith("the model refused this gateway's credentials")
    assert "wrongwrong" not in json.dumps(answer)


@pytest.mark.parametrize("streams", [False, True])
def test_the_key_is_in_no_error(contract: Contract, streams: bool) -> None:
    contract.fake.scripts.append(Script(error="refused", quote=f"refused for {KEY}, says the provider"))
    _, _, answer = post(contract, stream=streams)
    assert "refused for" in answer["error"]["message"]
    assert KEY not in json.dumps(answer)
    told(contract)
