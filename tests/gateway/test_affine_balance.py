"""Prompts that begin alike go to the same place while it can take them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.balance import Balance
from gateway.dataplane.balance import Upstream as Place
from gateway.dataplane.breaker import Breaker
from gateway.dataplane.table import Route
from gateway.errors import UpstreamUnreachable
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, Scripted, provider_at, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.fakes.upstream import MODEL, Upstream, upstream

KEYS = st.integers(0, 2**64 - 1)


def balance(places: int = 3, *, backup: bool = False, affine: bool = True) -> Balance:
    tier = [Place(f"vllm#{n}", Scripted(None), MODEL, f"vllm/{MODEL}") for n in range(places)]
    if backup:
        tier.append(Place("spare", Scripted(None), MODEL, f"vllm/{MODEL}", weight=0.0))
    return Balance([tier], affine=[affine])


def name(made: Balance, key: int | None) -> str:
    """Who answers one request, alone."""
    plan = made.plan(key)
    place = plan.next()
    assert place is not None
    plan.succeeded()
    return place.name


@given(KEYS)
def test_one_beginning_has_one_place_while_that_is_free(key: int) -> None:
    made = balance(backup=True)
    assert len({name(made, key) for _ in range(9)}) == 1
    assert name(made, key) != "spare"


def test_many_beginnings_share_all_places() -> None:
    made = balance()
    assert {name(made, key * 7919) for key in range(60)} == {"vllm#0", "vllm#1", "vllm#2"}


def test_without_a_key_or_affinity_turns_are_taken() -> None:
    assert len({name(balance_, None) for balance_ in [balance()] for _ in range(3)}) == 3
    made = balance(affine=False)
    assert not made.is_affine
    assert len({name(made, 1) for _ in range(3)}) == 3


@given(KEYS)
def test_a_place_that_has_too_much_is_passed_over(key: int) -> None:
    made = balance()
    names = [plan.next().name for plan in [made.plan(key) for _ in range(9)]]  # type: ignore[union-attr]
    assert names[0] == names[1]
    # At most half more than its share, and two in any case.
    assert len(set(names)) > 1
    assert max(names.count(one) for one in set(names)) <= 5


@given(KEYS)
def test_a_place_that_is_left_alone_is_passed_over_and_gets_its_prompts_back(key: int) -> None:
    made = balance()
    mine = name(made, key)
    place = next(one for one in made.upstreams() if one.name == mine)
    place.breaker = Breaker(failures=1, open_s=60)
    place.breaker.failed(place.breaker.allow(monotonic()), monotonic())
    others = {name(made, key) for _ in range(5)}
    assert mine not in others
    assert len(others) == 1
    place.breaker = Breaker()
    assert name(made, key) == mine


@given(KEYS)
def test_a_call_that_failed_is_repeated_elsewhere(key: int) -> None:
    made = balance()
    plan = made.plan(key)
    first = plan.next()
    assert first is not None
    assert plan.failed(UpstreamUnreachable("gone")) == 0.0
    second = plan.next()
    assert second is not None
    assert second.name != first.name
    plan.succeeded()


@pytest.fixture
def stand(up: Upstream) -> Iterator[tuple[Stand, Upstream]]:
    up.faults.clear()
    up.seen.clear()
    with upstream() as other:
        places = [
            Place(f"vllm#{n}", provider_at(url), MODEL, f"vllm/{MODEL}")
            for n, url in enumerate((up.url, other.url))
        ]
        route = Route(
            name="support", digest=DIGEST, model=MODEL, provider=places[0].provider,
            balance=Balance([places], affine=[True]),
        )  # fmt: skip
        made = Stand("", up)
        with serving(DataPlane(FixedSources(table_of({"support": route})), made.records.append)) as url:
            made.url = url
            yield made, other
            made.client.close()


def test_every_turn_of_a_conversation_goes_to_one_replica(stand: tuple[Stand, Upstream]) -> None:
    made, other = stand
    places = set()
    for number in range(8):
        said: list[dict[str, Any]] = [{"role": "user", "content": f"conversation {number}: " + "long " * 40}]
        for _turn in range(3):
            body = json.dumps({"model": "support", "messages": said}).encode()
            status, _, _ = made.post("/v1/chat/completions", body)
            assert status == 200
            said += [{"role": "assistant", "content": "forty two"}, {"role": "user", "content": "and then?"}]
        asked = {record.upstream for record in made.records}
        assert len(asked) == 1
        places |= asked
        made.records.clear()
    assert places == {"vllm#0", "vllm#1"}
    assert len(other.seen) + len(made.up.seen) == 24
