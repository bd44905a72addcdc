"""Which release answers whom where an alias's traffic is shared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from gateway.controlplane.shares import shared_target
from gateway.dataplane.breaker import Breaker
from gateway.dataplane.share import arm_for
from gateway.dataplane.table import Route, RouteTable, Share, Target
from gateway.telemetry import Telemetry
from registry.entities import Arm, Split
from tests.fakes.parts import (
    DIGEST,
    DataPlane,
    FixedSources,
    Threshold,
    balanced,
    provider_at,
    table_of,
)
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.fakes.upstream import MODEL, Upstream
from tests.gateway.test_variants import _State

IDS = 100_000
SEED = "support@production"


def digest_of(number: int) -> str:
    return f"sha256:{number:064x}"


def share_of(*weights: float, problem: str | None = None) -> Share:
    arms = []
    for n, weight in enumerate(weights):
        route = Route(name="support", digest=digest_of(n), problem=problem if n else None)
        arms.append((weight, Target(route, arm=str(n))))
    return Share(tuple(arms))


@pytest.mark.parametrize("weights", [(9000, 1000), (9999, 1), (3334, 3333, 3333), (5000, 2500, 1500, 1000)])
def test_shares_are_within_sampling_error_over_100_000_ids(weights: tuple[int, ...]) -> None:
    share = share_of(*weights)
    seen = Counter(arm_for(share, SEED, f"user-{n}").arm for n in range(IDS))
    counts = [seen[str(n)] for n in range(len(weights))]
    expected = [weight * IDS / sum(weights) for weight in weights]
    for count, mean in zip(counts, expected, strict=True):
        assert abs(count - mean) <= 4 * (mean * (1 - mean / IDS)) ** 0.5
    assert chisquare(counts, expected).pvalue > 1e-4


@given(st.text(max_size=40), st.lists(st.integers(1, 9000), min_size=1, max_size=5))
def test_the_same_person_always_gets_the_same_release(who: str, weights: list[int]) -> None:
    share = share_of(*weights)
    assert arm_for(share, SEED, who) is arm_for(share, SEED, who)


@settings(max_examples=50)
@given(st.integers(1, 9000), st.integers(1, 999))
def test_a_canary_that_grows_keeps_everybody_it_has(before: int, more: int) -> None:
    small, large = share_of(10_000 - before, before), share_of(10_000 - before - more, before + more)
    for n in range(300):
        if arm_for(small, SEED, str(n)).arm == "1":
            assert arm_for(large, SEED, str(n)).arm == "1"


def test_another_alias_deals_anew() -> None:
    share = share_of(5000, 5000)
    same = sum(arm_for(share, SEED, str(n)).arm == arm_for(share, "b@x", str(n)).arm for n in range(2000))
    assert 850 <= same <= 1150


def test_an_arm_that_cannot_answer_leaves_its_share_to_the_alias() -> None:
    share = share_of(1, 9999, problem="its parts are loading")
    assert {arm_for(share, SEED, str(n)).arm for n in range(200)} == {"0"}


def test_an_arm_whose_upstream_is_left_alone_is_passed_over() -> None:
    breaker = Breaker(failures=1, open_s=60)
    ticket = breaker.allow(monotonic())
    broken = Route(name="support", digest=digest_of(1), kind="prediction", breaker=breaker)
    share = Share(((1.0, share_of(1).arms[0][1]), (99.0, Target(broken, arm="1"))))
    assert "1" in {arm_for(share, SEED, str(n)).arm for n in range(50)}
    breaker.failed(ticket, monotonic())
    assert {arm_for(share, SEED, str(n)).arm for n in range(50)} == {"0"}


OTHER = "sha256:" + "5" * 64


def shared(table: RouteTable, other: Route, sticky: Any = "user", share: int = 5000) -> RouteTable:
    """*table* with half of its one release's traffic for *other*."""
    (name,) = {target.route.name for target in table.targets.values()}
    base = table.targets[name]
    split = Split(
        "spl_1", name, "production", base.route.digest, (Arm("canary", other.digest, share),), sticky=sticky
    )
    target = shared_target(split, base, {(name, other.digest): other}, None)
    targets = {**table.targets, name: target, f"{name}@production": target}
    return RouteTable(table.revision, targets, table.grants, table.aliases)


