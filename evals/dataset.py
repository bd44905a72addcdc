"""Samples from JSON Lines, CSV, Parquet or the registry: checked, normalised, in an order nobody chose."""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import math
import mmap
import tempfile
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq
from pathlib import Path
from typing import Any, BinaryIO, cast, overload

import msgspec

from evals.errors import BadDataset
from registry.entities import Version
from registry.errors import BadInput
from registry.ids import canonical, digest_bytes

MAX_BYTES = 512_000_000
"""Most bytes of a dataset, after decompression."""
Bytes = bytes | mmap.mmap
_IN_MEMORY = 8_000_000
"""Datasets with more bytes lie in a temporary file."""
_FIELDS = ("id", "query", "relevant", "answers", "features", "expected")


@dataclass(frozen=True, slots=True)
class Sample:
    """One question or row with what is known about its right answer."""

    id: str
    digest: str
    """Over the whole row: the sample's identity in the cache of outputs."""
    query: str = ""
    relevant: tuple[str, ...] = ()
    """Ids of the documents that answer the query."""
    answers: tuple[str, ...] = ()
    """Accepted answers; any one of them is right."""
    features: Mapping[str, str | float | None] | None = None
    expected: str | None = None
    """The true label."""
    extra: Mapping[str, Any] | None = None
    """Every other key of the row, as it was."""

    def get(self, field: str) -> Any:  # noqa: ANN401
        """What the row says for *field*, an attribute or any other key of the row; None for nothing."""
        if field in _FIELDS:
            return getattr(self, field)
        return (self.extra or {}).get(field)

    def has(self, field: str) -> bool:
        """Whether the row says anything for *field*: empty text and empty lists say nothing."""
        return self.get(field) not in ("", (), [], None)


