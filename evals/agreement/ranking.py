"""Systems in order, from which of two answers was preferred, case by case."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from evals.stats import Estimate, Interval, estimate_mean, quantile, wilson
from registry.errors import BadInput

ROUNDS = 10_000
"""Most steps of the algorithm; it stops when no strength moves by a billionth any more."""
MOST_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Match:
    """Two systems' answers to one case, and which was preferred."""

    case: str
    first: str
    second: str
    value: float
    """1 where the first is better, 0 where the second is, 0.5 for a tie."""

    def __post_init__(self) -> None:
        """Refuse a system against itself, and a value outside [0, 1]."""
        if self.first == self.second:
            raise BadInput(f"case {self.case!r}: {self.first!r} is compared with itself")
        if not 0 <= self.value <= 1:
            raise BadInput(f"case {self.case!r}: value is {self.value}; it is 0 to 1")


@dataclass(frozen=True, slots=True)
class Ranked:
    """One system's place."""

    name: str
    strength: float
    """Natural logarithm; all add up to 0. A beats B with chance 1 / (1 + exp(B - A))."""
    interval: Interval
    wins: float
    """Ties count half."""
    matches: int


def bradley_terry(matches: Sequence[Match], *, prior: float = 0.0) -> dict[str, float]:
    """
    Each system's strength, as a natural logarithm; all add up to 0.

        P(i beats j) = γᵢ / (γᵢ + γⱼ);  γᵢ ← Wᵢ / Σⱼ nᵢⱼ / (γᵢ + γⱼ) until nothing moves

    Args:
        prior: so many ties are added between any two systems, so that one that never lost stays finite.

    Raises:
        BadInput: no matches; or, without *prior*, the systems fall into groups of which one never lost to
            the other, so that no strengths fit best.

    Source: Bradley and Terry 1952, Biometrika 39, 324-345; the algorithm and when it has an answer: Hunter
    2004, Annals of Statistics 32(1), 384-406. Deviation: a tie is half a win for each.

    >>> found = bradley_terry([Match("1", "a", "b", 1), Match("2", "a", "b", 1), Match("3", "a", "b", 0)])
    >>> round(found["a"] - found["b"], 6) == round(math.log(2), 6)
    True
    """
    names = sorted({name for match in matches for name in (match.first, match.second)})
    if not names:
        raise BadInput("Bradley-Terry: give at least one match")
    wins: dict[str, float] = dict.fromkeys(names, prior * (len(names) - 1) / 2)
    met: dict[str, dict[str, float]] = {
        name: {other: prior for other in names if other != name and prior > 0} for name in names
    }
    beat: dict[str, set[str]] = {name: set() for name in names}
    for match in matches:
        for name, other, value in (
            (match.first, match.second, match.value),
            (match.second, match.first, 1 - match.value),
        ):
            wins[name] += value
            met[name][other] = met[name].get(other, 0.0) + 1
            if value > 0:
                beat[name].add(other)
    if prior <= 0 and not _connected(names, beat):
        raise BadInput("Bradley-Terry: some systems never lost to the others; add matches or a prior")
    return _fit(names, wins, met)


def ranking(
    matches: Sequence[Match],
    *,
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
    prior: float = 0.5,
) -> tuple[Ranked, ...]:
    """
    The systems, strongest first, with percentile bootstrap intervals over cases.

    All matches of a case are drawn together, since they share its question.

    Args:
        prior: as in `bradley_terry`; resamples need one, because in some a system wins every match.

    Raises:
        BadInput: no matches, a *prior* that is not above 0, or *resamples* out of 10 to 10,000.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13, over clusters.
    """
    if not prior > 0 or not 10 <= resamples <= MOST_RESAMPLES:
        raise BadInput(f"ranking: prior must be above 0, resamples 10 to {MOST_RESAMPLES}")
    values = bradley_terry(matches, prior=prior)
    by_case: dict[str, list[Match]] = defaultdict(list)
    for match in matches:
        by_case[match.case].append(match)
    cases = list(by_case.values())
    draw = random.Random(seed)
    drawn: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(resamples):
        chosen = [match for case in draw.choices(cases, k=len(cases)) for match in case]
        for name, strength in bradley_terry(chosen, prior=prior).items():
            drawn[name].append(strength)
    tail = (1 - level) / 2
    found = [
        Ranked(
            name,
            strength,
            Interval(quantile(drawn[name], tail), quantile(drawn[name], 1 - tail)),
            sum(_value_for(match, name) for match in matches),
            sum(name in (match.first, match.second) for match in matches),
        )
        for name, strength in values.items()
        if drawn[name]
    ]
    return tuple(sorted(found, key=lambda one: (-one.strength, one.name)))


