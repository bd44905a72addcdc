"""
Rows: read from a CSV with their digest, split by a hash of each row's id, written as a hold-out.

Cells are text until a column is declared numerical. A blank cell is missing, in either kind of
column, here and when the model serves.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from classical.errors import BadData
from classical.params import Params
from classical.runtimes.base import FLOAT32_MAX
from registry import ids, parse, plugins

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Table:
    """Typed rows. The index holds the row ids as text; columns are features, then the target."""

    frame: pd.DataFrame
    """Text cells are str or None; number cells are float64, NaN where missing."""
    digest: str
    """SHA-256 over the file's bytes as they lie on disk."""
    faults: Mapping[tuple[str, str], tuple[str, ...]]
    """(column, rule) → ids of rows already found wrong while reading: numbers that are none, ids
    that are blank or taken."""


@dataclass(frozen=True, slots=True)
class Split:
    """The two sides of a table, and how they compare."""

    train: pd.DataFrame
    holdout: pd.DataFrame
    shares: Mapping[str, Mapping[str, float]]
    """Side → class → share of the side's rows."""
    twins: int
    """Held-out rows that equal some training row in every column."""


def read(path: Path, params: Params) -> Table:
    """
    The rows of the CSV or CSV.gz file at *path*, typed as *params* declares its columns.

    Raises:
        BadData: not readable, not UTF-8, not a table, or a declared column is not in it.
        MissingExtra: pandas is not installed.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "classical") from error

    raw, text = _text(path)
    wanted = _wanted(params)
    header, rows = _rows(path, text)
    for column in (*wanted, *([params.data.id_column] if params.data.id_column else [])):
        if column not in header:
            raise BadData(f"{path}: no column {column!r}{parse.nearest(column, header)}")
    cells = pd.DataFrame(rows, columns=header, dtype=object)
    names, faults = _row_ids(cells, params)
    frame = cells[list(wanted)].set_axis(pd.Index(names, name=params.data.id_column), axis="index")
    missing = {"", *params.data.missing_values}
    for column in wanted:
        blank = frame[column].str.strip().isin(missing)
        if column in params.features.numerical_features:
            numbers = pd.to_numeric(frame[column].str.strip().mask(blank), errors="coerce").astype("float64")
            wrong = ~blank & ~(numbers.abs() <= FLOAT32_MAX)
            if wrong.any():
                faults[column, "number"] = tuple(frame.index[wrong])
            frame[column] = numbers.mask(wrong)
        else:
            frame[column] = frame[column].astype(object).where(~blank, None)
    return Table(frame, ids.digest_bytes(raw), faults)


def is_held_out(row_id: str, share: float, seed: int, *, purpose: str = "holdout") -> bool:
    """
    Whether a row falls on the held-out side: SHA-256 of purpose, seed and id, read as a fraction.

    It depends on nothing else, so rows that are added or removed never move another row.

    >>> [is_held_out(name, 0.5, 42) for name in ("a", "b", "c")]
    [True, False, False]
    """
    raw = hashlib.sha256(f"{purpose}:{seed}:{row_id}".encode()).digest()
    return int.from_bytes(raw[:8]) / 2**64 < share


def held_out(frame: pd.DataFrame, share: float, params: Params, *, purpose: str = "holdout") -> list[bool]:
    """For each row of *frame*, whether it is held out for *purpose*; equal rows go together."""
    named = params.data.id_column is not None
    return [
        is_held_out(
            name if named else name.partition("#")[0], share, params.data.random_state, purpose=purpose
        )
        for name in frame.index
    ]


def split(frame: pd.DataFrame, params: Params) -> Split:
    """
    The training and the held-out side of *frame*, in the order of its rows.

    Raises:
        BadData: a side is empty, a class never occurs in training, or more held-out rows than
            `data.max_twin_share` allows equal a training row, so that scores would flatter.
    """
    settings, target = params.data, params.features.target
    held = held_out(frame, settings.test_size, params)
    holdout = frame[held]
    train = frame[[not side for side in held]]
    if train.empty or holdout.empty:
        raise BadData(
            f"{len(frame)} rows cannot be split with data.test_size {settings.test_size:g}; add rows"
        )
    unseen = sorted(set(holdout[target]) - set(train[target]))
    if unseen:
        raise BadData(f"class {unseen[0]!r} of {target!r} occurs only in the hold-out; add rows of it")
    known = set(_keys(train))
    twins = sum(key in known for key in _keys(holdout))
    if twins > settings.max_twin_share * len(holdout):
        raise BadData(
            f"{twins} of {len(holdout)} held-out rows equal a training row in every column; remove the "
            f"duplicates, or raise data.max_twin_share ({settings.max_twin_share:g}) if they are real"
        )
    shares = {side: _shares(part[target]) for side, part in (("train", train), ("holdout", holdout))}
    return Split(train, holdout, shares, twins)


def plain_rows(frame: pd.DataFrame, params: Params) -> list[dict[str, str | float | int | None]]:
    """The features of each row as a caller of the served model would send them: null is missing."""
    columns = params.features.columns
    cells = zip(*(frame[column].tolist() for column in columns), strict=True)
    return [dict(zip(columns, map(_plain_cell, row), strict=True)) for row in cells]


def write_holdout(frame: pd.DataFrame, params: Params, path: Path) -> str:
    """
    Write rows as JSON Lines for an evaluation and return the digest of the bytes.

    Each line is `{"id": …, "features": {column: text, number or null}, "expected": class}`; equal
    rows give equal bytes.

    Raises:
        BadData: the file cannot be written.
    """
    named = zip(frame.index, plain_rows(frame, params), frame[params.features.target], strict=True)
    lines = [
        json.dumps(
            {"id": row_id, "features": features, "expected": expected},
            ensure_ascii=False,
            separators=(",", ":"),
        )
        for row_id, features, expected in named
    ]
    data = "".join(line + "\n" for line in lines).encode()
    write(path, data)
    return ids.digest_bytes(data)


def write_processed(frame: pd.DataFrame, params: Params, path: Path) -> None:
    """
    Write the checked, typed table as CSV, or CSV.gz by its name; equal rows give equal bytes.

    Raises:
        BadData: the file cannot be written.
    """
    text: str = frame.to_csv(index=params.data.id_column is not None, lineterminator="\n")
    data = text.encode()
    write(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write(path: Path, data: bytes) -> None:
    """
    Put *data* at *path*, whole or not at all; its folder is made.

    Raises:
        BadData: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BadData(f"{path}: cannot be written: {error.strerror}") from error


