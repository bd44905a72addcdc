"""Reasons of upstreams, in each of the ways in which they write errors."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.failure import failure_of
from gateway.dataplane.wire import Failure

NAMES = ("error", "message", "detail", "type", "param", "code", "status", "loc", "msg")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner),
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"error":{"message":"too long","type":"t","param":"messages","code":"context_length"}}',
            Failure("too long", "t", "messages", "context_length"),
        ),
        (
            b'[{"error":{"code":400,"message":"Unknown name \\"x\\"","status":"INVALID_ARGUMENT"}}]',
            Failure('Unknown name "x"', None, None, "INVALID_ARGUMENT"),
        ),
        (b'{"error":"Input too long","error_type":"validation"}', Failure("Input too long", "validation")),
        (
            b'{"object":"error","message":"bad","type":"BadRequestError","param":null,"code":400}',
            Failure("bad", "BadRequestError", None, 400),
        ),
        (
            b'{"message":{"detail":[{"loc":["body","messages",0,"n"],"msg":"no"},{"msg":"b"}]},"type":"invalid"}',
            Failure("messages.0.n: no; b", "invalid", "messages.0.n"),
        ),
        (b'{"detail":"Not Found"}', Failure("Not Found")),
        (b'{"message":"Unauthorized","request_id":"r"}', Failure("Unauthorized")),
        (b'{"error":{"code":402,"message":"No credits"}}', Failure("No credits", code=402)),
        (b"<html>", Failure()),
        (b"[]", Failure()),
        (b"\xff", Failure()),
        (b"[" * 100_000, Failure()),
    ],
)  # fmt: skip
def test_the_reason_is_found(body: bytes, expected: Failure) -> None:
    assert failure_of(body) == expected


@given(JSON)
def test_any_json_is_read_and_what_is_found_can_be_told(told: object) -> None:
    found = failure_of(msgspec.json.encode(told))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Failure) == found
