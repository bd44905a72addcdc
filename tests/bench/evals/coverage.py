"""`python -m tests.bench.evals.coverage`: how often the intervals of 95 % hold the truth, by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Annotated

import typer

from evals import inference, stats
from evals.agreement.kappa import cohen, crosstab
from evals.delong import auc_estimate, auc_gain
from evals.distributions import normal_cdf
from evals.judging.errors_known import JudgeErrors, corrected, corrected_gain
from evals.passing import pass_at_k
from evals.stats import Interval
from registry import terminal

LOW, HIGH = 0.93, 0.97
"""Between which an interval of 95 % has to hold the truth."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of interval on one kind of data."""

    draw: Callable[[Random], Interval]
    """An interval from data drawn afresh."""
    truth: float
    about: str
    repeats: int = 2000
    high: float = HIGH
    """More than 0.97 where the interval promises at least its level, and says so."""


def _share(n: int, p: float) -> Case:
    def draw(random: Random) -> Interval:
        return stats.wilson(sum(random.random() < p for _ in range(n)), n)

    return Case(draw, p, f"share of {p:g}, {n} samples")


def _mean(n: int, a: float, b: float, repeats: int = 2000) -> Case:
    def draw(random: Random) -> Interval:
        return stats.mean_interval([random.betavariate(a, b) for _ in range(n)], 0.0, 1.0)

    return Case(draw, a / (a + b), f"mean of scores Beta({a:g}, {b:g}), {n} samples", repeats)


def _paired_share(n: int, gained: float, lost: float) -> Case:
    def draw(random: Random) -> Interval:
        rolls = [random.random() for _ in range(n)]
        wins = sum(roll < gained for roll in rolls)
        return stats.tango(wins, sum(gained <= roll < gained + lost for roll in rolls), n)

    return Case(draw, gained - lost, f"gain of {gained - lost:g}, {n} pairs")


def _paired_mean(n: int, gain: float) -> Case:
    def draw(random: Random) -> Interval:
        second = [random.betavariate(4, 2) * 0.8 for _ in range(n)]
        first = [score + random.triangular(gain - 0.1, gain + 0.1, gain) for score in second]
        return stats.estimate_gain(first, second, 0.0, 1.0).interval

    return Case(draw, gain, f"mean gain of {gain:g}, {n} pairs")


def _clustered(groups: int, size: int, *, paired: bool) -> Case:
    truth = 0.08 if paired else 0.5

    def draw(random: Random) -> Interval:
        first: list[float] = []
        clusters: list[str] = []
        for at in range(groups):
            shift = random.gauss(0, 0.08)
            first += [truth + shift + random.gauss(0, 0.1) for _ in range(size)]
            clusters += [str(at)] * size
        if paired:
            zeros = [0.0] * len(first)
            return inference.clustered_gain(first, zeros, clusters, -2.0, 2.0).interval
        return inference.clustered_mean(first, clusters, -2.0, 3.0).interval

    return Case(draw, truth, f"{groups} clusters of {size}", 1500)


def _quantile(n: int, q: float) -> Case:
    def draw(random: Random) -> Interval:
        return stats.quantile_interval([random.expovariate(1) for _ in range(n)], q)

    return Case(draw, -math.log(1 - q), f"{q:g} quantile of {n} latencies")


def _area(n: int, shift: float) -> Case:
    def draw(random: Random) -> Interval:
        rows = [(at % 3 == 0, random.gauss(shift if at % 3 == 0 else 0.0, 1.0)) for at in range(n)]
        return auc_estimate(rows).interval

    return Case(draw, normal_cdf(shift / math.sqrt(2)), f"area under ROC, {n} samples", 1500)


def _area_gain(n: int) -> Case:
    def draw(random: Random) -> Interval:
        first: list[tuple[bool, float]] = []
        second: list[tuple[bool, float]] = []
        for at in range(n):
            truth = at % 2 == 0
            shared = random.gauss(0, 0.7)
            first.append((truth, shared + random.gauss(1.4 if truth else 0.0, 0.7)))
            second.append((truth, shared + random.gauss(1.0 if truth else 0.0, 0.7)))
        return auc_gain(first, second).interval

    spread = math.sqrt(0.98) * math.sqrt(2)
    truth = normal_cdf(1.4 / spread) - normal_cdf(1.0 / spread)
    return Case(draw, truth, f"gain in area under ROC, {n} samples", 1200)


def _macro_f1(n: int) -> Case:
    chances = {("a", "a"): 0.45, ("a", "b"): 0.08, ("b", "a"): 0.12, ("b", "b"): 0.35}

    def compute(items: Mapping[tuple[str, str], float]) -> float:
        found = []
        for label in ("a", "b"):
            hits = items.get((label, label), 0)
            wrong = sum(count for pair, count in items.items() if label in pair and pair != (label, label))
            found.append(2 * hits / (2 * hits + wrong) if hits else 0.0)
        return sum(found) / 2

    def draw(random: Random) -> Interval:
        rows = random.choices(list(chances), list(chances.values()), k=n)
        return stats.bootstrap_interval(rows, compute, resamples=400, seed=random.randrange(10**6))

    return Case(draw, compute(chances), f"macro F1, bootstrap, {n} samples", 500)


