from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.affinity import Affinity, chat_beginning, key_of
from registry.errors import BadInput
from tests.bench.gateway.affinity import Workload, simulate

NAMES = ("vllm", "vllm#2", "vllm#3", "vllm#4", "vllm#5")
keys = st.integers(0, 2**64 - 1)
weights = st.floats(0.01, 100, allow_nan=False)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Affinity, list[int], list[bool], list[float], float, int]:
    count = draw(st.integers(1, 8))
    shares = draw(st.one_of(st.just([1.0] * count), st.lists(weights, min_size=count, max_size=count)))
    factor, slack = draw(st.floats(1, 4)), draw(st.integers(0, 5))
    loads = draw(st.lists(st.integers(0, 60), min_size=count, max_size=count))
    allowed = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    names = [f"e#{i}" for i in range(count)]
    return Affinity(names, shares, factor=factor, slack=slack), loads, allowed, shares, factor, slack


@given(keys, fleets())
def test_no_engine_is_chosen_beyond_its_bound(
    key: int, fleet: tuple[Affinity, list[int], list[bool], list[float], float, int]
) -> None:
    affinity, loads, allowed, shares, factor, slack = fleet
    able = [i for i, may in enumerate(allowed) if may]
    chosen = affinity.choose(key, loads, allowed)
    if chosen is None:
        assert able == []
        return
    assert chosen in able
    total = sum(loads[i] for i in able) + 1
    fair = factor * total * shares[chosen] / sum(shares[i] for i in able)
    assert loads[chosen] + 1 <= max(slack, math.ceil(fair * (1 + 1e-9)))


@given(keys, fleets())
def test_the_choice_is_the_first_in_order_that_has_room(
    key: int, fleet: tuple[Affinity, list[int], list[bool], list[float], float, int]
) -> None:
    affinity, loads, *_ = fleet
    roomy = [
        name for name in affinity.order(key)
        if loads[int(name[2:])] < affinity.capacity(int(name[2:]), loads)
    ]  # fmt: skip
    chosen = affinity.choose(key, loads)
    assert chosen is not None
    assert [f"e#{chosen}"] == roomy[:1]


@given(st.lists(st.tuples(keys, st.booleans()), max_size=150), st.floats(1, 3))
def test_the_bound_holds_while_requests_come_and_go(steps: list[tuple[int, bool]], factor: float) -> None:
    affinity, loads = Affinity(NAMES, factor=factor, slack=1), [0] * len(NAMES)
    for key, comes in steps:
        if comes or not any(loads):
            chosen = affinity.choose(key % 3, loads)
            assert chosen is not None
            loads[chosen] += 1
            assert loads[chosen] <= max(1, math.ceil(factor * sum(loads) / len(loads)))
        else:
            running = [i for i, load in enumerate(loads) if load]
            loads[running[key % len(running)]] -= 1


@given(keys, st.sets(st.sampled_from(NAMES), min_size=2))
def test_losing_an_engine_moves_only_its_own_prompts(key: int, names: set[str]) -> None:
    before = Affinity(sorted(names)).order(key)
    for lost in names:
        assert Affinity(sorted(names - {lost})).order(key) == tuple(name for name in before if name != lost)


@given(keys)
def test_an_idle_fleet_answers_with_the_same_engine_in_any_listing(key: int) -> None:
    idle = [0] * len(NAMES)
    first = Affinity(NAMES).choose(key, idle)
    other = Affinity(NAMES[::-1]).choose(key, idle)
    assert first is not None and other is not None
    assert NAMES[first] == NAMES[::-1][other] == Affinity(NAMES).order(key)[0]


def test_slack_keeps_a_few_requests_together() -> None:
    affinity = Affinity(NAMES, factor=1.0, slack=3)
    loads = [0] * len(NAMES)
    chosen = []
    for _ in range(5):
        position = affinity.choose(7, loads)
        assert position is not None
        loads[position] += 1
        chosen.append(position)
    assert chosen[:3] == [chosen[0]] * 3 and chosen[3:] == [chosen[3]] * 2 and chosen[3] != chosen[0]


@pytest.mark.parametrize("shares", [[1.0] * 5, [1.0, 2.0, 3.0, 1.0, 1.0]])
def test_prompts_are_shared_by_weight(shares: list[float]) -> None:
    affinity, idle, count = Affinity(NAMES, shares), [0] * 5, 20_000
    found = Counter(affinity.choose(key_of(f"{i:064}".encode()) or 0, idle) for i in range(count))
    for i, share in enumerate(shares):
        p = share / sum(shares)
        assert abs(found[i] - count * p) < 4.5 * math.sqrt(count * p * (1 - p))


def test_nobody_allowed_means_nobody_chosen() -> None:
    assert Affinity(NAMES).choose(1, [0] * 5, [False] * 5) is None


def test_a_key_is_the_same_in_every_process() -> None:
    script = (
        "from gateway.dataplane.affinity import *;"
        "k = key_of(b'x' * 100); print(k, *Affinity(['a', 'b', 'c']).order(k))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    key = key_of(b"x" * 64)
    assert key is not None
    assert done.stdout.split() == [str(key), *Affinity(["a", "b", "c"]).order(key)]


def test_only_whole_leading_blocks_count() -> None:
    assert key_of(b"x" * 63) is None
    assert key_of(b"x" * 64) == key_of(b"x" * 127) != key_of(b"x" * 128)
    assert key_of(b"x" * 640, most_blocks=2) == key_of(b"x" * 128)


@given(st.lists(st.sampled_from(["assistant", "user", "tool"]), max_size=6))
def test_every_turn_of_a_chat_has_one_beginning(later: list[str]) -> None:
    def message(role: str, content: object) -> dict[str, msgspec.Raw]:
        return {
            "role": msgspec.Raw(f'"{role}"'.encode()),
            "content": msgspec.Raw(msgspec.json.encode(content)),
        }

    opening = [message("system", "Be brief."), message("user", [{"type": "text", "text": "Hello"}])]
    whole = opening + [message(role, f"{i}") for i, role in enumerate(later)]
    assert chat_beginning(whole) == chat_beginning(opening)
    assert chat_beginning(opening) == b'"system""Be brief.""user"[{"type":"text","text":"Hello"}]'


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ([], {}),
        (["a", "a"], {}),
        (["a"], {"weights": [1.0, 2.0]}),
        (["a"], {"weights": [0.0]}),
        (["a"], {"weights": [math.nan]}),
        (["a"], {"factor": 0.9}),
        (["a"], {"factor": math.inf}),
        (["a"], {"slack": -1}),
    ],
)
def test_an_order_that_cannot_be_is_refused(names: list[str], options: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=r"^affinity: "):
        Affinity(names, **options)  # type: ignore[arg-type]


def test_conversations_that_stay_are_read_once() -> None:
    work = Workload(engines=4, seconds=200, conversations_per_s=1.2)
    plain, affine = simulate("least busy", work), simulate("affine, factor 1.5", work)
    assert plain.requests == affine.requests > 800
    assert affine.hit_rate > plain.hit_rate + 0.2
    assert affine.ttft_mean_ms < plain.ttft_mean_ms


def test_a_beginning_that_everybody_sends_does_not_fill_one_engine() -> None:
    work = Workload(seconds=60, conversations_per_s=25, hot_share=0.95)
    bounded, unbounded = simulate("affine, factor 1.5", work), simulate("affine, no bound", work)
    assert bounded.worst_share < 1.7
    assert unbounded.worst_share > 4
