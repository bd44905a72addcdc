from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classical import data
from classical.errors import BadData
from classical.params import DataParams, FeatureParams
from registry.ids import digest_bytes
from tests.classical.conftest import HEADER, people, rows, write_table


def test_cells_are_typed_and_blanks_are_missing(tmp_path: Path) -> None:
    lines = ["a, ,full plan,20, ,yes", "b,?,basic,21.5,1e3,no", 'c,"re,d\n",basic, 22,-0,no']
    path = write_table(tmp_path, lines)
    settings = replace(people(), data=DataParams(path, id_column="id", missing_values=("?",)))
    table = data.read(path, settings)
    frame = table.frame.astype(object).where(table.frame.notna(), None)
    assert frame.to_dict("index") == {
        "a": {"colour": None, "plan": "full plan", "age": 20.0, "income": None, "left": "yes"},
        "b": {"colour": None, "plan": "basic", "age": 21.5, "income": 1000.0, "left": "no"},
        "c": {"colour": "re,d\n", "plan": "basic", "age": 22.0, "income": 0.0, "left": "no"},
    }
    assert table.faults == {}
    assert table.digest == digest_bytes(path.read_bytes())


def test_a_compressed_table_is_the_same_table_with_its_own_digest(tmp_path: Path) -> None:
    plain = write_table(tmp_path)
    packed = tmp_path / "people.csv.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes(), mtime=0))
    one, two = data.read(plain, people()), data.read(packed, people())
    assert one.frame.equals(two.frame)
    assert one.digest != two.digest == digest_bytes(packed.read_bytes())