def _kappa(n: int) -> Case:
    def draw(random: Random) -> Interval:
        first = ["good" if random.random() < 0.6 else "bad" for _ in range(n)]
        second = [one if random.random() < 0.8 else ("bad" if one == "good" else "good") for one in first]
        return cohen(crosstab(first, second, ("bad", "good"))).interval

    agreed, other = 0.8, 0.6 * 0.8 + 0.4 * 0.2
    chance = 0.6 * other + 0.4 * (1 - other)
    return Case(draw, (agreed - chance) / (1 - chance), f"Cohen's kappa, {n} labels", 1500)


def _judged(n: int, labels: int, share: float) -> Case:
    sensitivity, specificity = 0.9, 0.85

    def draw(random: Random) -> Interval:
        seen = [
            float(random.random() < (sensitivity if random.random() < share else 1 - specificity))
            for _ in range(n)
        ]
        hits = sum(random.random() < sensitivity for _ in range(labels)) / labels
        misses = sum(random.random() < specificity for _ in range(labels)) / labels
        errors = JudgeErrors(hits, labels, misses, labels)
        return corrected(stats.estimate_mean(seen, 0.0, 1.0), errors).interval

    return Case(draw, share, f"share by a judge with known errors, {n} samples", 1500)


def _judged_gain(n: int, labels: int) -> Case:
    sensitivity, specificity, gain = 0.9, 0.85, 0.1

    def draw(random: Random) -> Interval:
        first: list[float] = []
        second: list[float] = []
        for _ in range(n):
            good = random.random() < 0.7
            better = good or random.random() < gain / 0.3
            for side, truth in ((first, better), (second, good)):
                side.append(float(random.random() < (sensitivity if truth else 1 - specificity)))
        hits = sum(random.random() < sensitivity for _ in range(labels)) / labels
        misses = sum(random.random() < specificity for _ in range(labels)) / labels
        errors = JudgeErrors(hits, labels, misses, labels)
        return corrected_gain(stats.estimate_gain(first, second, 0.0, 1.0), errors).interval

    return Case(draw, gain, f"gain by a judge with known errors, {n} pairs", 800)


def _passes(n: int, k: int) -> Case:
    truth = 1 - 5.0 / (5.0 + 3.0) * 6.0 / 9.0  # 1 - E[(1-p)^2] of p ~ Beta(3, 5)

    def draw(random: Random) -> Interval:
        values = []
        for _ in range(n):
            p = random.betavariate(3, 5)
            values.append(pass_at_k(5, sum(random.random() < p for _ in range(5)), k))
        return stats.mean_interval(values, 0.0, 1.0)

    return Case(draw, truth, f"pass@{k} of 5 tries, {n} samples")


def _anytime(n: int) -> Case:
    def draw(random: Random) -> Interval:
        return inference.anytime_mean([float(random.random() < 0.8) for _ in range(n)], 0.0, 1.0).interval

    return Case(draw, 0.8, f"confidence sequence at any time, {n} samples", 300, 1.0)


CASES: Mapping[str, Case] = {
    "Wilson": _share(200, 0.85),
    "Wilson, rare": _share(400, 0.03),
    "Student t": _mean(200, 5, 2),
    "Student t and BCa": _mean(40, 4, 2, 300),
    "Tango": _paired_share(200, 0.14, 0.06),
    "Tango, equal": _paired_share(300, 0.05, 0.05),
    "paired Student t": _paired_mean(150, 0.05),
    "clustered t": _clustered(30, 6, paired=False),
    "paired clustered t": _clustered(40, 5, paired=True),
    "order statistics": _quantile(200, 0.5),
    "order statistics, p95": _quantile(400, 0.95),
    "DeLong": _area(150, 1.0),
    "paired DeLong": _area_gain(150),
    "percentile bootstrap": _macro_f1(200),
    "Cohen's kappa": _kappa(150),
    "Rogan-Gladen": _judged(300, 150, 0.7),
    "paired Rogan-Gladen": _judged_gain(250, 150),
    "pass@k": _passes(200, 2),
    "confidence sequence": _anytime(300),
}


def covered(case: Case, repeats: int, seed: int = 1) -> float:
    """The share of intervals that hold the truth."""
    random = Random(seed)
    return sum(
        found.low <= case.truth <= found.high for found in (case.draw(random) for _ in range(repeats))
    ) / (repeats)


def main(*, times: Annotated[int, typer.Option(min=1, help="Repeat so many times more.")] = 1) -> None:
    """Print a table in Markdown."""
    print("| Interval | Data | Simulations | Holds the truth |\n|---|---|---|---|")
    for name, case in CASES.items():
        repeats = case.repeats * times
        print(f"| {name} | {case.about} | {repeats:,} | {covered(case, repeats):.1%} |", flush=True)


if __name__ == "__main__":
    application = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
    application.command()(main)
    terminal.run(application)
