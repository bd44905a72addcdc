"""Which upstream is asked, and what is tried when it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.balance import Balance, Plan, RetryBudget, Upstream
from gateway.dataplane.breaker import Breaker
from gateway.errors import (
    GatewayError,
    NotReady,
    Overloaded,
    UpstreamBroken,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamUnreachable,
)
from tests.fakes.parts import Scripted

FAR_S = 1e9


def place(name: str, weight: float = 1.0, breaker: Breaker | None = None) -> Upstream:
    return Upstream(name, Scripted(None), "m", f"{name}/m", weight=weight, breaker=breaker)


def shut(upstream: Upstream) -> Upstream:
    """*upstream* with its breaker open."""
    upstream.breaker = Breaker(1, FAR_S)
    upstream.breaker.failed(upstream.breaker.allow(0.0), monotonic())
    return upstream


def half_open(upstream: Upstream) -> Upstream:
    upstream.breaker = Breaker(1, 0.0)
    upstream.breaker.failed(upstream.breaker.allow(0.0), monotonic())
    return upstream


def refused(status: int, *headers: tuple[bytes, bytes]) -> UpstreamRefused:
    return UpstreamRefused(
        "no", status=502, kind="server_error", code="upstream_error", headers=headers, upstream_status=status
    )


def picked(plan: Plan) -> str:
    upstream = plan.next()
    return upstream.name if upstream is not None else "none"


def ask(balance: Balance) -> str:
    """One request that is answered."""
    plan = balance.plan()
    name = picked(plan)
    plan.succeeded()
    return name


@pytest.mark.parametrize(
    ("weights", "shares"),
    [((1, 1), (35, 35)), ((1, 1, 1, 1, 1, 1, 1), (10,) * 7), ((4, 2, 1), (40, 20, 10)), ((0.5, 3), (10, 60))],
)
def test_requests_one_after_the_other_are_shared_by_weight(
    weights: Sequence[float], shares: Sequence[int]
) -> None:
    balance = Balance([[place(f"v{n}", weight) for n, weight in enumerate(weights)]])
    counts = Counter(ask(balance) for _ in range(70))
    assert [counts[f"v{n}"] for n in range(len(weights))] == list(shares)


def test_no_share_is_asked_in_one_go() -> None:
    balance = Balance([[place("a", 1), place("b", 2)]])
    assert "".join(ask(balance) for _ in range(9)) == "abbabbabb"


@given(st.lists(st.sampled_from([1, 2, 3, 8]), min_size=2, max_size=5), st.integers(0, 60))
def test_running_requests_are_spread_by_weight(weights: list[int], count: int) -> None:
    upstreams = [place(f"v{n}", weight) for n, weight in enumerate(weights)]
    balance = Balance([upstreams])
    for _ in range(count):
        balance.plan().next()
    assert sum(u.in_flight for u in upstreams) == count
    for upstream in upstreams:
        assert abs(upstream.in_flight - count * upstream.weight / sum(weights)) <= len(weights)


def test_a_slow_place_gets_no_more_while_the_other_is_free() -> None:
    slow, quick = place("slow"), place("quick")
    balance = Balance([[slow, quick]])
    assert picked(balance.plan()) == "slow"
    assert [ask(balance) for _ in range(5)] == ["quick"] * 5


def test_a_place_of_weight_0_is_asked_only_when_the_others_cannot_be() -> None:
    first = place("first")
    balance = Balance([[place("spare", 0), first]])
    assert {ask(balance) for _ in range(20)} == {"first"}
    first.in_flight = 1000
    assert ask(balance) == "first"
    shut(first)
    assert {ask(balance) for _ in range(20)} == {"spare"}


def test_a_place_that_comes_back_does_not_catch_up_on_what_it_missed() -> None:
    away = shut(place("away"))
    balance = Balance([[away, place("there")]])
    assert {ask(balance) for _ in range(100)} == {"there"}
    away.breaker = Breaker()
    assert Counter(ask(balance) for _ in range(11)) == {"away": 6, "there": 5}


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
def test_an_open_place_is_never_asked(switches: list[tuple[int, bool]]) -> None:
    upstreams = [place(f"v{n}", n % 3) for n in range(4)]
    balance = Balance([upstreams[:3], upstreams[3:]])
    is_open = [False] * 4
    for number, opens in switches:
        is_open[number] = opens
        if opens:
            shut(upstreams[number])
        else:
            upstreams[number].breaker = Breaker()
        plan = balance.plan()
        upstream = plan.next()
        assert (upstream is None) == all(is_open)
        if upstream is not None:
            assert not is_open[upstreams.index(upstream)]
            assert plan.is_fallback == all(is_open[:3])
            plan.succeeded()
    assert [u.in_flight for u in upstreams] == [0] * 4


def test_fallbacks_are_asked_in_order_and_then_nothing() -> None:
    balance = Balance([[shut(place("own"))], [place("second")], [shut(place("third"))], [place("fourth")]])
    plan = balance.plan()
    tried = [(picked(plan), plan.is_fallback, plan.failed(refused(401)))]
    tried += [(picked(plan), plan.is_fallback, plan.failed(refused(401)))]
    assert tried == [("second", True, 0.0), ("fourth", True, None)]


def test_when_all_are_left_alone_it_says_for_how_long() -> None:
    balance = Balance([[shut(place("own"))], [place("other")]])
    assert (balance.available(), balance.wait_s()) == (True, 0.0)
    balance.tiers[1][0].breaker.cool(monotonic() + 30)
    assert balance.plan().next() is None
    assert not balance.available()
    assert 29 < balance.wait_s() <= 30


RETRIABLE = [
    *(refused(status) for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)),
    UpstreamUnreachable(), UpstreamTimeout(), UpstreamBroken(), Overloaded(), NotReady(),
]  # fmt: skip
FINAL = [*(refused(status) for status in (400, 404, 413, 422, 501)), UpstreamTooLarge(), UpstreamError()]


def named(error: GatewayError) -> str:
    return str(error.upstream_status) if isinstance(error, UpstreamRefused) else type(error).__name__


@pytest.mark.parametrize("error", RETRIABLE, ids=named)
def test_what_may_be_repeated_is_repeated_elsewhere_at_once_and_alone_after_a_pause(
    error: GatewayError,
) -> None:
    plan = Balance([[place("a"), place("b")]]).plan()
    assert (picked(plan), plan.failed(error), picked(plan)) == ("a", 0.0, "b")
    plan = Balance([[place("a")]]).plan()
    assert picked(plan) == "a"
    pause_s = plan.failed(error)
    assert pause_s is not None
    assert 0 <= pause_s <= 0.05
    assert picked(plan) == "a"


@pytest.mark.parametrize("error", FINAL, ids=named)
def test_what_would_fail_anywhere_is_tried_nowhere_else(error: GatewayError) -> None:
    plan = Balance([[place("a"), place("b")], [place("c")]]).plan()
    assert (picked(plan), plan.failed(error)) == ("a", None)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_not_hammered_but_fallen_back_from(status: int) -> None:
    plan = Balance([[place("a"), place("b")], [place("c")]]).plan()
    assert (picked(plan), plan.failed(refused(status)), picked(plan)) == ("a", 0.0, "c")
    assert Balance([[place("a")]]).plan().next() is not None


@pytest.mark.parametrize(
    ("error", "is_failure"),
    [
        *((refused(status), True) for status in (401, 500, 501, 502, 503, 504, 529)),
        *((refused(status), False) for status in (400, 403, 404, 408, 409, 413, 422, 425, 429)),
        (UpstreamUnreachable(), True), (UpstreamTimeout(), True), (UpstreamBroken(), True),
        (UpstreamTooLarge(), False), (UpstreamError(), False), (Overloaded(), False), (NotReady(), False),
    ],
    ids=lambda value: named(value) if isinstance(value, GatewayError) else None,
)  # fmt: skip
def test_only_faults_of_the_upstream_open_its_breaker(error: GatewayError, *, is_failure: bool) -> None:
    upstream = place("a", breaker=Breaker(2, FAR_S))
    balance = Balance([[upstream]], max_retries=0)
    for _ in range(2):
        plan = balance.plan()
        assert plan.next() is upstream
        assert plan.failed(error) is None
    assert upstream.state() == ("open" if is_failure else "closed")
    assert upstream.in_flight == 0


@pytest.mark.parametrize(
    ("header", "most_s"),
    [((b"retry-after", b"2"), 2.0), ((b"retry-after-ms", b"1500"), 1.5), ((b"retry-after", b"5"), 5.0)],
)
def test_a_short_retry_after_is_waited_for(header: tuple[bytes, bytes], most_s: float) -> None:
    upstream = place("a")
    plan = Balance([[upstream]]).plan()
    plan.next()
    pause_s = plan.failed(refused(429, header))
    assert pause_s is not None
    assert most_s <= pause_s <= most_s + 0.05
    assert upstream.state() == "open"
    assert most_s - 1 < upstream.breaker.wait_s(monotonic()) <= most_s


def test_a_long_retry_after_sends_requests_elsewhere() -> None:
    error = refused(429, (b"retry-after", b"6"))
    first, second, other = place("a"), place("b"), place("c")
    balance = Balance([[first, second], [other]])
    plan = balance.plan()
    assert (picked(plan), plan.failed(error)) == ("a", 0.0)
    assert (picked(plan), plan.failed(error)) == ("b", 0.0)
    assert (picked(plan), plan.failed(error)) == ("c", None)
    assert [u.state() for u in (first, second, other)] == ["open"] * 3


def test_an_upstream_cannot_ask_to_be_left_alone_for_ever() -> None:
    upstream = place("a")
    plan = Balance([[upstream]]).plan()
    plan.next()
    assert plan.failed(refused(429, (b"retry-after", b"999999999"))) is None
    assert 59 < upstream.breaker.wait_s(monotonic()) <= 60


@pytest.mark.parametrize("value", [b"Wed, 21 Oct 2026 07:28:00 GMT", b"-1", b"nan", b"inf", b""])
def test_a_retry_after_that_is_no_number_is_none(value: bytes) -> None:
    upstream = place("a")
    plan = Balance([[upstream]]).plan()
    plan.next()
    pause_s = plan.failed(refused(429, (b"retry-after", value)))
    assert pause_s is not None
    assert pause_s <= 0.05
    assert upstream.state() == "closed"


def test_pauses_double_with_full_jitter_up_to_two_seconds() -> None:
    longest = [0.0] * 8
    for _ in range(200):
        plan = Balance([[place("a", breaker=Breaker(100))]], max_retries=8).plan()
        for retry in range(8):
            plan.next()
            longest[retry] = max(longest[retry], plan.failed(UpstreamBroken()) or 0.0)
    for retry, most_s in enumerate((0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0)):
        assert most_s * 0.8 < longest[retry] <= most_s


def test_nothing_is_tried_again_after_the_deadline() -> None:
    plan = Balance([[place("a"), place("b")], [place("c")]], total_s=0.0).plan()
    assert (picked(plan), plan.failed(UpstreamTimeout())) == ("a", None)


def test_nothing_waits_beyond_the_deadline() -> None:
    plan = Balance([[place("a")]], total_s=1.5).plan()
    assert (picked(plan), plan.failed(refused(503, (b"retry-after", b"3")))) == ("a", None)


def test_a_request_that_is_left_frees_the_probe_and_says_nothing() -> None:
    upstream = half_open(place("a"))
    balance = Balance([[upstream]])
    plan = balance.plan()
    assert picked(plan) == "a"
    assert balance.plan().next() is None
    plan.left()
    assert (upstream.state(), upstream.in_flight) == ("half_open", 0)
    assert ask(balance) == "a"
    assert upstream.state() == "closed"


def test_of_a_hundred_requests_one_probes_and_the_others_fall_back() -> None:
    balance = Balance([[half_open(place("own"))], [place("other")]])
    assert Counter(picked(balance.plan()) for _ in range(100)) == {"own": 1, "other": 99}


FAULTS = st.sampled_from([UpstreamBroken(), UpstreamTimeout(), refused(503), refused(401), refused(429)])


@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(0, 4), st.lists(FAULTS, min_size=12))
def test_laws_of_a_plan(sizes: list[int], max_retries: int, errors: list[UpstreamError]) -> None:
    tiers = [[place(f"{t}.{n}") for n in range(size)] for t, size in enumerate(sizes)]
    plan = Balance(tiers, max_retries=max_retries).plan()
    names: list[str] = []
    for error in errors:
        names.append(picked(plan))
        pause_s = plan.failed(error)
        if pause_s is None:
            break
    assert len(names) <= max_retries + len(tiers)
    assert names == sorted(names, key=lambda name: name[0]), "no tier is asked again after a later one"
    for before, after in pairwise(names):
        assert before != after or sizes[int(before[0])] == 1
    assert [u.in_flight for tier in tiers for u in tier] == [0] * sum(sizes)


def test_ten_retries_in_ten_seconds_are_free() -> None:
    budget = RetryBudget(0.0)
    assert [budget.spend(0.0) for _ in range(11)] == [True] * 10 + [False]
    assert [budget.spend(9.0), budget.spend(10.0)] == [False, True]


def test_a_retry_storm_is_held_to_the_share_of_requests() -> None:
    upstream = place("a", breaker=Breaker(10_000))
    balance = Balance([[upstream]], max_retries=1)
    retries = 0
    for _ in range(500):
        plan = balance.plan()
        plan.next()
        if plan.failed(UpstreamBroken()) is not None:
            retries += 1
            plan.next()
            plan.failed(UpstreamBroken())
    assert retries <= 0.2 * (500 + retries) + 1
    assert retries >= 100


@given(
    st.floats(0, 1),
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 0, 1, 4, 12]), st.integers(0, 30), st.integers(0, 15))),
)
def test_retries_keep_to_the_budget(ratio: float, story: list[tuple[int, int, int]]) -> None:
    budget = RetryBudget(ratio)
    second = 0
    requests: list[int] = []
    retries: list[int] = []
    for wait, count, wanted in story:
        second += wait
        for _ in range(count):
            budget.count(float(second))
            requests.append(second)
        for _ in range(wanted):
            sent = sum(second - 10 < at for at in requests)
            spent = sum(second - 10 < at for at in retries)
            assert budget.spend(float(second)) == (spent < max(10, sent * ratio))
            if spent < max(10, sent * ratio):
                retries.append(second)
