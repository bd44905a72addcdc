"""
What keeping conversations on their engine is worth: `python -m tests.bench.gateway.affinity`.

Simulated engines with an LRU cache of prompt blocks each serve the same conversations under several choices
of engine, among them the gateway's own. An engine reads prompts one after another, at a fixed rate and only
what its cache lacks, and writes answers side by side. No time passes but simulated time; equal seeds give
equal numbers.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from statistics import fmean, quantiles
from typing import Any

from gateway.dataplane.affinity import Affinity, key_of
from gateway.dataplane.balance import Balance, Plan, Upstream

_BLOCK = 16
"""Tokens of a cached block."""
_APPS = 6


@dataclass(frozen=True, slots=True)
class Workload:
    """Conversations and the engines that serve them; lengths in tokens, times in seconds."""

    engines: int = 8
    seconds: float = 1200.0
    conversations_per_s: float = 2.5
    turns: float = 6.0
    """Of a conversation, on average."""
    think_s: float = 12.0
    """Between an answer and the next turn, on average."""
    hot_share: float = 0.0
    """Of the conversations: one question each, all with the same long beginning, as a batch job asks."""
    cache_blocks: int = 6000
    """Of each engine."""
    prefill_tokens_per_s: float = 6000.0
    decode_tokens_per_s: float = 40.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: what it finds, what it adds, and what chooses its engine."""

    conversation: int
    app: int
    system: int
    past: int
    """Tokens of earlier turns."""
    question: int
    answer: int
    key: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one choice of engine did."""

    choice: str
    requests: int
    hit_rate: float
    """Share of prompt tokens that were cached."""
    prefilled_tokens: int
    ttft_mean_ms: float
    ttft_p95_ms: float
    most_in_flight: int
    """The most requests that one engine ever had."""
    worst_share: float
    """Requests of the busiest engine over those of the average one."""


@dataclass(slots=True)
class Engine:
    """A cache and a queue."""

    blocks: int
    cached: OrderedDict[tuple[int, int, int], None] = field(default_factory=OrderedDict)
    free_at: float = 0.0
    in_flight: int = 0
    most: int = 0
    served: int = 0

    def read(self, blocks: Sequence[tuple[int, int, int]]) -> int:
        """How many leading *blocks* are cached; afterwards all are, and the longest unused ones are not."""
        hits = 0
        while hits < len(blocks) and blocks[hits] in self.cached:
            hits += 1
        # Last block first, so that a prefix never leaves before what needs it.
        for block in reversed(blocks):
            self.cached[block] = None
            self.cached.move_to_end(block)
        while len(self.cached) > self.blocks:
            self.cached.popitem(last=False)
        return hits


Choose = Callable[[Turn, Sequence[Engine]], tuple[int, Callable[[], None]]]


def _nothing() -> None:
    """Nobody needs to know that the request ended."""


def in_turn(work: Workload) -> Choose:
    """One engine after another."""
    positions = cycle(range(work.engines))
    return lambda _turn, _engines: (next(positions), _nothing)


def least_busy(work: Workload) -> Choose:
    """The gateway's own balance: the fewest running requests, turns among equals."""
    upstreams = [Upstream(f"e#{i}", _NOBODY, "m", "e/m") for i in range(work.engines)]
    balance = Balance([upstreams])

    def choose(_turn: Turn, _engines: Sequence[Engine]) -> tuple[int, Callable[[], None]]:
        plan: Plan = balance.plan()
        chosen = plan.next()
        assert chosen is not None
        return upstreams.index(chosen), plan.succeeded

    return choose


def affine(work: Workload, factor: float) -> Choose:
    """The gateway's affinity, with at most *factor* times the fair share."""
    order = Affinity([f"e#{i}" for i in range(work.engines)], factor=factor)

    def choose(turn: Turn, engines: Sequence[Engine]) -> tuple[int, Callable[[], None]]:
        chosen = order.choose(turn.key, [engine.in_flight for engine in engines])
        assert chosen is not None
        return chosen, _nothing

    return choose


CHOICES: dict[str, Callable[[Workload], Choose]] = {
    "in turn": in_turn,
    "least busy": least_busy,
    "affine, factor 1.0": lambda work: affine(work, 1.0),
    "affine, factor 1.25": lambda work: affine(work, 1.25),
    "affine, factor 1.5": lambda work: affine(work, 1.5),
    "affine, factor 2.0": lambda work: affine(work, 2.0),
    "affine, no bound": lambda work: affine(work, 1e9),
}


