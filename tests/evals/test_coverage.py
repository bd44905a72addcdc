from __future__ import annotations

import pytest

from tests.bench.evals.coverage import CASES, LOW, covered


@pytest.mark.parametrize("name", CASES)
def test_intervals_of_95_percent_hold_the_truth_that_often(name: str) -> None:
    case = CASES[name]
    spread = 3 * (0.95 * 0.05 / case.repeats) ** 0.5  # what chance makes of so few simulations
    assert LOW - min(spread, 0.01) <= covered(case, case.repeats) <= case.high + min(spread, 0.01)
