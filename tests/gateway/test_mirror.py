"""Shadows: asked beside users' requests, on a way of their own."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from gateway.controlplane.shares import account_of, mirror_of
from gateway.dataplane.mirror import Mirrors
from gateway.dataplane.table import Prices, Route, RouteTable
from gateway.dataplane.usage import UsageRecord
from gateway.dataplane.work import Work
from gateway.telemetry_arms import Arms
from registry.clock import from_text, utc_now
from registry.entities import Price, Shadow, Split
from tests.fakes.parts import (
    DIGEST,
    DataPlane,
    FixedSources,
    Labelled,
    Threshold,
    balanced,
    memory_limiter,
    provider_at,
    table_of,
)
from tests.fakes.server import serving
from tests.fakes.stand import Stand, until
from tests.fakes.upstream import MODEL, Fault, Upstream, upstream

OTHER = "sha256:" + "5" * 64
SINCE = from_text("2026-01-01T00:00:00Z")
MAIL = "ann.lee@example.org"
QUESTION = [{"role": "user", "content": f"I am {MAIL}, why?"}]


class Slow(Threshold):
    """Says Yes to everybody."""

    def predict(self, rows: Any) -> Labelled:
        return Labelled(("Yes",) * len(rows), (1,) * len(rows), ((0.0, 1.0),) * len(rows))


@dataclass
class Shadowed:
    """A release with a shadow, each before an upstream of its own."""

    stand: Stand
    shadow: Upstream
    mirrors: Mirrors
    kept: list[UsageRecord] = field(default_factory=list)
    noted: list[tuple[UsageRecord, str]] = field(default_factory=list)
    agreements: Counter[str] = field(default_factory=Counter)

    def note(self, record: UsageRecord, outcome: str) -> None:
        self.noted.append((record, outcome))

    def agreed(self, release: str, alias: str, *, same: int, different: int) -> None:
        assert (release, alias) == ("churn", "production")
        self.agreements.update(same=same, different=different)

    def ask(self, **more: Any) -> str:
        create: Any = self.stand.client.chat.completions.create
        answer = create(model="support", messages=QUESTION, user="ann", **more)
        if more.get("stream"):
            return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
        return str(answer.choices[0].message.content)

    def outcomes(self, count: int) -> list[str]:
        until(lambda: len(self.noted) >= count)
        return [outcome for _, outcome in self.noted]


def split_of(name: str, share: int = 10_000, cap: int | None = None) -> Split:
    return Split("spl_1", name, "production", DIGEST, shadow=Shadow(OTHER, share, cap))


def with_shadow(table: RouteTable, route: Route, **more: Any) -> RouteTable:
    split = split_of(route.name, **more)
    assert split.shadow is not None
    mirror = mirror_of(split, split.shadow, route)
    targets = {
        name: replace(target, mirror=mirror, arm="production") if target.route.name == route.name else target
        for name, target in table.targets.items()
    }
    return RouteTable(table.revision, targets, table.grants, table.aliases, prices=table.prices)


@pytest.fixture
def shadow_up() -> Iterator[Upstream]:
    with upstream() as fake:
        yield fake


@pytest.fixture(params=[{}])
def house(up: Upstream, shadow_up: Upstream, request: pytest.FixtureRequest) -> Iterator[Shadowed]:
    up.faults.clear()
    up.seen.clear()
    up.answer = "forty two"
    terms = dict(request.param)
    bounds = {name: terms.pop(name) for name in ("at_once", "waiting", "total_s") if name in terms}
    price = Price(f"vllm/{MODEL}", SINCE, 1_000_000, 1_000_000)
    prices = Prices({} if terms.pop("unpriced", False) else {price.model: (price,)})
    routes = {
        "support": Route(name="support", digest=DIGEST, model=MODEL, provider=provider_at(up.url)),
        "churn": Route(name="churn", digest=DIGEST, kind="prediction", predictor=Threshold()),
    }
    table = table_of(routes, prices=prices)
    shadow = Route(name="support", digest=OTHER, model=MODEL, provider=provider_at(shadow_up.url))
    table = with_shadow(table, balanced(shadow), **terms)
    table = with_shadow(table, Route(name="churn", digest=OTHER, kind="prediction", predictor=Slow()))
    stand = Stand("", up)
    made = Shadowed(stand, shadow_up, None)  # type: ignore[arg-type]
    work = Work(1, 8)
    made.mirrors = Mirrors(work, memory_limiter(), made.kept.append, made, utc_now, **bounds)
    plane = DataPlane(FixedSources(table), stand.records.append, mirrors=made.mirrors)
    with serving(plane) as url:
        stand.url = url
        yield made
        stand.client.close()
    work.close()


def test_a_shadow_is_asked_what_the_user_asked_without_who_asked(house: Shadowed) -> None:
    assert house.ask() == "forty two"
    assert house.outcomes(1) == ["ok"]
    (seen,) = house.shadow.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.body["messages"] == [{"role": "user", "content": "I am [EMAIL], why?"}]
    assert "user" not in seen.body
    assert MAIL in house.stand.up.seen[0].raw.decode()
    (mine,) = house.stand.records
    (theirs,) = house.kept
    assert (mine.route, mine.arm, mine.account) == ("/v1/chat/completions", "production", "key_1")
    assert (theirs.route, theirs.arm, theirs.digest) == ("shadow", "shadow", OTHER)
    assert (theirs.account, theirs.key_id) == (account_of("support", "production"), "shadow")
    assert theirs.prompt_tokens > 0
    assert theirs.cost_microusd == theirs.prompt_tokens + theirs.completion_tokens
    assert mine.request_id != theirs.request_id
    assert ("email", "redact") in theirs.findings


def test_a_stream_is_copied_as_a_whole_answer(house: Shadowed) -> None:
    assert house.ask(stream=True) == "forty two"
    assert house.outcomes(1) == ["ok"]
    (seen,) = house.shadow.seen
    assert seen.body["stream"] is False
    assert "stream_options" not in seen.body


def test_a_request_in_another_dialect_is_copied_as_a_chat(house: Shadowed) -> None:
    said = [{"role": "user", "content": "why?"}]
    body = {"model": "support", "max_tokens": 50, "top_k": 3, "messages": said}
    status, _, answer = house.stand.post("/v1/messages", json.dumps(body).encode())
    assert (status, answer["content"][0]["text"]) == (200, "forty two")
    assert house.outcomes(1) == ["ok"]
    (seen,) = house.shadow.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.body["messages"] == said


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500, body=b"{}"),
        Fault(status=401, body=b'{"error":{"message":"no"}}'),
        Fault(raw=b"not json"),
        Fault(cut_after=5),
        Fault(status=429, body=b"{}"),
    ],
)
def test_a_shadow_that_fails_fails_alone(house: Shadowed, fault: Fault) -> None:
    house.shadow.faults.append(fault)
    assert house.ask() == "forty two"
    assert house.outcomes(1) == ["error"]
    (record,) = house.stand.records
    assert (record.error, record.attempts, record.status) == ("", 1, 200)
    assert house.ask() == "forty two"
    assert house.outcomes(2) == ["error", "ok"]


@pytest.mark.parametrize("house", [{"at_once": 2, "waiting": 3}], indirect=True)
def test_a_shadow_that_hangs_holds_up_nobody_and_keeps_little(house: Shadowed) -> None:
    house.shadow.faults.extend(Fault(silent=True) for _ in range(20))
    assert [house.ask() for _ in range(12)] == ["forty two"] * 12
    # Two are under way and three wait; all others were dropped as they came.
    assert house.outcomes(7) == ["dropped"] * 7
    assert {record.error for record, _ in house.noted} == {"overloaded"}
    assert [record.error for record in house.stand.records] == [""] * 12


@pytest.mark.parametrize("house", [{"total_s": 0.05}], indirect=True)
def test_a_shadow_that_hangs_is_given_up(house: Shadowed) -> None:
    house.shadow.faults.append(Fault(silent=True))
    house.ask()
    assert house.outcomes(1) == ["error"]
    assert house.noted[0][0].error == "upstream_timeout"
    assert house.shadow.noticed_a_disconnect()


@pytest.mark.parametrize("house", [{"cap": 1}], indirect=True)
def test_a_shadow_spends_no_more_than_it_may(house: Shadowed) -> None:
    assert house.ask() == "forty two"
    assert house.outcomes(1) == ["dropped"]
    assert house.noted[0][0].error == "insufficient_quota"
    assert house.shadow.seen == []
    assert house.kept == []


@pytest.mark.parametrize("house", [{"cap": 10**9, "unpriced": True}], indirect=True)
def test_what_has_no_price_is_not_asked_where_money_is_bounded(house: Shadowed) -> None:
    house.ask()
    assert house.outcomes(1) == ["dropped"]
    assert house.noted[0][0].error == "price_unknown"


def test_what_was_refused_is_not_copied(house: Shadowed) -> None:
    status, _, _ = house.stand.post("/v1/chat/completions", b'{"model":"support","messages":[]}')
    assert status == 400
    house.stand.up.faults.append(Fault(status=400, body=b"{}"))
    status, _, _ = house.stand.post(
        "/v1/chat/completions", json.dumps({"model": "support", "messages": QUESTION}).encode()
    )
    assert status == 400
    house.ask()
    assert house.outcomes(1) == ["ok"]
    assert len(house.shadow.seen) == 1


def test_predictions_are_compared_with_what_the_user_got(house: Shadowed) -> None:
    rows = [{"features": {"plan": "a", "months": months}} for months in (3, 30, 40)]
    status, _, answer = house.stand.post("/predict/batch?model=churn", json.dumps(rows).encode())
    assert (status, [one["label"] for one in answer]) == (200, ["Yes", "No", "No"])
    assert house.outcomes(1) == ["ok"]
    assert house.agreements == {"same": 1, "different": 2}


@pytest.mark.parametrize("house", [{"share": 2500}], indirect=True)
def test_a_share_of_the_requests_is_copied(house: Shadowed) -> None:
    for _ in range(200):
        house.ask()
    # Binomial(200, 0.25) is within 20 to 85 but for one run in ten billion.
    until(lambda: len(house.noted) == len(house.shadow.seen))
    assert 20 <= len(house.shadow.seen) <= 85


def test_closing_gives_up_what_waits() -> None:
    async def scenario() -> int:
        work, arms = Work(1, 8), Arms()
        mirrors = Mirrors(work, memory_limiter(), lambda _: None, arms, utc_now)
        await mirrors.close()
        await mirrors.close()
        work.close()
        return len(list(arms.series()))

    assert asyncio.run(scenario()) == 6
