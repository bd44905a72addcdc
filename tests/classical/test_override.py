from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from classical.errors import BadParams
from classical.override import place


@dataclass(frozen=True, slots=True)
class Inner:
    size: int = 0
    label: str = ""
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Outer:
    one: Inner = Inner()
    many: Mapping[str, Inner] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("ONE__SIZE", "3", {"one": {"size": 3}}),
        ("ONE__LABEL", "3", {"one": {"label": "3"}}),
        ("ONE__FOLDER", "null", {"one": {"folder": None}}),
        ("ONE__FOLDER", "a/b", {"one": {"folder": "a/b"}}),
        ("MANY__NEW__SIZE", "1", {"many": {"NEW": {"size": 1}}}),
    ],
)
def test_a_value_lands_where_its_name_says(variable: str, text: str, expected: dict[str, Any]) -> None:
    document: dict[str, Any] = {}
    place(document, Outer, variable, text)
    assert document == expected


def test_keys_of_a_mapping_are_found_whatever_their_case() -> None:
    document: dict[str, Any] = {"many": {"MonthlyCharges": {"size": 1}}}
    place(document, Outer, "MANY__MONTHLYCHARGES__LABEL", "x")
    assert document == {"many": {"MonthlyCharges": {"size": 1, "label": "x"}}}


def test_the_original_sections_are_not_changed() -> None:
    section = {"size": 1}
    document: dict[str, Any] = {"one": section}
    place(document, Outer, "ONE__SIZE", "2")
    assert (document, section) == ({"one": {"size": 2}}, {"size": 1})


@pytest.mark.parametrize("variable", ["TWO__SIZE", "ONE__NAME", "ONE__SIZE__MORE", "ONE__"])
def test_a_name_that_leads_nowhere_is_refused(variable: str) -> None:
    with pytest.raises(BadParams, match=variable):
        place({}, Outer, variable, "1")
