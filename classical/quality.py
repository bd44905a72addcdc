"""
The checkpoint before training: every cell against the rules of params.yaml, in one pandera schema.

Beside the declared rules, the target and the ids must be present, ids unique, and numbers numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from classical import data
from classical.data import Table
from classical.errors import QualityFailed
from classical.params import ColumnRule, Params
from registry import plugins

if TYPE_CHECKING:
    import pandas as pd

MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One rule on one column, and the rows that break it."""

    column: str
    rule: str
    """nullable, max_null_share, min, max, allowed, unique or number."""
    failed: int
    """Rows that break the rule."""
    examples: tuple[str, ...]
    """Ids of the first of them, at most five; never their cells."""


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Every rule that was checked, passed or not."""

    data_digest: str
    rows: int
    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed; empty when the data may be trained on."""
        return tuple(check for check in self.checks if check.failed)

    def as_json(self) -> dict[str, object]:
        """The report as plain JSON values, its verdict first."""
        return {"ok": not self.failures, **asdict(self)}


def check(table: Table, params: Params) -> QualityReport:
    """
    The verdict on every rule, in the order of the columns.

    Raises:
        MissingExtra: pandera is not installed.
    """
    declared = _rules(params)
    broken = {key: list(names) for key, names in table.faults.items()}
    breaches = _breaches(table.frame, params, declared)
    for key, position in sorted(breaches, key=lambda breach: breach[1]):
        broken.setdefault(key, []).append(str(table.frame.index[position]))
    every = [(column, rule) for column, rules in declared.items() for rule in rules]
    every += [key for key in broken if key not in every]
    checks = tuple(
        Check(column, rule, len(names), tuple(names[:MAX_EXAMPLES]))
        for column, rule in every
        for names in (broken.get((column, rule), []),)
    )
    return QualityReport(table.digest, len(table.frame), checks)


def checkpoint(table: Table, params: Params, report_path: Path) -> QualityReport:
    """
    Check, write the report as JSON to *report_path*, and return it.

    Raises:
        QualityFailed: a rule is broken; names column, rule, number of rows and up to five ids.
        BadData: the report cannot be written.
    """
    report = check(table, params)
    text = json.dumps(report.as_json(), ensure_ascii=False, indent=2) + "\n"
    data.write(report_path, text.encode())
    if report.failures:
        raise QualityFailed(f"{_told(report.failures)}; full report: {report_path}")
    return report


def nullable(column: str, params: Params) -> bool:
    """Whether a cell of *column* may be missing: as its rule says, else yes."""
    rule = params.quality.get(column)
    return rule is None or rule.nullable


def _rules(params: Params) -> dict[str, tuple[str, ...]]:
    """Column → the names of the rules on it."""
    features, row_id = params.features, params.data.id_column
    result: dict[str, tuple[str, ...]] = {row_id: ("nullable", "unique")} if row_id else {}
    for column in (*features.columns, features.target):
        rule = params.quality.get(column, ColumnRule(nullable=column != features.target))
        names = ["number"] if column in features.numerical_features else []
        if not rule.nullable or column == features.target:
            names.append("nullable")
        limits = ("max_null_share", "min", "max")
        names += [name for name in limits if getattr(rule, name) is not None]
        names += [name for name in ("allowed", "unique") if getattr(rule, name)]
        if names:
            result[column] = tuple(names)
    return result


def _breaches(
    frame: pd.DataFrame, params: Params, declared: dict[str, tuple[str, ...]]
) -> Iterable[tuple[tuple[str, str], int]]:
    """Each broken (column, rule) with the position of a row that breaks it."""
    try:
        import pandera.pandas as pa
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "classical") from error

    def column(name: str) -> pa.Column:
        rule, names = params.quality.get(name, ColumnRule()), declared[name]
        checks = []
        if rule.min is not None:
            checks.append(pa.Check.ge(rule.min, error="min"))
        if rule.max is not None:
            checks.append(pa.Check.le(rule.max, error="max"))
        if rule.allowed:
            checks.append(pa.Check.isin(list(rule.allowed), error="allowed"))
        return pa.Column(
            checks=checks,
            nullable="nullable" not in names,
            unique="unique" in names,
        )

    positions = frame.reset_index(drop=True)
    schema = pa.DataFrameSchema({name: column(name) for name in declared if name in frame})
    renamed = {"not_nullable": "nullable", "field_uniqueness": "unique"}
    try:
        schema.validate(positions, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        for name, rule, row in zip(cases["column"], cases["check"], cases["index"], strict=True):
            yield (name, renamed.get(rule, rule)), int(row)
    for name, names in declared.items():
        limit = params.quality[name].max_null_share if "max_null_share" in names else None
        missing = positions.index[positions[name].isna()] if limit is not None else ()
        if limit is not None and len(missing) > limit * len(positions):
            for row in missing:
                yield (name, "max_null_share"), int(row)


def _told(failures: Iterable[Check]) -> str:
    return "; ".join(
        f"column {check.column!r} breaks {check.rule!r} in {check.failed} rows"
        f" (such as {', '.join(check.examples)})"
        for check in failures
    )