def _text(path: Path) -> tuple[bytes, str]:
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if path.suffix == ".gz" else raw
        return raw, data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: not UTF-8 at byte {error.start}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadData(f"{path}: not a whole gzip file: {error}") from error
    except OSError as error:
        raise BadData(f"{path}: cannot be read: {error.strerror}; see data.raw_data_path") from error


def _wanted(params: Params) -> tuple[str, ...]:
    return (*params.features.columns, params.features.target)


def _rows(path: Path, text: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows; unlike lenient readers, a row that is too short or too long is an error."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        header = next(reader, [])
        for row in reader:
            if row and len(row) != len(header):
                raise BadData(f"{path}:{reader.line_num}: {len(row)} cells under {len(header)} columns")
            if row:
                rows.append(row)
    except csv.Error as error:
        raise BadData(f"{path}:{reader.line_num}: not CSV: {error}") from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise BadData(f"{path}: column {twice[0]!r} stands twice in the header")
    if not rows:
        raise BadData(f"{path}: no rows below the header")
    return header, rows


def _row_ids(cells: pd.DataFrame, params: Params) -> tuple[list[str], dict[tuple[str, str], tuple[str, ...]]]:
    """A name for every row; blank and repeated ids are made unique and reported as faults."""
    column = params.data.id_column
    if column is None:
        contents = cells[list(_wanted(params))].itertuples(index=False, name=None)
        names = [ids.short(ids.digest(list(row))) for row in contents]
        counts: dict[str, int] = {}
        for position, name in enumerate(names):
            counts[name] = counts.get(name, 0) + 1
            names[position] = name if counts[name] == 1 else f"{name}#{counts[name]}"
        return names, {}
    names = cells[column].str.strip().tolist()
    taken = cells[column].str.strip().duplicated(keep=False).tolist()
    faults: dict[tuple[str, str], tuple[str, ...]] = {}
    blank = [f"row {position}" for position, name in enumerate(names, start=1) if not name]
    repeated = [name for name, again in zip(names, taken, strict=True) if again and name]
    if blank:
        faults[column, "nullable"] = tuple(blank)
    if repeated:
        faults[column, "unique"] = tuple(repeated)
    return [name or f"row {position}" for position, name in enumerate(names, start=1)], faults


def _keys(frame: pd.DataFrame) -> list[str]:
    rows = frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None)
    return [json.dumps(row) for row in rows]


def _shares(classes: pd.Series) -> dict[str, float]:
    counted = classes.value_counts(normalize=True)
    return {str(name): round(float(counted[name]), 6) for name in sorted(counted.index)}


def _plain_cell(value: str | float | None) -> str | float | int | None:
    if not isinstance(value, float):
        return value
    if value != value:  # noqa: PLR0124 - NaN is the only number unequal to itself
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