def test_cells_that_are_no_numbers_and_bad_ids_are_reported_by_row(tmp_path: Path) -> None:
    lines = ["a,red,basic,old,1,no", "a,red,basic,inf,1e39,no", ",red,basic,nan,2,yes", "d,red,basic,1,2,yes"]
    table = data.read(write_table(tmp_path, lines), people())
    assert table.faults == {
        ("id", "nullable"): ("row 3",),
        ("id", "unique"): ("a", "a"),
        ("age", "number"): ("a", "a", "row 3"),
        ("income", "number"): ("a",),
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no rows below the header"),
        (HEADER.encode(), "no rows below the header"),
        (HEADER.encode() + b"\na,red,basic,1,2\n", r"people\.csv:2: 5 cells under 6 columns"),
        (HEADER.encode() + b"\na,red,basic,1,2,no,x\n", r"people\.csv:2: 7 cells under 6 columns"),
        (HEADER.encode() + b'\na,"red,basic,1,2,no\n', r"not CSV: unexpected end of data"),
        (b"id,colour,plan,age,age,left\n1,2,3,4,5,6\n", "column 'age' stands twice"),
        (b"id,color,plan,age,income,left\n1,2,3,4,5,6\n", "no column 'colour'; did you mean 'color'?"),
        (b"key,colour,plan,age,income,left\n1,2,3,4,5,6\n", "no column 'id'"),
        (HEADER.encode() + b"\na,r\xe9d,basic,1,2,no\n", "not UTF-8 at byte"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(content)
    with pytest.raises(BadData, match=told):
        data.read(path, people())


def test_a_broken_archive_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.csv.gz"
    path.write_bytes(gzip.compress(b"x" * 1000)[:-9])
    with pytest.raises(BadData, match="not a whole gzip file"):
        data.read(path, people())
    with pytest.raises(BadData, match=r"cannot be read: No such file.*data\.raw_data_path"):
        data.read(tmp_path / "none.csv", people())


@given(st.lists(st.text(max_size=5), unique=True, max_size=30), st.floats(0.01, 0.9), st.integers(0, 99))
def test_a_side_depends_on_the_row_alone_and_grows_with_the_share(
    names: list[str], share: float, seed: int
) -> None:
    held = {name for name in names if data.is_held_out(name, share, seed)}
    more = {name for name in names if data.is_held_out(name, share + 0.1, seed)}
    assert held <= more
    assert not any(data.is_held_out(name, 0, seed) for name in names)
    assert all(data.is_held_out(name, 1, seed) for name in names)


def test_the_share_held_out_is_near_what_was_asked() -> None:
    held = sum(data.is_held_out(f"customer {number}", 0.2, 42) for number in range(10_000))
    assert abs(held - 2000) < 160  # four standard deviations


def test_adding_rows_moves_no_other_row(tmp_path: Path) -> None:
    lines = rows(240)
    before = data.split(data.read(write_table(tmp_path, lines[:120]), people()).frame, people())
    after = data.split(data.read(write_table(tmp_path, lines[::-1]), people()).frame, people())
    assert set(before.train.index) <= set(after.train.index)
    assert set(before.holdout.index) <= set(after.holdout.index)
    assert not set(after.train.index) & set(after.holdout.index)
    assert len(after.train) + len(after.holdout) == 240
    for side, frame in (("train", after.train), ("holdout", after.holdout)):
        share = (frame["left"] == "yes").mean()
        assert after.shares[side] == {"no": round(1 - share, 6), "yes": round(share, 6)}


def test_without_an_id_column_equal_rows_stay_on_one_side(tmp_path: Path) -> None:
    settings = replace(people(), data=DataParams(Path("people.csv"), test_size=0.25))
    lines = [line for line in rows(60) for _ in range(3)]
    path = write_table(tmp_path, [line.partition(",")[2] for line in lines], HEADER.partition(",")[2])
    table = data.read(path, settings)
    parts = data.split(table.frame, settings)
    assert table.frame.index.is_unique
    assert parts.twins == 0
    sides = [{name.partition("#")[0] for name in part.index} for part in (parts.train, parts.holdout)]
    assert not sides[0] & sides[1]


def test_too_many_twins_across_the_sides_are_refused(tmp_path: Path) -> None:
    lines = [f"n{number},red,basic,20,1,{'yes' if number % 2 else 'no'}" for number in range(60)]
    frame = data.read(write_table(tmp_path, lines), people()).frame
    with pytest.raises(BadData, match=r"held-out rows equal a training row in every column"):
        data.split(frame, people())
    lenient = replace(people(), data=replace(people().data, max_twin_share=1.0))
    assert data.split(frame, lenient).twins == len(data.split(frame, lenient).holdout)


def test_a_side_without_rows_or_an_unseen_class_is_refused(tmp_path: Path) -> None:
    lines = rows(240)
    frame = data.read(write_table(tmp_path, lines), people()).frame
    with pytest.raises(BadData, match="1 rows cannot be split"):
        data.split(frame.iloc[:1], people())
    held = data.split(frame, people()).holdout.index[0]
    frame.loc[held, "left"] = "maybe"
    with pytest.raises(BadData, match="class 'maybe' of 'left' occurs only in the hold-out"):
        data.split(frame, people())


def test_the_hold_out_is_written_as_the_same_lines_every_time(tmp_path: Path) -> None:
    lines = ["é,,basic,20,0.1,yes", "b,red,full plan,30.5,,no"]
    frame = data.read(write_table(tmp_path, lines), people()).frame
    path = tmp_path / "new" / "holdout.jsonl"
    digest = data.write_holdout(frame, people(), path)
    assert path.read_text() == (
        '{"id":"é","features":{"colour":null,"plan":"basic","age":20,"income":0.1},"expected":"yes"}\n'
        '{"id":"b","features":{"colour":"red","plan":"full plan","age":30.5,"income":null},"expected":"no"}\n'
    )
    assert digest == digest_bytes(path.read_bytes()) == data.write_holdout(frame, people(), path)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["é", "b"]
    assert list(path.parent.iterdir()) == [path]


def test_the_processed_table_reads_back_as_the_same_rows(tmp_path: Path) -> None:
    frame = data.read(write_table(tmp_path), people()).frame
    for name in ("clean.csv", "clean.csv.gz"):
        path = tmp_path / name
        data.write_processed(frame, people(), path)
        first = path.read_bytes()
        assert data.read(path, people()).frame.equals(frame)
        data.write_processed(frame, people(), path)
        assert path.read_bytes() == first


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadData, match="cannot be written"):
        data.write(tmp_path / "file" / "below.json", b"")


def test_columns_may_be_called_anything(tmp_path: Path) -> None:
    header, line = "index,label,x y,é/ü", "1,a,2,b"
    path = write_table(tmp_path, [line], header)
    settings = replace(
        people(),
        data=DataParams(path, id_column="index"),
        features=FeatureParams("é/ü", ("label",), ("x y",)),
        quality={},
    )
    assert data.read(path, settings).frame.to_dict("index") == {"1": {"label": "a", "x y": 2.0, "é/ü": "b"}}
