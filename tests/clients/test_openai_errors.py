"""Every error class of the official Python client, what it says, and when it tries again."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import openai
import pytest

from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import USER, Stand, until
from tests.fakes.upstream import KEY, Fault


def error_body(message: str, kind: str = "invalid_request_error", code: str | None = "some_code") -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": "seed", "code": code}}).encode()


def refuse(stand: Stand, status: int, body: bytes | None = None, **headers: str) -> None:
    """The upstream refuses whatever comes, however often it is asked."""
    hints = {name.replace("_", "-"): value for name, value in headers.items()}
    fault = Fault(status=status, body=error_body("No.") if body is None else body, headers=hints)
    stand.up.faults.extend([fault] * 20)


def caught(stand: Stand, kind: type[openai.APIError], **options: Any) -> Any:
    with pytest.raises(kind) as error:
        stand.client.chat.completions.create(**({"model": "support", "messages": USER} | options))
    assert type(error.value) is kind
    return error.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_upstream_says_of_a_request_is_told(
    stand: Stand, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    refuse(stand, status)
    error = caught(stand, kind, stream=stream)
    expected = "server_error" if status == 503 else "invalid_request_error"
    assert (error.status_code, error.code, error.param, error.type) == (status, "some_code", "seed", expected)
    assert error.body["message"] == "No."
    assert error.request_id.startswith("req_")


@pytest.mark.parametrize("status", [401, 403])
def test_the_gateways_own_credentials_are_not_the_clients_business(stand: Stand, status: int) -> None:
    refuse(stand, status, error_body(f"Incorrect API key provided: {KEY}."))
    error = caught(stand, openai.InternalServerError)
    assert (error.status_code, error.code) == (502, "upstream_error")
    assert "credentials" in error.body["message"]
    assert KEY not in error.response.text


@pytest.mark.parametrize("status", [500, 502, 504, 529, 302, 418])
def test_faults_of_the_upstream_are_server_errors(stand: Stand, status: int) -> None:
    refuse(stand, status, b"<html>Traceback: secret internals</html>", location="http://127.0.0.1:9/")
    error = caught(stand, openai.InternalServerError)
    assert error.status_code == (504 if status == 504 else 502)
    assert (error.type, error.code) == ("server_error", "upstream_error")
    assert "secret" not in error.response.text


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error": 5}', b'{"error": {"message": 5}}', b"\xff"])
def test_a_refusal_that_cannot_be_read_is_still_one(stand: Stand, body: bytes) -> None:
    refuse(stand, 400, body)
    error = caught(stand, openai.BadRequestError)
    assert error.code == "upstream_error"
    assert error.body["message"] == "the model answered with status 400"


def test_a_key_that_is_unknown_is_an_authentication_error(stand: Stand) -> None:
    client = stand.client.with_options(api_key="sk-sg-nobody")
    with pytest.raises(openai.AuthenticationError) as error:
        client.chat.completions.create(model="support", messages=USER)
    assert (error.value.code, error.value.type) == ("invalid_api_key", "authentication_error")
    assert "nobody" not in error.value.message
    assert stand.up.seen == []


def test_unknown_models_are_not_found(stand: Stand) -> None:
    error = caught(stand, openai.NotFoundError, model="nonesuch")
    assert (error.code, error.param) == ("model_not_found", "model")
    assert stand.up.seen == []


@pytest.mark.parametrize("model", ["wrong", "down", "loading"])
def test_a_release_that_cannot_answer_says_so_in_openais_words(stand: Stand, model: str) -> None:
    status, code = {
        "wrong": (404, "model_not_found"),
        "down": (502, "upstream_unreachable"),
        "loading": (503, "release_not_ready"),
    }[model]
    status_error: Any = openai.NotFoundError if status == 404 else openai.InternalServerError
    error = caught(stand, status_error, model=model)
    assert (error.status_code, error.code) == (status, code)


def test_an_upstream_that_stays_silent_is_a_server_error(stand: Stand) -> None:
    stand.up.faults.extend([Fault(silent=True)] * 20)
    error = caught(stand, openai.InternalServerError)
    assert (error.status_code, error.code) == (504, "upstream_timeout")


@pytest.mark.parametrize("fault", [Fault(cut_after=300), Fault(stall_after=300)])
def test_a_stream_that_breaks_off_raises_after_what_came(stand: Stand, fault: Fault) -> None:
    stand.up.faults.append(fault)
    got: list[str] = []
    stream = stand.client.chat.completions.create(model="support", messages=USER, stream=True)
    with pytest.raises(openai.APIError) as error:
        got.extend(chunk.id for chunk in stream)
    assert type(error.value) is openai.APIError
    assert error.value.code == ("upstream_broken" if fault.cut_after else "upstream_timeout")
    assert len(got) >= 1
    assert stand.record().error == error.value.code


def test_an_error_event_of_the_upstream_reaches_the_client(stand: Stand) -> None:
    chunk = b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}'
    event = error_body("The model overheated.", "server_error", "overheated")
    stand.up.faults.append(Fault(raw=b"data: " + chunk + b"\n\ndata: " + event + b"\n\n"))
    with pytest.raises(openai.APIError):
        list(stand.client.chat.completions.create(model="support", messages=USER, stream=True))


def test_a_client_comes_back_after_as_long_as_it_was_told(stand: Stand) -> None:
    client = stand.client.with_options(max_retries=1)
    began = time.monotonic()
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="loading", messages=USER)
    assert time.monotonic() - began >= 1.0, "retry-after: 1"
    until(lambda: len(stand.records) == 2)


def test_the_upstreams_hints_on_coming_back_are_passed_on(stand: Stand) -> None:
    client = stand.client.with_options(max_retries=1)
    hints = {"retry-after": "20", "retry-after-ms": "5", "x-request-id": "up-9"}
    stand.up.faults.append(Fault(status=409, body=error_body("Busy."), headers=hints))
    began = time.monotonic()
    assert client.chat.completions.create(model="support", messages=USER).choices
    assert time.monotonic() - began < 10, "retry-after-ms counts before retry-after"
    until(lambda: len(stand.records) == 2)


def test_a_client_that_is_told_to_stay_away_does(stand: Stand) -> None:
    client = stand.client.with_options(max_retries=3)
    refuse(stand, 409, x_should_retry="false")
    with pytest.raises(openai.ConflictError) as error:
        client.chat.completions.create(model="support", messages=USER)
    assert error.value.response.headers["x-should-retry"] == "false"
    until(lambda: stand.records)
    assert len(stand.records) == 1


def test_a_client_that_runs_out_of_time_frees_the_upstream(stand: Stand) -> None:
    stand.up.faults.extend([Fault(silent=True)] * 20)
    with pytest.raises(openai.APITimeoutError):
        stand.client.with_options(timeout=0.1).chat.completions.create(model="support", messages=USER)
    assert stand.up.noticed_a_disconnect()
    assert stand.record().error == "client_closed"


def test_nobody_at_the_address_is_a_connection_error() -> None:
    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key=CLIENT_KEY, max_retries=0)
    with client, pytest.raises(openai.APIConnectionError) as error:
        client.chat.completions.create(model="support", messages=USER)
    assert type(error.value) is openai.APIConnectionError


@pytest.mark.parametrize("stream", [False, True])
def test_a_task_that_is_cancelled_frees_the_upstream(stand: Stand, stream: bool) -> None:
    stand.up.faults.append(Fault(stall_after=300) if stream else Fault(silent=True))

    async def leave() -> None:
        async with openai.AsyncOpenAI(base_url=f"{stand.url}/v1", api_key=CLIENT_KEY) as client:
            first = asyncio.Event()

            async def ask() -> None:
                answer = await client.chat.completions.create(model="support", messages=USER, stream=stream)
                async for _ in answer:  # type: ignore[union-attr]  # only streams get here
                    first.set()

            task = asyncio.create_task(ask())
            if stream:
                await asyncio.wait_for(first.wait(), 5)
            else:
                await asyncio.to_thread(until, lambda: stand.up.seen)
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(leave())
    assert stand.up.noticed_a_disconnect()
    assert stand.record().error == "client_closed"


def test_a_stream_that_is_closed_early_frees_the_upstream(stand: Stand) -> None:
    stand.up.faults.append(Fault(stall_after=300))
    stream = stand.client.chat.completions.create(model="support", messages=USER, stream=True)
    next(iter(stream))
    stream.close()
    assert stand.up.noticed_a_disconnect()
    assert stand.record().error == "client_closed"
