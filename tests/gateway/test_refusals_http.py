"""Bodies and names that try to harm: refused in OpenAI's words, and the upstream never hears of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.dataplane.request import UNSAFE
from tests.fakes.stand import USER, Stand
from tests.fakes.upstream import MODEL
from tests.fakes.wire import (
    CHAT,
    GOOD,
    check_refusal,
    check_refused,
    exchange,
    heard,
    request,
    unframed,
    unheard,
)

MESSAGES = b'"messages":[{"role":"user","content":"hi"}]'
DEEP = 100_000


@pytest.fixture
def unharmed(stand: Stand) -> Iterator[Stand]:
    with unheard(stand):
        yield stand


def post(stand: Stand, body: bytes, path: str = CHAT.decode()) -> tuple[int, Any]:
    status, _, answer = stand.post(path, body)
    return status, answer


# Fields that would choose the upstream.


@pytest.mark.parametrize("name", sorted(UNSAFE))
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
def test_a_field_that_would_choose_the_upstream_is_refused(unharmed: Stand, name: str, path: str) -> None:
    body = {"model": "vllm/tiny", "messages": USER, "prompt": "a", "input": "a", name: "http://127.0.0.1:9/"}
    status, answer = post(unharmed, json.dumps(body).encode(), path)
    assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, name, "unsafe_field")


@pytest.mark.parametrize(
    "name",
    [
        "api_base", "base_url", "api_key", "api_version", "custom_llm_provider", "extra_headers",
        "extra_body",
        "extra_query", "headers", "proxy", "http_client", "client", "mock_response", "model_list",
    ],
)  # fmt: skip
def test_the_list_of_such_fields_is_whole(name: str) -> None:
    assert name in UNSAFE


@pytest.mark.parametrize(
    "field",
    [
        b'"api\\u005fbase":"http://x"',
        b'"api_base":null',
        b'"api_base":"a","api_base":"b"',
        b'"headers":{"a":1}',
    ],
)
def test_such_a_field_cannot_be_disguised(unharmed: Stand, field: bytes) -> None:
    status, answer = post(unharmed, b'{"model":"support",' + field + b"," + MESSAGES + b"}")
    assert (status, answer["error"]["code"]) == (400, "unsafe_field")


def test_such_a_name_deeper_down_is_the_clients_own(stand: Stand) -> None:
    body = {"model": "support", "messages": USER, "metadata": {"api_base": "x"}, "headers_": 1}
    assert post(stand, json.dumps(body).encode())[0] == 200
    assert stand.up.seen[0].body == body | {"model": MODEL}


@pytest.mark.parametrize(
    "model",
    [
        "vllm/../../x", "vllm/..%2f..%2fx", "../support", "support/../../etc/passwd", "vllm//tiny",
        "/vllm/tiny",
        "vllm/", "/", "openai/http://169.254.169.254/latest", "http://169.254.169.254/",
        "file:///etc/passwd",
        "vllm/tiny?x=1", "vllm/tiny#x", "vllm/tiny\\..\\x", "vllm\\tiny", "support\r\nx-evil: 1",
        "vllm/tiny\r\nx-evil: 1", "support\x00", "vllm/tiny\x00", "vllm/\u2025/x", "vllm\uff0ftiny",
        "vllm/．．/x",
        "s\u2024pport", "\u202esupport", "support ", " support", "SUPPORT", "support@",
        "support@production@x",
        "support:1:2", "@production", "x" * 10_000, "vllm/" + "x" * 10_000, "vllm/*", "*", "\ufeffsupport",
        "user:pass@support", "\U0001f989",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
def test_a_models_name_leads_nowhere_else(unharmed: Stand, model: str, path: str) -> None:
    body = json.dumps({"model": model, "messages": USER, "input": "a"}).encode()
    status, headers, answer = unharmed.post(path, body)
    check_refusal(status, answer, (400, 403, 404))
    assert "x-evil" not in {name.lower() for name in headers}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/..%2f..%2fetc", "/v1/models/a%0d%0ax-evil:%201", "/v1/models/%00", "/v1/models/%ff%fe",
        "/v1/models/", "/v1/models/" + "x" * 5000, "/v1/models/vllm/../../x", "/v1/../v1/chat/completions",
        "/v1//chat/completions", "/v1/chat/completions/", "/v1/chat/completions/..",
        "/v1/vector_stores/../search",
        "/v2/models/../../etc/infer", "/v1/./chat/completions", "/v1/chat/completions%00",
        "/v1/Chat/Completions",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_leads_nowhere_else(unharmed: Stand, path: str, method: str) -> None:
    status, headers, answer = unharmed.post(path, GOOD if method == "POST" else b"", method=method)
    check_refusal(status, answer, (400, 404, 405), path)
    assert "x-evil" not in {name.lower() for name in headers}


# Bodies.

PLACES: dict[str, Callable[[bytes], bytes]] = {
    "at the top": lambda deep: deep,
    "in a field": lambda deep: b'{"model":"support","x":' + deep + b"," + MESSAGES + b"}",
    "in messages": lambda deep: b'{"model":"support","messages":' + deep + b"}",
    "in a message": lambda deep: b'{"model":"support","messages":[{"role":"user","content":' + deep + b"}]}",
    "in stream_options": lambda deep: (
        b'{"model":"support","stream":true,"stream_options":' + deep + b"," + MESSAGES + b"}"
    ),
    "in the model": lambda deep: b'{"model":' + deep + b"," + MESSAGES + b"}",
}  # fmt: skip
DEEPER = {
    "lists": b"[" * (DEEP // 2) + b"]" * (DEEP // 2),
    "objects": b'{"a":' * (DEEP // 6) + b"1" + b"}" * (DEEP // 6),
    "open lists": b"[" * (DEEP - 200),
    "open objects": b'{"a":' * (DEEP // 5 - 100),
}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("kind", DEEPER)
def test_deep_json_is_refused(unharmed: Stand, where: str, kind: str) -> None:
    body = PLACES[where](DEEPER[kind])[:100_000]
    check_refusal(*post(unharmed, body), allowed=(400,))


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/v2/models/churn/infer", "/v1/embeddings"])
def test_deep_json_is_refused_by_every_reader(unharmed: Stand, path: str) -> None:
    for deep in DEEPER.values():
        for body in (
            deep,
            b'{"model":"support","input":' + deep[:90_000] + b"}",
            b'{"inputs":' + deep[:90_000] + b"}",
        ):
            check_refusal(*post(unharmed, body[:100_000], path), allowed=(400,), path=path)


def said(value: bytes) -> bytes:
    return b'{"model":"support","messages":[{"role":"user","content":' + value + b"}]}"


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"null", b"true", b"1", b'"x"', b"[]", b"[{}]", b"{", b"}", b"{}", b"{}{}", b"{},",
        b"\x00", b"\xff",
        b"\xef\xbb\xbf" + GOOD, GOOD.decode().encode("utf-16"), GOOD.decode().encode("utf-32"), GOOD + b"x",
        GOOD + b"\x00", GOOD + GOOD, GOOD[:-1], b"'" + GOOD + b"'", GOOD.replace(b'"', b"'"),
        b"/**/" + GOOD,
        b"model=support&messages=hi", b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
        said(b'"\xff"'), said(b'"\xc0\xaf"'), said(b'"\xed\xa0\x80"'), said(b'"\xf4\x90\x80\x80"'),
        said(b'"\xe2\x82"'),
        said(b'"\n"'), said(b'"\x00"'), said(b'"\\x41"'), said(b'"\\u12"'), said(b"NaN"), said(b"Infinity"),
        said(b"-Infinity"), said(b"01"), said(b"1."), said(b".5"), said(b"+1"), said(b"0x1"), said(b"1e"),
        said(b"undefined"), said(b"'x'"), said(b"[1,]"), said(b'{"a":1,}'), said(b"{1:2}"), said(b"tru"),
        b'{"model":NaN,' + MESSAGES + b"}", b'{"model":"\\ud800",' + MESSAGES + b"}",
        b'{"model":"support","x":NaN,' + MESSAGES + b"}", b'{"model":"support",,' + MESSAGES + b"}",
        b'{"model":["support"],' + MESSAGES + b"}", b'{"model":{"a":1},' + MESSAGES + b"}",
        said(b'"a\\ud800"'), said(b'"a\\ud800b"'), said(b'"\\udfffb"'), said(b'"\\ud800\\ud800"'),
        said(b'"\\udc00\\ud800"'),
    ],
)  # fmt: skip
def test_a_body_that_is_not_json_as_it_should_be_is_refused(unharmed: Stand, body: bytes) -> None:
    check_refusal(*post(unharmed, body), allowed=(400,))


SILLY = [
    b"-1", b"0.5", b"1e999", b"-1e999", b"99999999999999999999999", b"9" * 4000, b"9" * 5000, b"true",
    b'""', b'"x"', b"[]", b"{}",
    b"[[]]", b'"\\ud800"', b"2147483648", b"9223372036854775808",
]  # fmt: skip
READ = [
    "stream", "n", "max_tokens", "max_completion_tokens", "stream_options", "user", "session_id", "metadata",
    "temperature", "tools", "seed", "prompt_cache_key", "safety_identifier", "best_of", "encoding_format",
]  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_silly_values_are_passed_on_or_refused_but_never_trip(stand: Stand, name: str) -> None:
    for value in SILLY:
        body = b'{"model":"support","' + name.encode() + b'":' + value + b"," + MESSAGES + b"}"
        with stand.connect() as client:
            data, _ = heard(client, [request(body, head=b"connection: close\r\n")], 5)
        status = int(data.split(b" ", 2)[1])
        assert status in (200, 400, 413, 429), (value[:40], data[:200])


def test_keys_said_twice_count_once_and_last(stand: Stand) -> None:
    body = b'{"model":"nonesuch","seed":1,"model":"support",' + MESSAGES + b',"seed":2}'
    assert post(stand, body)[0] == 200
    assert stand.up.seen[0].raw.count(b'"model"') == 1
    assert stand.up.seen[0].raw.count(b'"seed"') == 1
    assert (stand.up.seen[0].body["model"], stand.up.seen[0].body["seed"]) == (MODEL, 2)


@pytest.mark.parametrize("messages", [b"{}", b'"hi"', b"[null]", b'[{"role":7}]', b"[]", b"7", b"[[]]"])
@pytest.mark.parametrize("release", [b"support", b"indexed"])
def test_messages_that_are_none_are_refused(unharmed: Stand, release: bytes, messages: bytes) -> None:
    status, answer = post(unharmed, b'{"model":"' + release + b'","messages":' + messages + b"}")
    check_refusal(status, answer, (400,))
    assert answer["error"]["param"].startswith("messages")


# Size.


def test_a_body_declared_too_large_is_refused_before_it_is_sent(unharmed: Stand) -> None:
    for length in (b"100001", b"9999999999", b"9223372036854775807"):
        data, closed = exchange(unharmed, unframed(b"content-length: " + length + b"\r\n"))
        check_refused(data, closed, (413,))


def test_nobody_is_asked_for_a_body_that_is_too_large(unharmed: Stand) -> None:
    data, closed = exchange(unharmed, unframed(b"content-length: 100001\r\nexpect: 100-continue\r\n"))
    check_refused(data, closed, (413,))


def test_chunks_beyond_the_bound_are_refused(unharmed: Stand) -> None:
    head = unframed(b"transfer-encoding: chunked\r\n")
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    data, closed = exchange(unharmed, head, *[chunk] * 100)
    check_refused(data, closed, (413,))


def test_a_body_as_large_as_the_bound_is_read(stand: Stand) -> None:
    body = GOOD + b" " * (100_000 - len(GOOD))
    assert post(stand, body)[0] == 200
