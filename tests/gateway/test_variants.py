"""Prompts that share a release's traffic, and what else a prompt version brings into a request."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.controlplane.compile import _parameters
from gateway.dataplane.table import Prices, Route
from gateway.dataplane.variants import Branch, choose
from gateway.telemetry import Telemetry
from registry.clock import from_text
from registry.entities import (
    Price,
    PromptContent,
    PromptMessage,
    ReleaseContent,
    ServedRelease,
    Variant,
    Version,
)
from registry.errors import BadInput
from registry.templates import compile_prompt
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, provider_at, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.fakes.upstream import MODEL, Upstream

SINCE = from_text("2026-01-01T00:00:00Z")
OTHER = "sha256:" + "5" * 64


def prompt(text: str) -> PromptContent:
    return PromptContent((PromptMessage("user", text + " {{ question }}"),), {"question": "text"})


def branch(name: str, weight: int, text: str = "") -> Branch:
    return Branch(name, weight, compile_prompt(prompt(text or name)), frozenset({"question"}))


@given(st.text(max_size=40), st.integers(1, 60), st.integers(1, 39))
def test_the_same_person_always_gets_the_same_variant(who: str, first: int, second: int) -> None:
    branches = (branch("a", first), branch("b", second))
    assert choose(branches, DIGEST, who) == choose(branches, DIGEST, who)


def test_shares_are_what_the_release_says() -> None:
    branches = (branch("a", 20), branch("b", 30))
    chosen = Counter(
        b.name if (b := choose(branches, DIGEST, f"user {n}")) else "default" for n in range(10_000)
    )
    assert {name: round(count / 1000) for name, count in chosen.items()} == {"a": 2, "b": 3, "default": 5}


def test_another_release_deals_anew() -> None:
    branches = (branch("a", 50),)
    same = sum(choose(branches, DIGEST, str(n)) == choose(branches, OTHER, str(n)) for n in range(2_000))
    assert 850 <= same <= 1150


@pytest.fixture
def stand(up: Upstream) -> Iterator[Stand]:
    up.faults.clear()
    up.seen.clear()
    provider = provider_at(up.url)
    table = table_of(
        {
            "support": Route(
                name="support", digest=DIGEST, model=MODEL, provider=provider,
                render=compile_prompt(prompt("plain")), variables=frozenset({"question"}),
                branches=(branch("kind", 50),),
                prices=Prices({f"vllm/{MODEL}": (Price(f"vllm/{MODEL}", SINCE, 10**6, 10**6),)}),
            )
        },
        prices=Prices({f"vllm/{MODEL}": (Price(f"vllm/{MODEL}", SINCE, 1, 1),)}),
    )  # fmt: skip
    made = Stand("", up)
    with serving(DataPlane(FixedSources(table), made.records.append)) as url:
        made.url = url
        yield made
        made.client.close()


def ask(stand: Stand, user: str) -> tuple[str, str]:
    """The variant an answer names, and the word that the upstream saw first."""
    raw = stand.client.chat.completions.with_raw_response.create(
        model="support", messages=[{"role": "user", "content": "why?"}], user=user
    )
    raw.parse()
    sent = stand.up.seen[-1].body
    return raw.headers["x-sluicegate-variant"], sent["messages"][-1]["content"].split()[0]


def test_each_user_is_answered_with_one_prompt_and_told_which(stand: Stand) -> None:
    seen = {user: ask(stand, user) for user in map(str, range(12))}
    assert {user: ask(stand, user) for user in seen} == seen
    assert set(seen.values()) == {("kind", "kind"), ("default", "plain")}


def test_metrics_compare_the_variants(stand: Stand) -> None:
    asked = Counter(ask(stand, str(number))[0] for number in range(8))
    telemetry = Telemetry(_State())
    for record in stand.records:
        telemetry.emit(record)
    text = telemetry.render().decode()
    for name, count in asked.items():
        labels = f'outcome="ok",release="support",variant="{name}"'
        line = f"sluicegate_variant_requests_total{{{labels}}} {count}.0"
        assert line in text


def test_a_release_is_charged_by_its_own_price_table(stand: Stand) -> None:
    ask(stand, "ann")
    (record,) = stand.records
    assert record.cost_microusd == record.prompt_tokens + record.completion_tokens


def served(content: PromptContent, tools: tuple[Any, ...] = (), **parameters: Any) -> ServedRelease:
    version = Version("release", "support", 1, DIGEST, {}, {}, SINCE, "ann")
    release = ReleaseContent("chat", "support", "openai/x", parameters=parameters, prompt=OTHER)
    return ServedRelease(version, release, prompt=content, tools=tools)


def test_tools_and_response_schema_of_a_prompt_are_set_in_every_request() -> None:
    own, schema = {"type": "function", "function": {"name": "look_up"}}, {"type": "object"}
    other = {"type": "function", "function": {"name": "mail"}}
    content = PromptContent((PromptMessage("user", "x"),), tools=(own,), response_schema=schema)
    assert _parameters(served(content, (other,), temperature=0)) == {
        "tools": [other, own],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "support", "schema": schema, "strict": True},
        },
        "temperature": 0,
    }
    assert _parameters(served(prompt("x"))) == {}


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ((Variant("a", OTHER, 50), Variant("b", OTHER, 50)), "leave some"),
        ((Variant("a", OTHER, 0),), "at least 1"),
        ((Variant("a", OTHER, 5), Variant("a", OTHER, 5)), "own name"),
        ((Variant("default", OTHER, 5),), "default is the prompt itself"),
    ],
)
def test_variants_that_no_traffic_would_reach_are_refused(variants: tuple[Variant, ...], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        ReleaseContent("chat", "support", "openai/x", prompt=OTHER, variants=variants)


class _State:
    """Nothing is served."""

    table = table_of({})
    ready = True
    registry_error = None
    upstreams = ()


def test_the_share_of_a_person_is_that_of_a_digest() -> None:
    point = int.from_bytes(hashlib.sha256(f"{DIGEST}\0ann".encode()).digest()[:8]) % 10_000
    assert (choose((branch("a", 50),), DIGEST, "ann") is not None) == (point < 5_000)
