"""What a request may prefer of the upstreams that could answer it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.dataplane.balance import Balance
from gateway.dataplane.balance import Upstream as Place
from gateway.dataplane.cache import Cache
from gateway.dataplane.table import Prices, Route, RouteTable, Target
from registry.clock import from_text
from registry.entities import Price
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, provider_at, table_of
from tests.fakes.server import serving
from tests.fakes.stand import USER, Stand
from tests.fakes.upstream import MODEL, Fault, Upstream, upstream

SINCE = from_text("2026-01-01T00:00:00Z")
CHEAP, DEAR = 1_000_000, 30_000_000
"""Pico-USD for a token: 1 and 30 dollars for a million."""


@pytest.fixture
def other() -> Iterator[Upstream]:
    with upstream() as fake:
        fake.answer = "from elsewhere"
        yield fake


def place(name: str, url: str, *, keeps_nothing: bool = False) -> Place:
    provider = name.partition("#")[0]
    return Place(name, provider_at(url), MODEL, f"{provider}/{MODEL}", keeps_nothing=keeps_nothing)


@pytest.fixture
def stand(up: Upstream, other: Upstream) -> Iterator[Stand]:
    up.faults.clear()
    up.seen.clear()
    up.answer = "forty two"
    vllm, ollama = place("vllm", up.url), place("ollama", other.url, keeps_nothing=True)
    replicas = [place("vllm", up.url), place("vllm#2", other.url)]
    directs = {
        f"vllm/{MODEL}": Target(
            Route(
                name="vllm/*", model=MODEL, provider=vllm.provider, balance=Balance([[vllm]], max_retries=0)
            )
        ),
        f"ollama/{MODEL}": Target(
            Route(
                name="ollama/*",
                model=MODEL,
                provider=ollama.provider,
                balance=Balance([[ollama]], max_retries=0),
            )
        ),
    }
    support = Route(
        name="support", digest=DIGEST, model=MODEL, provider=replicas[0].provider,
        balance=Balance([replicas, [ollama]], max_retries=0),
    )  # fmt: skip
    prices = Prices(
        {
            f"vllm/{MODEL}": (Price(f"vllm/{MODEL}", SINCE, DEAR, DEAR),),
            f"ollama/{MODEL}": (Price(f"ollama/{MODEL}", SINCE, CHEAP, CHEAP),),
        }
    )
    table: RouteTable = table_of(
        {"support": support}, models=("support", "vllm/*", "ollama/*"), prices=prices
    )
    made = Stand("", up)
    plane = DataPlane(FixedSources(table, directs=directs), made.records.append, cache=Cache({"support": 60}))
    with serving(plane) as url:
        made.url = url
        yield made
        made.client.close()


def ask(stand: Stand, model: str, **more: Any) -> tuple[int, Any, dict[str, str]]:
    body = {"model": model, "messages": USER, **more}
    status, headers, answer = stand.post("/v1/chat/completions", json.dumps(body).encode())
    told = answer["choices"][0]["message"]["content"] if status == 200 else answer["error"]
    return status, told, headers


def test_further_models_answer_when_the_first_cannot(stand: Stand, other: Upstream) -> None:
    models = [f"ollama/{MODEL}"]
    assert ask(stand, f"vllm/{MODEL}", models=models)[1] == "forty two"
    stand.up.faults.append(Fault(status=500, body=b"{}"))
    status, told, headers = ask(stand, f"vllm/{MODEL}", models=models)
    assert (status, told, headers["x-sluicegate-fallback"]) == (200, "from elsewhere", f"ollama/{MODEL}")
    assert (stand.records[-1].model, stand.records[-1].attempts) == (f"ollama/{MODEL}", 2)
    assert set(other.seen[-1].body) == {"model", "messages"}


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"order": ["ollama"]}, "from elsewhere"),
        ({"only": ["ollama"]}, "from elsewhere"),
        ({"ignore": ["vllm"]}, "from elsewhere"),
        ({"only": ["vllm#2"]}, "from elsewhere"),
        ({"order": ["vllm#2", "vllm"]}, "from elsewhere"),
        ({"ignore": ["vllm#2", "ollama"]}, "forty two"),
        ({"max_price": {"prompt": 2}}, "from elsewhere"),
        ({"max_price": {"completion": 1}}, "from elsewhere"),
        ({"data_collection": "deny"}, "from elsewhere"),
        ({"only": [f"vllm/{MODEL}"], "ignore": ["vllm#2"], "allow_fallbacks": False}, "forty two"),
    ],
)
def test_places_of_a_release_are_narrowed_and_ordered(stand: Stand, wanted: Any, told: str) -> None:
    assert {ask(stand, "support", provider=wanted)[1] for _ in range(4)} == {told}


def test_what_was_answered_by_preference_is_not_given_to_others(stand: Stand, other: Upstream) -> None:
    for _ in range(2):
        ask(stand, "support", provider={"data_collection": "deny"})
    assert len(other.seen) == 2
    for _ in range(3):
        ask(stand, "support")
    assert len(other.seen) + len(stand.up.seen) == 3


@pytest.mark.parametrize(
    ("more", "param", "says"),
    [
        ({"models": [f"ollama/{MODEL}"]}, "models", "is a release, which names its own fallbacks"),
        ({"models": "x"}, "models", "models"),
        ({"provider": {"only": ["nobody"]}}, "provider", "nothing is left of ollama, vllm, vllm#2"),
        ({"provider": {"max_price": {"prompt": 0.5}}}, "provider", "nothing is left"),
        ({"provider": {"data_collection": "deny", "ignore": ["ollama"]}}, "provider", "nothing is left"),
        ({"provider": {"sort": "price"}}, "provider", "sort"),
        ({"provider": 3}, "provider", "provider"),
    ],
)
def test_what_cannot_be_accepted_is_refused(stand: Stand, more: Any, param: str, says: str) -> None:
    status, error, _ = ask(stand, "support", **more)
    assert (status, error["param"]) == (400, param)
    assert says in error["message"]
    assert stand.up.seen == []


def test_a_further_model_needs_its_key_and_must_exist(stand: Stand) -> None:
    status, error, _ = ask(stand, f"vllm/{MODEL}", models=["openai/gpt-x"])
    assert (status, error["code"]) == (403, "model_not_allowed")
    status, error, _ = ask(stand, f"vllm/{MODEL}", models=["ollama/none"])
    assert (status, error["code"]) == (404, "model_not_found")
    status, error, _ = ask(stand, f"vllm/{MODEL}", models=["support"])
    assert (status, error["param"]) == (400, "models")
    status, error, _ = ask(stand, f"vllm/{MODEL}", models=[f"ollama/{n}" for n in range(9)])
    assert (status, error["param"]) == (400, "models")
