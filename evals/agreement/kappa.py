"""Agreement of two raters beyond chance, of several raters, and each class's own error."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from evals.distributions import normal_quantile
from evals.stats import FEW, Estimate, Interval, wilson
from registry.errors import BadInput

Weights = Literal["none", "linear", "quadratic"]
MOST_CLASSES = 100


@dataclass(frozen=True, slots=True)
class Crosstab:
    """How often two raters gave each pair of labels."""

    classes: tuple[str, ...]
    """In order, where the classes have one: weights look at it."""
    counts: tuple[tuple[int, ...], ...]
    """Rows by the first rater's label (people, where one is a judge), columns by the second's."""

    def __post_init__(self) -> None:
        """Refuse what is no square of counts."""
        size = len(self.classes)
        if len(set(self.classes)) < size or not 1 <= size <= MOST_CLASSES:
            raise BadInput(f"classes: name 1 to {MOST_CLASSES}, each once")
        if len(self.counts) != size or any(len(row) != size or min(row) < 0 for row in self.counts):
            raise BadInput(f"counts: {size} classes need {size} rows of {size} counts, none below 0")

    @property
    def n(self) -> int:
        """How many cases both rated."""
        return sum(map(sum, self.counts))

    @property
    def rows(self) -> tuple[int, ...]:
        """How often the first rater gave each label."""
        return tuple(map(sum, self.counts))

    @property
    def columns(self) -> tuple[int, ...]:
        """How often the second rater gave each label."""
        return tuple(map(sum, zip(*self.counts, strict=True)))

    @property
    def agreed(self) -> int:
        """Cases on which both gave the same label."""
        return sum(self.counts[at][at] for at in range(len(self.classes)))


def crosstab(first: Sequence[str], second: Sequence[str], classes: Sequence[str] = ()) -> Crosstab:
    """
    How often two raters gave each pair of labels, case by case.

    Args:
        classes: their order; by default all labels seen, sorted.

    Raises:
        BadInput: lists of different lengths, no cases, or a label that is none of *classes*.

    >>> crosstab(["good", "bad", "bad"], ["good", "good", "bad"]).counts
    ((1, 1), (0, 1))
    """
    if len(first) != len(second):
        raise BadInput(f"labels: the first rater gave {len(first)}, the second {len(second)}")
    names = tuple(classes) or tuple(sorted({*first, *second}))
    unknown = {*first, *second} - set(names)
    if unknown or not names:
        raise BadInput(f"labels: {sorted(unknown)} are none of {', '.join(names) or 'nothing'}")
    seen = Counter(zip(first, second, strict=True))
    return Crosstab(names, tuple(tuple(seen[a, b] for b in names) for a in names))


def cohen(table: Crosstab, weights: Weights = "none", level: float = 0.95) -> Estimate:
    """
    Cohen's κ in [-1, 1] with its interval: 0 is what chance agrees on, 1 is always.

        κ = (pₒ - pₑ) / (1 - pₑ),  interval κ ± z · se, cut to [-1, 1]

    Where fewer than five cases lie off the diagonal, their spread says little: then the lower end is at most
    that of Wilson's lower bound of pₒ, with pₑ as it is. Where both raters gave one and the same label to
    every case, nothing is shown beyond chance: 0 in [-1, 1].

    Args:
        weights: how much of a disagreement counts, by its distance in the order of the classes: all of it,
            in proportion, or by the square.

    Source: Cohen 1960, Educational and Psychological Measurement 20(1), 37-46; weights: Cohen 1968,
    Psychological Bulletin 70(4), 213-220; standard error: see `kappa_error`.

    >>> found = cohen(Crosstab(("bad", "good"), ((20, 5), (10, 15))))
    >>> round(found.value, 2), found.interval.rounded(2)
    (0.4, (0.15, 0.65))
    """
    value, error = kappa_error(table, weights)
    if math.isnan(value):
        return Estimate(0.0, Interval(-1.0, 1.0), table.n, "kappa undefined: one label only")
    z = normal_quantile(0.5 + level / 2)
    interval = Interval(value - z * error, value + z * error)
    if table.n - table.agreed < FEW:
        _, chance = _observed_and_chance(table, weights)
        worst = (wilson(table.agreed, table.n, level).low - chance) / (1 - chance)
        interval = interval.hull(Interval(min(worst, value), value))
    return Estimate(value, interval.clipped(-1.0, 1.0), table.n, "Fleiss, Cohen and Everitt")


def kappa_error(table: Crosstab, weights: Weights = "none") -> tuple[float, float]:
    """
    κ and its large-sample standard error; NaN for both where κ is undefined (chance agrees always).

        var = Σ pᵢⱼ (wᵢⱼ(1-pₑ) - (w̄ᵢ. + w̄.ⱼ)(1-pₒ))² - (pₒpₑ - 2pₑ + pₒ)²,  over n (1-pₑ)⁴

    Source: Fleiss, Cohen and Everitt 1969, Psychological Bulletin 72(5), 323-327, equation 13.

    >>> value, error = kappa_error(Crosstab(("bad", "good"), ((20, 5), (10, 15))))
    >>> round(value, 4), round(error, 4)
    (0.4, 0.127)
    """
    n = table.n
    observed, chance = _observed_and_chance(table, weights) if n else (0.0, 1.0)
    if 1 - chance < 1e-12:
        return math.nan, math.nan
    size = range(len(table.classes))
    weight = _weights(len(table.classes), weights)
    first, second = [count / n for count in table.rows], [count / n for count in table.columns]
    by_row = [sum(second[j] * weight[i][j] for j in size) for i in size]
    by_column = [sum(first[i] * weight[i][j] for i in size) for j in size]
    squares = sum(
        table.counts[i][j]
        / n
        * (weight[i][j] * (1 - chance) - (by_row[i] + by_column[j]) * (1 - observed)) ** 2
        for i in size
        for j in size
    )
    variance = (squares - (observed * chance - 2 * chance + observed) ** 2) / (n * (1 - chance) ** 4)
    return (observed - chance) / (1 - chance), math.sqrt(max(variance, 0.0))


def ac1(table: Crosstab) -> float:
    """
    Gwet's AC1 in [-1, 1]: agreement beyond chance that stays high where nearly all cases are of one class.

        (pₒ - pₑ) / (1 - pₑ),  pₑ = Σ πₖ(1-πₖ) / (K-1),  πₖ the mean share of class k

    Shown beside κ, which falls to 0 for raters who agree on nearly everything when one class is rare (the
    paradox of Feinstein and Cicchetti 1990). 1 for a single class.

    Source: Gwet 2008, British Journal of Mathematical and Statistical Psychology 61(1), 29-48.

    >>> skewed = Crosstab(("bad", "good"), ((0, 3), (2, 95)))
    >>> round(cohen(skewed).value, 2), round(ac1(skewed), 2)
    (-0.02, 0.95)
    """
    size, n = len(table.classes), table.n
    if size == 1 or n == 0:
        return 1.0 if n else 0.0
    shares = [(a + b) / (2 * n) for a, b in zip(table.rows, table.columns, strict=True)]
    chance = sum(share * (1 - share) for share in shares) / (size - 1)
    return (table.agreed / n - chance) / (1 - chance)


def pabak(table: Crosstab) -> float:
    """
    κ as it would be with equal classes and no bias: (K pₒ - 1) / (K - 1), in [-1/(K-1), 1].

    Source: Byrt, Bishop and Carlin 1993, Journal of Clinical Epidemiology 46(5), 423-429.

    >>> round(pabak(Crosstab(("bad", "good"), ((20, 5), (10, 15)))), 2)
    0.4
    """
    size, n = len(table.classes), table.n
    if size == 1 or n == 0:
        return 1.0 if n else 0.0
    return (size * (table.agreed / n) - 1) / (size - 1)


def base_rates(table: Crosstab) -> dict[str, Estimate]:
    """The share of each class among the first rater's labels, with Wilson's interval."""
    return {
        name: Estimate(count / table.n if table.n else 0.0, wilson(count, table.n), table.n, "Wilson")
        for name, count in zip(table.classes, table.rows, strict=True)
    }


def class_errors(table: Crosstab) -> dict[str, Estimate]:
    """
    For each class of the first rater: the share that the second calls something else, with Wilson's interval.

    For a judge held to people with the classes bad and good: 1 - specificity and 1 - sensitivity. 0 in (0, 1)
    for a class that the first rater never gave.

    >>> errors = class_errors(Crosstab(("bad", "good"), ((20, 5), (10, 15))))
    >>> errors["bad"].value, errors["good"].value
    (0.2, 0.4)
    """
    found: dict[str, Estimate] = {}
    for at, name in enumerate(table.classes):
        n = table.rows[at]
        wrong = n - table.counts[at][at]
        found[name] = Estimate(wrong / n if n else 0.0, wilson(wrong, n), n, "Wilson")
    return found


def alpha(cases: Sequence[Sequence[str | None]]) -> float:
    """
    Krippendorff's alpha for nominal labels of any number of raters: 1 is always, 0 is chance.

        1 - (n-1) Σ_u Σ_{c≠k} n_uc n_uk / (m_u - 1) / Σ_{c≠k} n_c n_k

    None is no label; cases with fewer than two say nothing. NaN where all labels are the same, or none pair.

    Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, University of Pennsylvania.

    >>> round(alpha([["a", "a", None], ["b", "b", "b"], ["a", "b", "b"]]), 4)
    0.5333
    """
    paired = [Counter(label for label in case if label is not None) for case in cases]
    paired = [counts for counts in paired if counts.total() > 1]
    totals: Counter[str] = Counter()
    disagreed = 0.0
    for counts in paired:
        totals.update(counts)
        m = counts.total()
        disagreed += (m * m - sum(count * count for count in counts.values())) / (m - 1)
    n = totals.total()
    expected = n * n - sum(count * count for count in totals.values())
    return 1 - (n - 1) * disagreed / expected if expected else math.nan


def between_people(cases: Sequence[Mapping[str, str]], classes: Sequence[str]) -> dict[str, Estimate]:
    """
    Cohen's κ of every two people over the cases both labelled: the most a judge can be asked to reach.

    Args:
        cases: who gave which label, one mapping a case.

    Returns:
        By `ann/bob`, names sorted; pairs without a common case are left out.
    """
    people = sorted({name for case in cases for name in case})
    found: dict[str, Estimate] = {}
    for one, other in combinations(people, 2):
        both = [(case[one], case[other]) for case in cases if one in case and other in case]
        if both:
            first, second = zip(*both, strict=True)
            found[f"{one}/{other}"] = cohen(crosstab(first, second, classes))
    return found


def _observed_and_chance(table: Crosstab, weights: Weights) -> tuple[float, float]:
    size, n = range(len(table.classes)), table.n
    weight = _weights(len(table.classes), weights)
    rows, columns = table.rows, table.columns
    observed = sum(weight[i][j] * table.counts[i][j] for i in size for j in size) / n
    chance = sum(weight[i][j] * rows[i] * columns[j] for i in size for j in size) / (n * n)
    return observed, chance


def _weights(size: int, weights: Weights) -> list[list[float]]:
    """How far two classes count as agreement: 1 on the diagonal, 0 at most."""
    if weights == "none":
        return [[float(i == j) for j in range(size)] for i in range(size)]
    power = 1 if weights == "linear" else 2
    most = max(size - 1, 1)
    return [[1 - (abs(i - j) / most) ** power for j in range(size)] for i in range(size)]
