from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from classical import data, quality
from classical.errors import QualityFailed
from classical.params import ColumnRule, Params
from classical.quality import Check, QualityReport
from tests.classical.conftest import people, rows, write_table


def report(folder: Path, lines: list[str], **rules: ColumnRule) -> tuple[QualityReport, Params]:
    settings = replace(people(), quality=rules)
    return quality.check(data.read(write_table(folder, lines), settings), settings), settings


def test_every_declared_rule_and_the_built_in_ones_are_in_the_report(tmp_path: Path) -> None:
    passed, _ = report(tmp_path, rows(20), age=ColumnRule(min=0, max=100), plan=ColumnRule(unique=False))
    assert [(check.column, check.rule, check.failed) for check in passed.checks] == [
        ("id", "nullable", 0),
        ("id", "unique", 0),
        ("plan", "nullable", 0),
        ("age", "number", 0),
        ("age", "nullable", 0),
        ("age", "min", 0),
        ("age", "max", 0),
        ("income", "number", 0),
        ("left", "nullable", 0),
    ]
    assert passed.failures == ()


@pytest.mark.parametrize(
    ("lines", "rules", "expected"),
    [
        (["a,x,p,1,2,", "b,x,p,1,2,no"], {}, Check("left", "nullable", 1, ("a",))),
        (["a,x,p,1,2,no", "a,y,p,1,2,no"], {}, Check("id", "unique", 2, ("a", "a"))),
        ([",x,p,1,2,no", "b,y,p,1,2,no"], {}, Check("id", "nullable", 1, ("row 1",))),
        (["a,x,p,old,2,no"], {}, Check("age", "number", 1, ("a",))),
        (["a,x,p,1,2,no", "b,,p,1,2,no"], {"colour": ColumnRule()}, Check("colour", "nullable", 1, ("b",))),
        (["a,x,p,1,2,no", "b,x,p,7,2,no"], {"age": ColumnRule(max=6)}, Check("age", "max", 1, ("b",))),
        (["a,x,p,1,2,no", "b,x,p,7,2,no"], {"age": ColumnRule(min=7)}, Check("age", "min", 1, ("a",))),
        (["a,x,p,1,2,no", "b,x,q,7,2,no"],
         {"plan": ColumnRule(allowed=("p",))}, Check("plan", "allowed", 1, ("b",))),
        (["a,x,p,1,2,no", "b,x,q,7,2,no"],
         {"age": ColumnRule(allowed=(7.0,))}, Check("age", "allowed", 1, ("a",))),
        (["a,x,p,1,2,no", "b,x,q,1,2,no"],
         {"age": ColumnRule(unique=True)}, Check("age", "unique", 2, ("a", "b"))),
        (
            [f"r{n},{'' if n < 6 else 'x'},p,1,2,no" for n in range(10)],
            {"colour": ColumnRule(nullable=True, max_null_share=0.5)},
            Check("colour", "max_null_share", 6, ("r0", "r1", "r2", "r3", "r4")),
        ),
    ],
)  # fmt: skip
def test_a_broken_rule_names_column_rule_count_and_rows(
    tmp_path: Path, lines: list[str], rules: dict[str, ColumnRule], expected: Check
) -> None:
    failed, _ = report(tmp_path, lines, **rules)
    assert failed.failures == (expected,)


def test_missing_cells_break_no_other_rule(tmp_path: Path) -> None:
    rule = ColumnRule(nullable=True, max_null_share=0.5, min=1, allowed=(2.0,))
    passed, _ = report(tmp_path, ["a,x,p,,2,no", "b,x,p,2,2,no"], age=rule)
    assert passed.failures == ()


def test_a_failing_checkpoint_stops_with_the_reason_and_leaves_its_report(tmp_path: Path) -> None:
    settings = replace(people(), quality={"age": ColumnRule(max=20)})
    lines = [f"r{n},secret colour,p,{n},2,no" for n in range(30)]
    table = data.read(write_table(tmp_path, lines), settings)
    path = tmp_path / "reports" / "quality.json"
    with pytest.raises(QualityFailed) as caught:
        quality.checkpoint(table, settings, path)
    assert caught.value.message == (
        "column 'age' breaks 'max' in 9 rows (such as r21, r22, r23, r24, r25); "
        f"full report: {path}"
    )  # fmt: skip
    told = json.loads(path.read_text())
    assert (told["ok"], told["data_digest"], told["rows"]) == (False, table.digest, 30)
    assert {"column": "age", "rule": "max", "failed": 9, "examples": ["r21", "r22", "r23", "r24", "r25"]} in (
        told["checks"]
    )
    assert "secret colour" not in path.read_text() + caught.value.message


def test_a_passing_checkpoint_leaves_its_report_too(tmp_path: Path) -> None:
    table = data.read(write_table(tmp_path), people())
    path = tmp_path / "quality.json"
    passed = quality.checkpoint(table, people(), path)
    assert json.loads(path.read_text()) == json.loads(json.dumps(passed.as_json()))
    assert json.loads(path.read_text())["ok"] is True


@pytest.mark.parametrize(("column", "expected"), [("age", False), ("colour", True), ("income", True)])
def test_a_feature_is_nullable_as_its_rule_says_else_always(column: str, *, expected: bool) -> None:
    assert quality.nullable(column, people()) is expected