def win_rate(matches: Sequence[Match], name: str, level: float = 0.95) -> Estimate:
    """
    How often *name* is preferred, in [0, 1], ties counting half; the case is the unit.

    Raises:
        BadInput: *name* is in no match.

    >>> win_rate([Match(str(i), "a", "b", float(i < 14)) for i in range(20)], "a").interval.rounded(2)
    (0.48, 0.85)
    """
    by_case: dict[str, list[float]] = defaultdict(list)
    for match in matches:
        if name in (match.first, match.second):
            by_case[match.case].append(_value_for(match, name))
    if not by_case:
        raise BadInput(f"win rate: {name!r} is in no match")
    return estimate_mean([fmean(values) for values in by_case.values()], 0.0, 1.0, level)


@dataclass(frozen=True, slots=True)
class Position:
    """What the order in which answers stand does to a judge."""

    consistent: Estimate
    """Share of pairs with the same verdict in both orders, with Wilson's interval."""
    favours_first: Estimate
    """Of the pairs whose verdict changed sides, the share where whoever stood first won both times."""


def position(verdicts: Sequence[tuple[str, str]]) -> Position:
    """
    How the verdicts on the same pairs in two orders agree.

    Args:
        verdicts: who won, as `first`, `second` or `tie`, when the first answer stood first and when it stood
            second; both name answers, not places.

    >>> found = position([("first", "first"), ("first", "second"), ("tie", "tie"), ("second", "second")])
    >>> found.consistent.value, found.favours_first.value
    (0.75, 1.0)
    """
    n = len(verdicts)
    same = sum(there == back for there, back in verdicts)
    swapped = [pair for pair in verdicts if pair in (("first", "second"), ("second", "first"))]
    early = swapped.count(("first", "second"))
    return Position(
        Estimate(same / n if n else 0.0, wilson(same, n), n, "Wilson"),
        Estimate(
            early / len(swapped) if swapped else 0.5, wilson(early, len(swapped)), len(swapped), "Wilson"
        ),
    )


def _value_for(match: Match, name: str) -> float:
    if match.first == name:
        return match.value
    return 1 - match.value if match.second == name else 0.0


def _connected(names: Sequence[str], beat: Mapping[str, set[str]]) -> bool:
    """Whether everybody has beaten, directly or through others, everybody else."""
    lost = {name: {other for other in names if name in beat[other]} for name in names}
    return all(len(_reached(names[0], edges)) == len(names) for edges in (beat, lost))


def _reached(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        fresh = edges[waiting.pop()] - seen
        seen |= fresh
        waiting.extend(fresh)
    return seen


def _fit(
    names: Sequence[str], wins: Mapping[str, float], met: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    strengths = dict.fromkeys(names, 1.0)
    for _ in range(ROUNDS):
        moved = {
            name: wins[name] / sum(n / (strengths[name] + strengths[other]) for other, n in met[name].items())
            for name in names
        }
        scale = math.exp(fmean(math.log(value) for value in moved.values()))
        moved = {name: value / scale for name, value in moved.items()}
        still = all(abs(moved[name] - strengths[name]) < 1e-9 * moved[name] for name in names)
        strengths = moved
        if still:
            break
    return {name: math.log(value) for name, value in strengths.items()}
