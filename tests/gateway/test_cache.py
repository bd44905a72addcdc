"""Equal requests of one account get one answer, and nobody else's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest

from gateway.dataplane.cache import Cache
from gateway.dataplane.table import Grant, Route
from tests.fakes.parts import CLIENT_KEY, DIGEST, DataPlane, FixedSources, provider_at, table_of
from tests.fakes.server import serving
from tests.fakes.stand import USER, Stand
from tests.fakes.upstream import MODEL, Fault, Upstream

OTHER_KEY = "sk-sg-other"


@pytest.fixture
def kept(up: Upstream) -> Iterator[Stand]:
    """A gateway that keeps answers of `support`, and none of `fresh`; two accounts may ask."""
    up.seen.clear()
    up.faults.clear()
    up.answer = "forty two"
    provider = provider_at(up.url)
    routes = {
        name: Route(name=name, digest=DIGEST.replace("ab", digits), model=MODEL, provider=provider)
        for name, digits in (("support", "ab"), ("fresh", "cd"))
    }
    table = table_of(routes)
    other = Grant("key_2", ("*",), account="key_2")
    digest = hashlib.sha256(OTHER_KEY.encode()).hexdigest()
    sources = FixedSources(replace(table, grants={**table.grants, digest: other}))
    stand = Stand("", up)
    with serving(DataPlane(sources, stand.records.append, cache=Cache({"support": 60}))) as stand.url:
        yield stand
        stand.client.close()


def ask(stand: Stand, key: str = CLIENT_KEY, headers: dict[str, str] | None = None, **more: Any) -> Any:
    body = {"model": "support", "messages": USER, **more}
    status, said, answer = stand.post(
        "/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {key}", **(headers or {})},
    )
    assert status == 200
    return said.get("x-sluicegate-cache"), answer["choices"][0]["message"]["content"]


def test_an_equal_request_gets_the_same_answer_without_asking(kept: Stand) -> None:
    assert ask(kept) == ("miss", "forty two")
    kept.up.answer = "another"
    assert ask(kept) == ("hit", "forty two")
    assert len(kept.up.seen) == 1
    assert [(record.replayed, record.attempts) for record in kept.records] == [(False, 1), (True, 0)]
    assert [record.cost_microusd for record in kept.records][1] is None


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.5}, {"user": "ann"}, {"messages": [*USER, {"role": "user", "content": "Now?"}]}],
)
def test_another_request_is_asked(kept: Stand, change: dict[str, Any]) -> None:
    ask(kept)
    kept.up.answer = "another"
    assert ask(kept, **change) == ("miss", "another")


def test_no_account_gets_what_another_was_told(kept: Stand) -> None:
    ask(kept)
    kept.up.answer = "for the other"
    assert ask(kept, OTHER_KEY) == ("miss", "for the other")


def test_a_release_that_settings_do_not_name_is_asked_each_time(kept: Stand) -> None:
    assert ask(kept, model="fresh")[0] is None
    assert ask(kept, model="fresh")[0] is None
    assert len(kept.up.seen) == 2


@pytest.mark.parametrize("word", ["no-cache", "No-Store, max-age=0"])
def test_a_client_may_ask_anew(kept: Stand, word: str) -> None:
    ask(kept)
    kept.up.answer = "another"
    assert ask(kept, headers={"cache-control": word}) == (None, "another")


def test_a_stream_is_given_again_as_a_stream(kept: Stand) -> None:
    def streamed(**more: Any) -> tuple[str, int]:
        chunks = list(
            kept.client.chat.completions.create(model="support", messages=USER, stream=True, **more)
        )
        return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), len(chunks)

    first = streamed()
    kept.up.answer = "another"
    assert streamed() == first
    assert streamed(stream_options={"include_usage": True})[0] == "another"


def test_another_dialect_has_answers_of_its_own(kept: Stand) -> None:
    ask(kept)
    kept.up.answer = "another"
    with anthropic.Anthropic(base_url=kept.url, api_key=CLIENT_KEY, max_retries=0) as client:
        said: list[Any] = [
            client.messages.create(model="support", max_tokens=9, messages=USER).content[0] for _ in range(2)
        ]
    assert [block.text for block in said] == ["another", "another"]
    assert len(kept.up.seen) == 2


def test_what_failed_is_not_kept(kept: Stand) -> None:
    kept.up.faults.append(Fault(status=400, body=b'{"error": {"message": "No."}}'))
    with pytest.raises(openai.BadRequestError):
        kept.client.chat.completions.create(model="support", messages=USER)
    assert ask(kept) == ("miss", "forty two")


def test_answers_are_bounded_in_bytes_and_in_time() -> None:
    now = [0.0]
    cache = Cache({"*": 10}, 800, lambda: now[0])
    route = Route(name="support", digest=DIGEST)
    exchange: Any = SimpleNamespace(record=SimpleNamespace(account="a"), path="/", header=lambda _name: None)
    keys = [cache.key(exchange, route, {"n": json.dumps(at)}, usage=True) for at in range(20)]  # type: ignore[dict-item]
    for key in keys:
        assert key is not None
        cache.put(key, route, ((b"x-sluicegate-release", b"x"), (b"a", b"b")), b"x" * 90)
    assert cache.bytes <= 800
    assert keys[-1] is not None
    found = cache.get(keys[-1])
    assert found is not None
    assert found.headers == ((b"a", b"b"),)
    now[0] = 11
    assert cache.get(keys[-1]) is None