class Samples(Sequence[Sample]):
    """
    The samples of a dataset in an order nobody chose: sorted by the hash of their ids.

    Only the rows' bytes are kept; a Sample is made when it is asked for.
    """

    __slots__ = ("_places", "_rows")

    def __init__(self, rows: Bytes, places: array[int]) -> None:
        """*places* holds the start and end of each row in *rows*, one after the other."""
        self._rows = rows
        self._places = places

    def __len__(self) -> int:
        """How many there are."""
        return len(self._places) // 2

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> Samples: ...
    def __getitem__(self, at: int | slice) -> Sample | Samples:
        """The sample at a position, or those of a slice."""
        if isinstance(at, slice):
            places = array("Q")
            for place in range(*at.indices(len(self))):
                places.extend(self._places[2 * place : 2 * place + 2])
            return Samples(self._rows, places)
        place = at + len(self) if at < 0 else at
        if not 0 <= place < len(self):
            raise IndexError(at)
        line = self._rows[self._places[2 * place] : self._places[2 * place + 1]]
        return _sample(msgspec.json.decode(line), digest_bytes(line), "")

    def with_key(self, key: str) -> list[int]:
        """Where samples may have *key*: all others surely have not. Nothing is decoded."""
        mark, rows = f'"{key}"'.encode(), self._rows
        ends = iter(self._places)
        found = zip(ends, ends, strict=True)
        return [at for at, (start, end) in enumerate(found) if rows.find(mark, start, end) >= 0]

    def __eq__(self, other: object) -> bool:
        """Whether *other* has equal samples in the same order."""
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named set of samples and the bytes that decide its digest."""

    name: str
    content: Bytes
    """JSON Lines, each row canonical, in the order of the file; on disk where they are many."""
    samples: Sequence[Sample]
    """Ordered by the hash of their ids, so that the first n are a fixed, arbitrary choice."""
    digest: str
    """The digest of the rows: the name of their blob."""
    source: str = ""
    licence: str = ""
    version: Version | None = None
    """The version in the registry that it came from."""

    @property
    def rows(self) -> bytes:
        """The content in memory, all of it."""
        return self.content[:]


def read(path: Path, name: str, *, source: str = "", licence: str = "") -> Dataset:
    """
    The dataset in a `.jsonl`, `.csv`, `.parquet` or gzipped file.

    A CSV with a column `expected` holds features in its other columns (blank is missing; a column
    of numbers is numeric); otherwise `relevant` and `answers` are lists separated by `|`.

    Raises:
        BadDataset: no such file, an unknown ending, or a row that is no sample; names the line.
    """
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if path.name.lower().endswith(".parquet"):
        from evals import parquet

        return build(parquet.rows(path), name, where=str(path), source=source, licence=licence)
    if kind not in ("jsonl", "csv"):
        raise BadDataset(f"dataset {path}: must end in .jsonl, .csv, .jsonl.gz, .csv.gz or .parquet")
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
            lines = _lines(cast("BinaryIO", file), path)
            rows = _csv_rows("".join(lines), str(path)) if kind == "csv" else _json_rows(lines, str(path))
            return build(rows, name, where=str(path), source=source, licence=licence)
    except (OSError, EOFError, zlib.error) as error:
        raise BadDataset(f"dataset {path}: cannot be read: {error}") from error


def from_version(version: Version, rows: bytes, *, source: str = "", licence: str = "") -> Dataset:
    """The dataset behind a registered version. Raises BadDataset naming the line."""
    where = f"dataset {version.name}:{version.number}"
    numbered = _json_rows(iter(rows.decode().split("\n")), where)
    found = build(numbered, version.name, where=where, source=source, licence=licence)
    return replace(found, version=version)


def build(
    rows: Iterator[tuple[int, Mapping[str, Any]]],
    name: str,
    *,
    where: str,
    source: str = "",
    licence: str = "",
) -> Dataset:
    """
    The dataset of numbered rows.

    Raises:
        BadDataset: a malformed row, an id missing or given twice, or no rows at all.
    """
    seen: dict[bytes, tuple[int, int, int]] = {}
    state = hashlib.sha256()
    size = 0
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        for number, row in rows:
            at = f"{where}:{number}"
            try:
                line = canonical(row)
            except BadInput as error:
                raise BadDataset(f"{at}: {error.message}") from error
            sample = _sample(row, "", at)
            order = hashlib.sha256(sample.id.encode()).digest()
            if order in seen:
                first = seen[order][0]
                raise BadDataset(f"{at}: id {sample.id!r} is given twice, first in line {first}")
            seen[order] = (number, size, size + len(line))
            file.write(line + b"\n")
            state.update(line + b"\n")
            size += len(line) + 1
        if not seen:
            raise BadDataset(f"{where}: no samples")
        content: Bytes
        if size <= _IN_MEMORY:
            file.seek(0)
            content = file.read()
        else:
            file.flush()
            content = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    places = array("Q")
    for order in sorted(seen):
        places.extend(seen[order][1:])
    digest = "sha256:" + state.hexdigest()
    return Dataset(name, content, Samples(content, places), digest, source, licence)


def feature_types(samples: Sequence[Sample]) -> dict[str, str]:
    """
    `text` or `number` for every feature, by its values; a feature without values is text.

    Raises:
        BadDataset: a feature holds numbers in one sample and text in another.
    """
    types: dict[str, str] = {}
    empty: set[str] = set()
    for sample in samples:
        for name, value in (sample.features or {}).items():
            if value is None:
                empty.add(name)
                continue
            kind = "text" if isinstance(value, str) else "number"
            if types.setdefault(name, kind) != kind:
                raise BadDataset(f"sample {sample.id!r}: feature {name!r} is {kind}, elsewhere {types[name]}")
    return {**dict.fromkeys(empty, "text"), **types}


def _sample(row: Mapping[str, Any], digest: str, at: str) -> Sample:
    identity = row.get("id")
    if not isinstance(identity, str | int) or isinstance(identity, bool) or identity == "":
        raise BadDataset(f"{at}: id is missing; give each sample a unique id")
    query = row.get("query", "")
    if not isinstance(query, str):
        raise BadDataset(f"{at}: query must be text")
    return Sample(
        id=str(identity),
        digest=digest,
        query=query,
        relevant=_texts(row, "relevant", at),
        answers=_texts(row, "answers", at),
        features=_features(row.get("features"), at),
        expected=_label(row.get("expected"), at),
        extra={key: value for key, value in row.items() if key not in _FIELDS},
    )


def _texts(row: Mapping[str, Any], field: str, at: str) -> tuple[str, ...]:
    value = row.get(field, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadDataset(f"{at}: {field} must be a list of text")
    return tuple(value)


def _features(value: object, at: str) -> dict[str, str | float | None] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadDataset(f"{at}: features must be an object")
    for name, item in value.items():
        if isinstance(item, bool) or not isinstance(item, str | int | float | None):
            raise BadDataset(f"{at}: feature {name!r} must be text, a number or null")
    return value


def _label(value: object, at: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    raise BadDataset(f"{at}: expected must be text, a whole number, true or false")


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    """The lines of UTF-8 text, with or without a byte order mark. Raises BadDataset."""
    size = 0
    for line in file:
        text = line.removeprefix(codecs.BOM_UTF8) if size == 0 else line
        size += len(line)
        if size > MAX_BYTES:
            raise BadDataset(f"dataset {path}: larger than {MAX_BYTES:,} bytes")
        try:
            yield text.decode()
        except UnicodeDecodeError as error:
            raise BadDataset(f"dataset {path}: not UTF-8 at byte {size - len(text) + error.start}") from error


def _json_rows(lines: Iterator[str], where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadDataset(f"{where}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise BadDataset(f"{where}:{number}: a sample is one JSON object")
        yield number, row


def _csv_rows(text: str, where: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise BadDataset(f"{where}:{reader.line_num}: not CSV: {error}") from error
    heading = reader.fieldnames or []
    if len(set(heading)) != len(heading):
        raise BadDataset(f"{where}:1: a column is named twice")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise BadDataset(f"{where}: row {number} has not {len(heading)} columns")
    if "expected" not in heading:
        for number, row in enumerate(rows, 2):
            yield number, {key: _cell(key, value) for key, value in row.items()}
        return
    features = [name for name in heading if name not in ("id", "expected")]
    numeric = {name for name in features if _is_numeric([row[name] for row in rows])}
    for number, row in enumerate(rows, 2):
        values = {name: _value(row[name], numeric=name in numeric) for name in features}
        yield number, {"id": row.get("id"), "features": values, "expected": row["expected"] or None}


def _cell(key: str, value: str) -> str | list[str]:
    if key in ("relevant", "answers"):
        return [item.strip() for item in value.split("|") if item.strip()]
    return value


def _is_numeric(cells: Sequence[str]) -> bool:
    try:
        return all(math.isfinite(float(cell)) for cell in cells if cell.strip()) and any(
            map(str.strip, cells)
        )
    except ValueError:
        return False


def _value(cell: str, *, numeric: bool) -> str | float | None:
    if not cell.strip():
        return None
    return float(cell) if numeric else cell
