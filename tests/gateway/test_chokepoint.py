"""Every way into the data plane passes the same checks: key, route, limit, guard, record, cancellation."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.dataplane.mcp_proxy import ToolServer
from gateway.dataplane.routes import EXACT, PATTERNS
from gateway.dataplane.table import Grant, Route, RouteTable, Subject
from gateway.dataplane.usage import UsageRecord
from gateway.guardrails.policy import Compiled, compile_policy
from registry.clock import utc_now
from registry.entities import Feedback, GuardrailPolicy, GuardrailRule, Limits, UsageEntry
from registry.ids import sortable_id
from tests.fakes.parts import (
    CLIENT_KEY,
    DIGEST,
    DataPlane,
    FixedSources,
    FoundPassage,
    ListRetriever,
    Threshold,
    memory_limiter,
    provider_at,
    table_of,
)
from tests.fakes.server import serving
from tests.fakes.stand import Stand, until
from tests.fakes.toolserver import Seen, sdk_serving, tool_server
from tests.fakes.upstream import MODEL, Upstream

ROW = {"plan": "basic", "months": 3}
MAIL = "Write to ann@example.org"
NARROW_KEY = "sk-sg-narrow"
BLOCK = compile_policy(GuardrailPolicy((GuardrailRule("pii", "input", "block"),))).input


@dataclass(frozen=True)
class Way:
    """A route with a request that it answers."""

    path: str
    body: Any
    guarded: Any = None
    """The same with personal data; None where a route takes no text that a model reads."""
    route: str = ""
    """As usage records name it; by default the path."""
    method: str = "POST"
    answers: int = 200

    @property
    def name(self) -> str:
        return self.route or self.path


def tool(name: str, **arguments: str) -> dict[str, Any]:
    """A call of the Model Context Protocol."""
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


INPUTS = [
    {"name": name, "shape": [1], "datatype": datatype, "data": [ROW[name]]}
    for name, datatype in (("plan", "BYTES"), ("months", "FP64"))
]
REQUEST = sortable_id("req", utc_now())
WAYS = [
    Way(
        "/v1/chat/completions",
        {"model": "support", "messages": [{"role": "user", "content": "Which tower?"}]},
        {"model": "support", "messages": [{"role": "user", "content": MAIL}]},
    ),
    Way("/v1/completions", {"model": "plain", "prompt": "A"}, {"model": "plain", "prompt": MAIL}),
    Way("/v1/embeddings", {"model": "books", "input": "a"}, {"model": "books", "input": MAIL}),
    Way(
        "/v1/messages",
        {"model": "support", "max_tokens": 9, "messages": [{"role": "user", "content": "Which tower?"}]},
        {"model": "support", "max_tokens": 9, "messages": [{"role": "user", "content": MAIL}]},
    ),
    Way(
        "/v1/messages/count_tokens",
        {"model": "support", "messages": [{"role": "user", "content": "Which tower?"}]},
    ),
    Way(
        "/v1/responses",
        {"model": "support", "input": "Which tower?"},
        {"model": "support", "input": MAIL},
    ),
    Way("/mcp", tool("ask_support", question="Which tower?"), tool("ask_support", question=MAIL)),
    Way("/mcp", tool("things__echo", text="Which tower?"), tool("things__echo", text=MAIL)),
    Way("/v1/moderations", {"input": "a"}),
    Way("/v1/feedback", {"request_id": REQUEST, "score": 1}, answers=201),
    Way(f"/v1/generations/{REQUEST}", None, None, "/v1/generations/{id}", "GET"),
    Way(
        "/v1/rerank",
        {"model": "books", "query": "a", "documents": ["b"]},
        {"model": "books", "query": MAIL, "documents": ["b"]},
    ),
    Way(
        "/v1/vector_stores/books/search",
        {"query": "tower"},
        {"query": MAIL},
        "/v1/vector_stores/{release}/search",
    ),
    Way("/v2/models/churn/infer", {"inputs": INPUTS}, None, "/v2/models/{name}/infer"),
    Way("/v2/repository/index", {}),
    Way("/v2/repository/models/churn/load", {}, None, "/v2/repository/models/{name}/load", answers=403),
    Way("/v2/repository/models/churn/unload", {}, None, "/v2/repository/models/{name}/unload", answers=403),
    Way("/invocations", {"dataframe_records": [ROW]}),
    Way("/predict", {"features": ROW}),
    Way("/predict/batch", [{"features": ROW}]),
]
READING = {"/v1/models"}
"""Reading what there is: it takes no body and reaches no model."""


@dataclass
class OneRecord:
    """Knows one request, of the account `key_1`."""

    said: list[Feedback] = field(default_factory=list)

    async def find(self, request_id: str) -> UsageEntry | None:
        return UsageEntry(REQUEST, "", "key_1") if request_id == REQUEST else None

    async def give(self, entry: UsageEntry, said: Feedback) -> tuple[str, bool]:
        assert entry.request_id == REQUEST
        self.said.append(said)
        return "fb_1", True


def routes(up: Upstream) -> dict[str, Route]:
    provider = provider_at(up.url)
    passage = FoundPassage("tower#0", "tower", "The tower", "A tower in Paris.", 0.875)
    return {
        "support": Route(name="support", digest=DIGEST, model=MODEL, provider=provider, input=BLOCK),
        "plain": Route(name="plain", digest=DIGEST, model=MODEL, provider=provider, input=BLOCK),
        "books": Route(name="books", digest=DIGEST, retriever=ListRetriever((passage,)), input=BLOCK),
        "churn": Route(name="churn", digest=DIGEST, kind="prediction", predictor=Threshold()),
    }


def table(up: Upstream, limits: Limits | None = None) -> RouteTable:
    subjects = (Subject("key", "key_1", limits),) if limits else ()
    made = table_of(routes(up), subjects=subjects)
    narrow = Grant("key_2", ("*",), routes=("/nothing",), account="key_2")
    digest = hashlib.sha256(NARROW_KEY.encode()).hexdigest()
    return replace(made, grants={**made.grants, digest: narrow})


@pytest.fixture(scope="module")
def tools() -> Iterator[str]:
    with sdk_serving(Seen()) as url:
        yield url


def things(url: str) -> dict[str, ToolServer]:
    """Another server's tools, behind a policy that blocks."""

    async def policy() -> Compiled:
        return Compiled(BLOCK, None)

    return {"things": tool_server(url, policy=policy)}


