"""Tools of other servers at `/mcp`, which are the official SDK's servers on real sockets."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import mcp_types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.mcp_proxy import ToolServer, _anything
from gateway.dataplane.table import Grant, Subject
from gateway.errors import NotReady
from gateway.guardrails.policy import Compiled, compile_policy
from registry.entities import GuardrailPolicy, GuardrailRule, Limits
from tests.fakes.parts import CLIENT_KEY, DataPlane, FixedSources, memory_limiter, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand, until
from tests.fakes.toolserver import MAIL, PIXEL, TOOLS_KEY, Seen, result_of, scripted, sdk_serving, tool_server
from tests.fakes.upstream import Upstream

KEYS = {
    "other": Grant("key_2", ("*",), account="key_2"),
    "none": Grant("key_3", ("support", "mcp/else"), account="key_3"),
    "server": Grant("key_4", ("mcp/things",), account="key_4"),
    "tool": Grant("key_5", ("mcp/things/add",), account="key_5"),
    "poor": Grant("key_6", ("*",), account="key_6", subjects=(Subject("key", "key_6", Limits(rpm=1)),)),
}
TOOLS = {"add", "echo", "hang", "leak", "fail", "much", "progress", "picture", "admin_reset"}


@dataclass
class Front:
    """A gateway before tool servers."""

    stand: Stand
    seen: Seen = field(default_factory=Seen)

    def say(self, method: str, params: Any = None, key: str = CLIENT_KEY) -> tuple[int, Any]:
        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params or {}}
        headers = {"authorization": f"Bearer {key}"}
        status, _, answer = self.stand.post("/mcp", json.dumps(body).encode(), headers)
        types.JSONRPCResponse.model_validate(
            answer
        ) if "result" in answer else types.JSONRPCError.model_validate(answer)
        return status, answer.get("result") or answer["error"]

    def call(self, tool: str, key: str = CLIENT_KEY, **arguments: Any) -> types.CallToolResult:
        status, result = self.say("tools/call", {"name": tool, "arguments": arguments}, key)
        assert status == 200, result
        return types.CallToolResult.model_validate(result)

    def error(self, tool: str, key: str = CLIENT_KEY, **arguments: Any) -> tuple[int, int, str, str]:
        """HTTP status, JSON-RPC's code, the gateway's code and the message."""
        status, error = self.say("tools/call", {"name": tool, "arguments": arguments}, key)
        return status, error["code"], error["data"]["code"], error["message"]

    def tools(self, key: str = CLIENT_KEY) -> set[str]:
        _, result = self.say("tools/list", key=key)
        found = types.ListToolsResult.model_validate(result).tools
        return {tool.name for tool in found} - {"list_releases"}


def text(result: types.CallToolResult) -> list[str]:
    return [block.text for block in result.content if isinstance(block, types.TextContent)]


@contextlib.contextmanager
def gateway(*servers: ToolServer, seen: Seen | None = None) -> Iterator[Front]:
    table = table_of({})
    grants = {hashlib.sha256(name.encode()).hexdigest(): grant for name, grant in KEYS.items()}
    table = replace(table, grants={**table.grants, **grants})
    stand = Stand("", Upstream())
    named = {server.name: server for server in servers}
    plane = DataPlane(FixedSources(table), stand.records.append, limiter=memory_limiter(), tool_servers=named)
    with serving(plane) as stand.url:
        yield Front(stand, seen or Seen())


@pytest.fixture(scope="module", params=[False, True], ids=["events", "json"])
def running(request: pytest.FixtureRequest) -> Iterator[Front]:
    """Before a server that answers in events, and one that answers in JSON."""
    seen = Seen()
    with (
        sdk_serving(seen, key=TOOLS_KEY, json_response=request.param) as url,
        gateway(tool_server(url, key=TOOLS_KEY, patterns=("[!a]*", "add")), seen=seen) as front,
    ):
        yield front


@pytest.fixture
def front(running: Front) -> Front:
    running.stand.records.clear()
    running.seen.requests.clear()
    return running


def test_tools_of_a_server_are_listed_under_its_name_as_far_as_they_are_offered(front: Front) -> None:
    assert front.tools() == {f"things__{name}" for name in TOOLS - {"admin_reset"}}
    _, result = front.say("tools/list")
    add = next(tool for tool in result["tools"] if tool["name"] == "things__add")
    assert add["description"] == "Add two numbers."
    assert set(add["inputSchema"]["properties"]) == {"a", "b"}


def test_a_call_is_relayed_and_counted_once(front: Front) -> None:
    result = front.call("things__add", a=2, b=40)
    assert (text(result), result.structured_content, result.is_error) == (["42"], {"result": 42}, False)
    until(lambda: front.stand.records)
    (record,) = front.stand.records
    assert (record.route, record.model, record.upstream, record.release) == (
        "/mcp", "mcp/things", "things", "mcp/*",
    )  # fmt: skip
    assert (record.status, record.attempts, record.key_id, record.error) == (200, 1, "key_1", "")
    assert record.upstream_s > 0


def test_other_messages_on_the_way_do_not_hide_the_answer(front: Front) -> None:
    assert text(front.call("things__progress")) == ["done"]


def test_an_error_of_the_tool_is_a_result(front: Front) -> None:
    result = front.call("things__fail")
    assert result.is_error
    assert text(front.call("things__echo", text="still here")) == ["still here"]


def test_each_account_has_a_session_of_its_own(front: Front) -> None:
    for key in (CLIENT_KEY, "other", CLIENT_KEY):
        front.call("things__echo", key, text="x")
    calls = [
        headers["mcp-session-id"]
        for _, headers, message in front.seen.requests
        if message["method"] == "tools/call"
    ]
    assert calls[0] == calls[2] != calls[1]
    assert all(
        headers["mcp-protocol-version"] == "2025-11-25"
        for _, headers, message in front.seen.requests
        if message["method"] != "initialize"
    )


def test_a_trace_goes_on_to_the_server(front: Front) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "things__leak"}}
    front.stand.post("/mcp", json.dumps(body).encode(), {"traceparent": trace})
    sent = [one for _, one, message in front.seen.requests if message["method"] == "tools/call"]
    assert sent[0]["traceparent"] == trace


def test_neither_the_clients_key_nor_the_servers_passes_the_gateway(front: Front) -> None:
    front.call("things__echo", text="x")
    headers = [headers for _, headers, _ in front.seen.requests]
    assert {one["authorization"] for one in headers} == {f"Bearer {TOOLS_KEY}"}
    assert CLIENT_KEY not in json.dumps(headers)


@pytest.mark.parametrize(
    ("key", "listed"),
    [("none", set()), ("server", TOOLS - {"admin_reset"}), ("tool", {"add"})],
)
def test_a_key_sees_and_calls_what_it_covers(front: Front, key: str, listed: set[str]) -> None:
    assert front.tools(key) == {f"things__{name}" for name in listed}
    front.seen.requests.clear()
    for tool in ("add", "echo"):
        arguments: dict[str, Any] = {"a": 1, "b": 2} if tool == "add" else {"text": "x"}
        if tool in listed:
            assert not front.call(f"things__{tool}", key, **arguments).is_error
        else:
            assert front.error(f"things__{tool}", key, **arguments)[::2] == (403, "model_not_allowed")
    assert front.seen.methods().count("tools/call") == len(listed & {"add", "echo"})


@pytest.mark.parametrize("name", ["things__admin_reset", "things__", "things__a b", "nobody__add"])
def test_what_is_not_offered_is_not_asked_for(front: Front, name: str) -> None:
    status, code, machine, message = front.error(name)
    assert (status, code, machine) == (400, -32602, "invalid_request")
    assert "there is no tool" in message
    assert "tools/call" not in front.seen.methods()


def test_wrong_arguments_are_the_servers_to_refuse(front: Front) -> None:
    assert front.call("things__add", a="x").is_error


def test_a_limit_holds(front: Front) -> None:
    assert text(front.call("things__echo", "poor", text="x")) == ["x"]
    assert front.error("things__echo", "poor", text="x")[::2] == (429, "rate_limit_exceeded")
    assert front.seen.methods().count("tools/call") == 1


POLICY = GuardrailPolicy((GuardrailRule("pii", "input", "redact"), GuardrailRule("pii", "output", "redact")))
BLOCK = GuardrailPolicy((GuardrailRule("pii", "input", "block"),))


def policed(url: str, policy: GuardrailPolicy | None, name: str) -> ToolServer:
    async def screens() -> Compiled:
        if policy is None:
            raise NotReady
        return compile_policy(policy)

    return tool_server(url, name, policy=screens)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Front]:
    seen = Seen()
    with (
        sdk_serving(seen) as url,
        gateway(
            policed(url, POLICY, "mild"),
            policed(url, BLOCK, "strict"),
            policed(url, None, "unread"),
            seen=seen,
        ) as front,
    ):
        yield front


def test_arguments_and_results_are_screened_at_any_depth(guarded: Front) -> None:
    guarded.seen.requests.clear()
    guarded.stand.records.clear()
    result = guarded.call("mild__echo", text=MAIL)
    assert text(result) == ["write to [EMAIL]"]
    sent = guarded.seen.requests[-1][2]["params"]["arguments"]
    assert sent == {"text": "write to [EMAIL]"}
    leaked = guarded.call("mild__leak")
    assert (text(leaked), leaked.structured_content) == (["write to [EMAIL]"], {"result": "write to [EMAIL]"})
    failed = guarded.call("mild__fail")
    assert (failed.is_error, "ann@example.org" in json.dumps(text(failed))) == (True, False)
    until(lambda: len(guarded.stand.records) == 3)
    assert guarded.stand.records[0].findings == [("email", "redact")]
    assert guarded.stand.records[1].findings == [("email", "redact")] * 2
    long = "a" * 5000 + " " + MAIL
    assert text(guarded.call("mild__echo", text=long)) == ["a" * 5000 + " write to [EMAIL]"]


def test_bytes_of_a_picture_are_left_alone(guarded: Front) -> None:
    (block,) = guarded.call("mild__picture").content
    assert isinstance(block, types.ImageContent)
    assert base64.b64decode(block.data) == PIXEL


def test_what_a_policy_refuses_is_not_sent(guarded: Front) -> None:
    guarded.seen.requests.clear()
    assert guarded.error("strict__echo", text=MAIL)[:3] == (400, -32602, "guardrail_blocked")
    assert guarded.seen.requests == []


def test_without_its_policy_nothing_passes(guarded: Front) -> None:
    guarded.seen.requests.clear()
    assert guarded.error("unread__echo", text="x")[::2] == (503, "release_not_ready")
    assert guarded.seen.requests == []


def test_a_tool_that_hangs_is_given_up_and_told_so() -> None:
    seen = Seen()
    with sdk_serving(seen) as url, gateway(tool_server(url, total_timeout_s=0.5), seen=seen) as front:
        assert front.error("things__hang")[:3] == (504, -32000, "upstream_timeout")
        until(lambda: "notifications/cancelled" in seen.methods())
        until(lambda: not seen.running)
        assert text(front.call("things__echo", text="x")) == ["x"]


def test_a_client_that_leaves_ends_the_call() -> None:
    seen = Seen()
    with sdk_serving(seen) as url, gateway(tool_server(url), seen=seen) as front:
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "things__hang"}}
        body = json.dumps(call).encode()
        with front.stand.connect() as connection:
            head = f"POST /mcp HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CLIENT_KEY}\r\n"
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            until(lambda: seen.running)
        until(lambda: not seen.running)
        assert front.stand.record().error == "client_closed"


def test_a_result_beyond_the_bound_is_cut_off() -> None:
    seen = Seen()
    with sdk_serving(seen) as url, gateway(tool_server(url, max_response_bytes=10_000)) as front:
        assert front.error("things__much", size=20_000)[::2] == (502, "upstream_too_large")
        assert text(front.call("things__much", size=3)) == ["xxx"]


def test_a_server_that_is_down_is_an_error_and_then_left_alone() -> None:
    with gateway(tool_server("http://127.0.0.1:9/mcp", "down")) as front:
        assert front.tools() == set()
        for _ in range(3):
            status, code, machine, _ = front.error("down__x")
            assert (status, code, machine) == (502, -32000, "upstream_unreachable")
        assert front.error("down__x")[:3] == (503, -32000, "circuit_open")
        assert [record.attempts for record in front.stand.records][-4:] == [1, 1, 1, 0]


def test_a_server_that_is_down_does_not_hide_the_others() -> None:
    with sdk_serving(Seen()) as url:
        down = tool_server("http://127.0.0.1:9/mcp", "down")
        with gateway(down, tool_server(url, "up", patterns=("echo",))) as front:
            assert front.tools() == {"up__echo"}


def test_a_server_that_died_and_came_back_gets_a_new_session() -> None:
    lost = threading.Event()

    def say(message: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if message.get("method") == "initialize":
            status, headers, body = result_of(message)
            return status, {**headers, "mcp-session-id": "two" if lost.is_set() else "one"}, body
        known = seen.requests[-1][1].get("mcp-session-id") == ("two" if lost.is_set() else "one")
        return result_of(message, content=[]) if known else (404, {}, b"")

    seen = Seen()
    with scripted(seen, say) as url, gateway(tool_server(url)) as front:
        front.call("things__x")
        lost.set()
        front.call("things__x")
        assert seen.sessions() == ["one", "two"]
        calls = [headers["mcp-session-id"] for _, headers, m in seen.requests if m["method"] == "tools/call"]
        assert calls == ["one", "one", "two"]


def test_a_server_that_forgets_every_session_is_not_asked_for_ever() -> None:
    def say(message: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = result_of(message)
        if message.get("method") == "initialize":
            return status, {**headers, "mcp-session-id": "one"}, body
        return (404, {}, b"") if "id" in message else (status, headers, body)

    seen = Seen()
    with scripted(seen, say) as url, gateway(tool_server(url)) as front:
        assert front.error("things__x")[2] == "upstream_broken"
        assert seen.methods().count("tools/call") == 2


def event(*messages: Any) -> tuple[int, dict[str, str], bytes]:
    lines = "".join(f": keep\r\nevent: message\r\ndata: {json.dumps(one)}\r\n\r\n" for one in messages)
    return 200, {"content-type": "text/event-stream"}, lines.encode()


def rpc(message: dict[str, Any], **body: Any) -> tuple[int, dict[str, str], bytes]:
    answer = {"jsonrpc": "2.0", "id": message["id"], **body}
    return 200, {"content-type": "application/json"}, json.dumps(answer).encode()


ODD: dict[str, tuple[Any, tuple[int, int, str]]] = {
    "not JSON": (lambda _m: (200, {}, b"<html>"), (502, -32000, "upstream_broken")),
    "no message": (lambda _m: (200, {}, b"7"), (502, -32000, "upstream_broken")),
    "another's answer": (
        lambda m: rpc({"id": m["id"] + 1}, result={"content": []}), (502, -32000, "upstream_broken"),
    ),
    "nothing": (lambda _m: (202, {}, b""), (502, -32000, "upstream_broken")),
    "an end of events": (lambda _m: event(), (502, -32000, "upstream_broken")),
    "a result that is none": (lambda m: rpc(m, result=[1]), (502, -32000, "upstream_broken")),
    "no content": (lambda m: rpc(m, result={"content": "x"}), (502, -32000, "upstream_broken")),
    "a task": (lambda m: rpc(m, result={"task": {}}), (502, -32000, "upstream_broken")),
    "wrong parameters": (
        lambda m: rpc(m, error={"code": -32602, "message": "no"}), (400, -32602, "upstream_error"),
    ),
    "a fault": (lambda m: rpc(m, error={"code": -32603, "message": "no"}), (502, -32000, "upstream_error")),
    "an error that is none": (lambda m: rpc(m, error="x"), (502, -32000, "upstream_error")),
    "a refused key": (lambda _m: (401, {}, b"sk-secret"), (502, -32000, "upstream_error")),
    "a redirect": (lambda _m: (307, {"location": "http://x/"}, b""), (502, -32000, "upstream_error")),
    "too many": (lambda _m: (429, {"retry-after": "7"}, b""), (429, -32000, "upstream_error")),
    "a crash": (lambda _m: (500, {}, b"sk-secret"), (502, -32000, "upstream_error")),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_whatever_a_server_says_is_a_result_or_a_clear_error(kind: str) -> None:
    say, expected = ODD[kind]

    def answer(message: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        found: tuple[int, dict[str, str], bytes] = (
            say(message) if message.get("method") == "tools/call" else result_of(message)
        )
        return found

    with scripted(Seen(), answer) as url, gateway(tool_server(url)) as front:
        *told, message = front.error("things__x")
        assert tuple(told) == expected
        assert "things" in message or "tool" in message
        assert "sk-secret" not in message


def test_a_server_that_asks_is_answered_and_its_answer_still_found() -> None:
    def say(message: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if message.get("method") != "tools/call":
            return result_of(message) if message.get("method") else (202, {}, b"")
        head = {"jsonrpc": "2.0"}
        result = {"content": [{"type": "text", "text": "hi", "_meta": {}}], "_meta": {"secret": 1}}
        return event(
            {**head, "id": "p", "method": "ping"},
            {**head, "id": "s", "method": "sampling/createMessage", "params": {}},
            [{**head, "method": "notifications/message", "params": {}}],
            {**head, "id": message["id"], "result": result},
        )

    seen = Seen()
    with scripted(seen, say) as url, gateway(tool_server(url)) as front:
        assert text(front.call("things__x")) == ["hi"]
        until(lambda: seen.methods().count("answer") == 2)
        answers = {m["id"]: m for _, _, m in seen.requests if "method" not in m}
        assert answers["p"]["result"] == {}
        assert answers["s"]["error"]["code"] == -32601


def test_a_revision_that_is_not_spoken_is_refused() -> None:
    def say(message: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        return rpc(message, result={"protocolVersion": "1999-01-01"})

    with scripted(Seen(), say) as url, gateway(tool_server(url)) as front:
        assert "1999-01-01" in front.error("things__x")[3]


def test_lists_in_pages_are_read_to_the_end_and_odd_tools_left_out() -> None:
    schema = {"inputSchema": {"type": "object"}}
    pages = {
        None: ([{"name": "a", **schema}, {"name": "no schema"}, "x"], "2"),
        "2": ([{"name": "b", **schema, "execution": {"taskSupport": "required"}}], "3"),
        "3": ([{"name": "c", **schema, "_meta": {}, "icons": []}, {"name": "d e", **schema}], None),
    }

    def say(message: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        if message.get("method") != "tools/list":
            return result_of(message)
        tools, cursor = pages[message["params"].get("cursor")]
        return result_of(message, tools=tools, **({"nextCursor": cursor} if cursor else {}))

    with scripted(Seen(), say) as url, gateway(tool_server(url)) as front:
        assert front.tools() == {"things__a", "things__c"}
        _, result = front.say("tools/list")
        assert result["tools"][-1] == {"name": "things__c", **schema}


def test_sessions_are_bounded_and_ended() -> None:
    seen = Seen()
    with sdk_serving(seen) as url:
        with gateway(tool_server(url, max_sessions=1)) as front:
            front.call("things__echo", text="x")
            front.call("things__echo", "other", text="x")
            until(lambda: [method for method, _, _ in seen.requests].count("DELETE") == 1)
        assert [method for method, _, _ in seen.requests].count("DELETE") == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(MAIL) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just(MAIL), inner),
    max_leaves=12,
)


@given(JSON)
def test_no_depth_hides_a_text_from_its_screen(value: Any) -> None:
    screen = compile_policy(POLICY).input
    assert screen is not None
    findings: list[tuple[str, str]] = []
    screened = _anything(screen, value, findings)
    told = json.dumps(screened)
    assert "ann@example.org" not in told
    if not findings:
        assert screened == value
