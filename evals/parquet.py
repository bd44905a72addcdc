"""Rows of Parquet files as JSON values, a batch at a time."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from evals.errors import BadDataset
from registry.clock import to_text
from registry.plugins import missing

_BATCH_ROWS = 1024


def rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """
    Each row with its number, from 1; at most 1,024 rows are decoded at once.

    Lists, structs and maps stay nested. Times are RFC 3339 in UTC (a time without a zone counts as UTC),
    dates and times of day ISO 8601, durations seconds, decimals text, bytes base64, NaN null.

    Raises:
        BadDataset: no such file, not Parquet, or two columns of one name.
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise missing(error, "evals") from error
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise BadDataset(f"dataset {path}: column {twice[0]!r} is there twice; rename one")
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                for row in _in_utc(batch).to_pylist(maps_as_pydicts="strict"):
                    number += 1
                    yield number, {name: _plain(value) for name, value in row.items()}
    except OSError as error:
        raise BadDataset(f"dataset {path}: cannot be read: {error}") from error
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise BadDataset(f"dataset {path}: not a Parquet file that can be read: {error}") from error


def _in_utc(batch: Any) -> Any:  # noqa: ANN401 - a record batch
    """The batch with every column of instants in UTC: the same instants, whatever zone they name."""
    import pyarrow as pa

    columns = [
        column.cast(pa.timestamp(column.type.unit, "UTC"))
        if pa.types.is_timestamp(column.type) and column.type.tz
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _plain(value: Any) -> Any:  # noqa: ANN401 - any Parquet value
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, datetime):
        moment = datetime.fromisoformat(value.isoformat(timespec="microseconds"))
        return to_text(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, Decimal) else _plain(value.item())
