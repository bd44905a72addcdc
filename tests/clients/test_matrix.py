"""The page on compatibility says what is so."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest

from tests.clients.matrix import PAGE, ROWS, cleared, render, row, rows
from tests.clients.plane import plane
from tests.fakes.stand import Stand


@pytest.fixture(scope="module")
def served() -> Iterator[Stand]:
    with plane() as made:
        yield made


@pytest.mark.parametrize(
    ("module", "feature"), [(module, feature) for module in ROWS for feature in row(module).trials]
)
@pytest.mark.filterwarnings("default")  # what clients warn of is theirs
def test_a_client_gets_what_the_page_says(served: Stand, module: str, feature: str) -> None:
    why = getattr(importlib.import_module(f"tests.clients.rows.{module}"), "missing", lambda: None)()
    if why:
        pytest.skip(why)
    with cleared(served):
        row(module).trials[feature](served)


def test_the_page_is_what_the_trials_make() -> None:
    passed = {module: dict.fromkeys(one.trials, True) for module, one in rows().items()}
    assert PAGE.read_text() == render(passed), "run `python -m tests.clients.matrix`"
