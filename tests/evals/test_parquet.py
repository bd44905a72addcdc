from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from evals import parquet
from evals.errors import BadDataset

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def written(folder: Path, table: Any, **options: Any) -> Path:
    path = folder / "rows.parquet"
    pq.write_table(table, path, **options)
    return path


def test_every_kind_of_value_is_json(tmp_path: Path) -> None:
    columns = {
        "id": ["a", "b"],
        "n": pa.array([1, None], pa.int8()),
        "x": [0.5, float("nan")],
        "ok": [True, None],
        "answers": [["one", "two"], []],
        "deep": [{"list": [{"y": float("nan")}]}, None],
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "at": pa.array([1_767_315_600_000_000, None], pa.timestamp("us", "+02:00")),
        "naive": pa.array([datetime(2026, 1, 2), None], pa.timestamp("ms")),  # noqa: DTZ001 - what is tested
        "nanos": pa.array([1_767_323_045_123_456_789, None], pa.timestamp("ns", "UTC")),
        "day": [date(2026, 1, 2), None],
        "took": [timedelta(seconds=1.5), None],
        "price": [Decimal("1.20"), None],
        "raw": [b"\x00\xff", None],
        "kind": pa.array(["x", "y"]).dictionary_encode(),
    }
    rows = list(parquet.rows(written(tmp_path, pa.table(columns))))
    first = {
        "id": "a",
        "n": 1,
        "x": 0.5,
        "ok": True,
        "answers": ["one", "two"],
        "deep": {"list": [{"y": None}]},
        "map": {"k": 1},
        "at": "2026-01-02T01:00:00.000000Z",
        "naive": "2026-01-02T00:00:00.000000Z",
        "nanos": "2026-01-02T03:04:05.123456Z",
        "day": "2026-01-02",
        "took": 1.5,
        "price": "1.20",
        "raw": "AP8=",
        "kind": "x",
    }
    second: dict[str, Any] = {**dict.fromkeys(first), "id": "b", "answers": [], "kind": "y"}
    assert [(1, first), (2, second)] == rows


def test_rows_come_one_after_the_other_across_batches_and_row_groups(tmp_path: Path) -> None:
    path = written(tmp_path, pa.table({"id": list(range(5000))}), row_group_size=700)
    assert [(n + 1, {"id": n}) for n in range(5000)] == list(parquet.rows(path))


def test_rows_are_not_all_decoded_at_once(tmp_path: Path) -> None:
    import tracemalloc

    path = written(tmp_path, pa.table({"text": ["x" * 1000 + str(n) for n in range(20_000)]}))
    tracemalloc.start()
    count = sum(1 for _ in parquet.rows(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 5_000_000


def test_what_is_no_parquet_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    with pytest.raises(BadDataset, match="cannot be read"):
        list(parquet.rows(path))
    path.write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(BadDataset, match=r"rows\.parquet"):
        list(parquet.rows(path))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])
    with pytest.raises(BadDataset, match="'id' is there twice"):
        list(parquet.rows(written(tmp_path, twice)))


def test_times_are_utc_even_at_the_edges(tmp_path: Path) -> None:
    table = pa.table({"at": pa.array([datetime(1970, 1, 1, tzinfo=UTC)], pa.timestamp("s", "UTC"))})
    assert list(parquet.rows(written(tmp_path, table))) == [(1, {"at": "1970-01-01T00:00:00.000000Z"})]