@pytest.fixture(params=["user", "session", "key", "request"])
def stand(up: Upstream, request: pytest.FixtureRequest) -> Iterator[Stand]:
    up.faults.clear()
    up.seen.clear()
    provider = provider_at(up.url)
    route = Route(name="support", digest=DIGEST, model=MODEL, provider=provider)
    other = balanced(Route(name="support", digest=OTHER, model=MODEL, provider=provider))
    made = Stand("", up)
    table = shared(table_of({"support": route}), other, request.param)
    with serving(DataPlane(FixedSources(table), made.records.append)) as url:
        made.url = url
        yield made
        made.client.close()


def ask(stand: Stand, headers: dict[str, str] | None = None, **more: Any) -> tuple[str, str]:
    """The arm and the digest that an answer names."""
    raw = stand.client.chat.completions.with_raw_response.create(
        model="support", messages=[{"role": "user", "content": "why?"}], extra_headers=headers or {}, **more
    )
    raw.parse()
    assert raw.headers["x-sluicegate-alias"] == "production"
    return raw.headers["x-sluicegate-arm"], raw.headers["x-sluicegate-digest"]


def test_requests_stay_with_their_arm_by_what_the_split_says(
    stand: Stand, request: pytest.FixtureRequest
) -> None:
    sticky = request.node.callspec.params["stand"]
    by_user = {user: {ask(stand, user=user) for _ in range(3)} for user in map(str, range(12))}
    sessions = [{"x-sluicegate-session": str(n)} for n in range(12)]
    by_session = {n: {ask(stand, headers) for _ in range(3)} for n, headers in enumerate(sessions)}
    both = {("production", DIGEST), ("canary", OTHER)}
    if sticky == "key":
        assert len(set.union(*by_user.values(), *by_session.values())) == 1
        return
    assert set.union(*by_user.values(), *by_session.values()) == both
    if sticky == "user":
        assert all(len(arms) == 1 for arms in by_user.values())
    if sticky in ("user", "session"):
        assert all(len(arms) == 1 for arms in by_session.values())
    if sticky == "request":
        assert any(len(arms) > 1 for arms in by_user.values())


def test_records_and_metrics_tell_the_arms_apart(stand: Stand) -> None:
    asked = Counter(ask(stand, user=str(n))[0] for n in range(10))
    telemetry = Telemetry(_State())
    for record in stand.records:
        telemetry.emit(record)
    assert Counter(record.arm for record in stand.records) == asked
    text = telemetry.render().decode()
    for arm, count in asked.items():
        labels = f'alias="production",arm="{arm}",outcome="ok",release="support"'
        assert f"sluicegate_arm_requests_total{{{labels}}} {count}.0" in text
        series = f'sluicegate_arm_duration_seconds_count{{alias="production",arm="{arm}",release="support"}}'
        assert f"{series} {count}.0" in text


def test_every_surface_of_a_prediction_is_shared(up: Upstream) -> None:
    made = Stand("", up)
    route = Route(name="churn", digest=DIGEST, kind="prediction", predictor=Threshold())
    other = Route(name="churn", digest=OTHER, kind="prediction", predictor=Threshold())
    table = shared(table_of({"churn": route}), other)
    tensors = [
        {"name": "plan", "shape": [1], "datatype": "BYTES", "data": ["a"]},
        {"name": "months", "shape": [1], "datatype": "FP64", "data": [3]},
    ]
    row = {"features": {"plan": "a", "months": 3}}
    surfaces: dict[str, Any] = {
        "/v2/models/churn/infer": {"inputs": tensors},
        "/predict": row,
        "/predict/batch": [row],
        "/invocations": {"dataframe_records": [row["features"]]},
    }
    with serving(DataPlane(FixedSources(table), made.records.append)) as url:
        made.url = url
        for path, body in surfaces.items():
            sent, arms = json.dumps(body).encode(), {}
            for n in range(16):
                status, headers, said = made.post(path, sent, headers={"x-sluicegate-user": str(n)})
                assert status == 200, (path, said)
                arms[n] = headers["x-sluicegate-arm"]
            assert set(arms.values()) == {"production", "canary"}, path
            _, headers, _ = made.post(path, sent, headers={"x-sluicegate-user": "0"})
            assert headers["x-sluicegate-arm"] == arms[0]