def conversations(work: Workload) -> list[tuple[float, list[Turn], list[float]]]:
    """Start, turns and pauses before each further turn, of every conversation."""
    random_ = random.Random(work.seed)
    systems = [random_.randint(150, 1500) for _ in range(_APPS)]
    weights = [1 / (app + 1) for app in range(_APPS)]
    found, now, number = [], 0.0, 0
    while (now := now + random_.expovariate(work.conversations_per_s)) < work.seconds:
        app = random_.choices(range(_APPS), weights)[0]
        beginning = f"app {app} ".encode() * systems[app] + f"user {work.seed} {number}".encode().ljust(64)
        hot = random_.random() < work.hot_share
        key = key_of(b"hot" * 1000 if hot else beginning)
        assert key is not None
        turns, past = [], 0
        length = 1 if hot else min(30, 1 + int(random_.expovariate(1 / max(work.turns - 1, 0.01))))
        for _ in range(length):
            turn = Turn(
                number, app, systems[app], past, random_.randint(20, 250), random_.randint(40, 300), key
            )
            turns.append(turn)
            past += turn.question + turn.answer
        found.append((now, turns, [random_.expovariate(1 / work.think_s) for _ in turns]))
        number += 1
    return found


def blocks_of(turn: Turn) -> list[tuple[int, int, int]]:
    """Names of the whole blocks of its prompt: the application's, then the conversation's."""
    shared = turn.system // _BLOCK
    whole = (turn.system + turn.past + turn.question) // _BLOCK
    return [(0, turn.app, i) for i in range(shared)] + [
        (1, turn.conversation, i) for i in range(shared, whole)
    ]


def simulate(name: str, work: Workload) -> Outcome:
    """Every conversation of *work* under the choice called *name*."""
    choose = CHOICES[name](work)
    engines = [Engine(work.cache_blocks) for _ in range(work.engines)]
    events: list[tuple[float, int, Callable[[float], None]]] = []
    waits: list[float] = []
    tokens = hits = number = 0

    def at(when: float, act: Callable[[float], None]) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (when, number, act))

    def ask(turns: list[Turn], pauses: list[float], position: int) -> Callable[[float], None]:
        def act(now: float) -> None:
            nonlocal tokens, hits
            turn = turns[position]
            chosen, ended = choose(turn, engines)
            engine = engines[chosen]
            engine.in_flight += 1
            engine.served += 1
            engine.most = max(engine.most, engine.in_flight)
            prompt = turn.system + turn.past + turn.question
            found = engine.read(blocks_of(turn)) * _BLOCK
            tokens, hits = tokens + prompt, hits + found
            engine.free_at = max(now, engine.free_at) + (prompt - found) / work.prefill_tokens_per_s
            waits.append((engine.free_at - now) * 1000)
            at(engine.free_at + turn.answer / work.decode_tokens_per_s, leave(engine, ended))
            if position + 1 < len(turns):
                done = engine.free_at + turn.answer / work.decode_tokens_per_s
                at(done + pauses[position], ask(turns, pauses, position + 1))

        return act

    def leave(engine: Engine, ended: Callable[[], None]) -> Callable[[float], None]:
        def act(_now: float) -> None:
            engine.in_flight -= 1
            ended()

        return act

    for start, turns, pauses in conversations(work):
        at(start, ask(turns, pauses, 0))
    while events:
        now, _, act = heapq.heappop(events)
        act(now)
    served = [engine.served for engine in engines]
    return Outcome(
        choice=name,
        requests=len(waits),
        hit_rate=hits / tokens,
        prefilled_tokens=tokens - hits,
        ttft_mean_ms=fmean(waits),
        ttft_p95_ms=quantiles(waits, n=20)[-1],
        most_in_flight=max(engine.most for engine in engines),
        worst_share=max(served) / fmean(served),
    )


class _Nobody:
    """A provider that is never asked."""

    async def start(self) -> None: ...

    async def open(self, call: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None: ...

    def status(self) -> dict[str, Any]:
        return {"ready": True}


_NOBODY = _Nobody()


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each choice, or all of it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().split("\n")[0])
    default = Workload()
    for name, value in asdict(default).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--json", action="store_true")
    values = vars(parser.parse_args(argv))
    as_json = values.pop("json")
    work = Workload(**values)
    outcomes = [simulate(name, work) for name in CHOICES]
    if as_json:
        print(json.dumps({"workload": asdict(work), "outcomes": [asdict(each) for each in outcomes]}))
        return
    print(f"{'choice':<20} {'hit rate':>8} {'TTFT mean':>10} {'p95 ms':>8} {'most':>5} {'worst share':>11}")
    for each in outcomes:
        print(
            f"{each.choice:<20} {each.hit_rate:>8.1%} {each.ttft_mean_ms:>10.0f} {each.ttft_p95_ms:>8.0f}"
            f" {each.most_in_flight:>5} {each.worst_share:>11.2f}"
        )
    best = max(outcomes, key=lambda each: each.hit_rate)
    print(
        f"{outcomes[0].requests} requests; the best choice reads {_saved(outcomes, best):.0%} fewer tokens"
        " than least busy"
    )


def _saved(outcomes: Sequence[Outcome], best: Outcome) -> float:
    (plain,) = [each for each in outcomes if each.choice == "least busy"]
    return 1 - best.prefilled_tokens / plain.prefilled_tokens if plain.prefilled_tokens else math.nan


if __name__ == "__main__":
    main()