@pytest.fixture(scope="module")
def gate(up: Upstream, tools: str) -> Iterator[Stand]:
    stand = Stand("", up)
    sources = FixedSources(table(up))
    with serving(
        DataPlane(
            sources,
            stand.records.append,
            default_predict="churn",
            records=OneRecord(),
            tool_servers=things(tools),
        )
    ) as stand.url:
        yield stand
        stand.client.close()


@pytest.fixture
def records(gate: Stand) -> list[UsageRecord]:
    gate.records.clear()
    return gate.records


ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


def ask(stand: Stand, way: Way, body: Any, key: str = CLIENT_KEY) -> tuple[int, Any]:
    data = json.dumps(body).encode() if body is not None else b""
    status, _, answer = stand.post(way.path, data, {"authorization": f"Bearer {key}"}, way.method)
    return status, answer


def test_every_route_is_tried_here() -> None:
    taking_keys = {path for path, (_, _, needs_key) in EXACT.items() if needs_key} - READING
    asked = {(way.name, way.method) for way in WAYS}
    patterns = {
        (name, method)
        for _, _, name, method, _ in PATTERNS
        if method == "POST" or name == "/v1/generations/{id}"
    }
    assert asked == {(path, EXACT[path][0]) for path in taking_keys} | patterns


@ways
def test_nobody_passes_without_a_key(gate: Stand, records: list[UsageRecord], way: Way) -> None:
    assert ask(gate, way, way.body, "sk-sg-wrong")[0] == 401
    assert (records[0].error, records[0].attempts) == ("invalid_api_key", 0)


@ways
def test_a_key_calls_only_the_routes_it_was_made_for(
    gate: Stand, records: list[UsageRecord], way: Way
) -> None:
    assert ask(gate, way, way.body, NARROW_KEY)[0] == 403
    assert records[0].key_id == "key_2"


@ways
def test_each_answer_leaves_one_record(gate: Stand, records: list[UsageRecord], way: Way) -> None:
    status, answer = ask(gate, way, way.body)
    assert status == way.answers, answer
    until(lambda: records)
    (record,) = records
    assert (record.route, record.status, record.key_id, record.account) == (
        way.name,
        way.answers,
        "key_1",
        "key_1",
    )
    assert record.duration_s > 0


@ways
def test_a_limit_holds(up: Upstream, way: Way, tools: str) -> None:
    stand = Stand("", up)
    sources = FixedSources(table(up, Limits(rpm=1)))
    plane = DataPlane(
        sources,
        stand.records.append,
        default_predict="churn",
        limiter=memory_limiter(),
        records=OneRecord(),
        tool_servers=things(tools),
    )
    with serving(plane) as stand.url:
        found = [ask(stand, way, way.body)[0] for _ in range(2)]
    assert found == [way.answers, 429]
    assert [record.limited for record in stand.records] == ["", "key.rpm"]


@pytest.mark.parametrize("way", [way for way in WAYS if way.guarded], ids=lambda way: way.name)
def test_a_guard_is_asked(gate: Stand, records: list[UsageRecord], way: Way) -> None:
    status, answer = ask(gate, way, way.guarded)
    assert status == 400, answer
    until(lambda: records)
    assert (records[0].error, records[0].findings) == ("guardrail_blocked", [("email", "block")])


@pytest.mark.parametrize("way", [way for way in WAYS if way.method == "POST"], ids=lambda way: way.name)
def test_a_client_that_leaves_is_noted_and_asks_nobody(
    gate: Stand, records: list[UsageRecord], way: Way, up: Upstream
) -> None:
    body = json.dumps(way.body).encode()
    up.seen.clear()
    parts = urlsplit(gate.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5) as connection:
        head = f"POST {way.path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CLIENT_KEY}\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:-1])
    until(lambda: records)
    assert (records[0].status, records[0].error) == (499, "client_closed")
    assert not up.seen
