from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals import dataset
from evals.dataset import Sample
from evals.errors import BadDataset
from registry.ids import digest, digest_bytes


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_question_keeps_every_key(tmp_path: Path) -> None:
    row = {"id": "q1", "query": "why?", "relevant": ["d1"], "answers": ["so"], "hard": True}
    found = dataset.read(write(tmp_path, "q.jsonl", json.dumps(row) + "\n\n"), "questions")
    assert found.samples == (Sample("q1", digest(row), "why?", ("d1",), ("so",), None, None, {"hard": True}),)
    assert found.digest == digest_bytes(found.rows)


def test_gzip_and_key_order_do_not_change_the_digest(tmp_path: Path) -> None:
    plain = dataset.read(write(tmp_path, "a.jsonl", '{"id": 1, "query": "x"}\n'), "a")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"query":"x","id":1}'))
    assert dataset.read(tmp_path / "b.jsonl.gz", "b").rows == plain.rows


@given(st.permutations([{"id": str(i), "query": f"q{i}"} for i in range(20)]))
def test_the_order_of_samples_does_not_depend_on_the_file(rows: list[dict[str, Any]]) -> None:
    found = dataset.build(iter(list(enumerate(rows, 1))), "q", where="q")
    ids = [sample.id for sample in found.samples]
    assert ids == sorted(ids, key=lambda id_: digest_bytes(id_.encode()))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{}", "id is missing"),
        ('{"id": true}', "id is missing"),
        ("[1]", "one JSON object"),
        ("{", "not JSON"),
        ('{"id": 1, "query": 2}', "query must be text"),
        ('{"id": 1, "answers": "x"}', "answers must be a list of text"),
        ('{"id": 1, "features": [1]}', "features must be an object"),
        ('{"id": 1, "features": {"a": true}}', "feature 'a' must be text, a number or null"),
        ('{"id": 1, "expected": 0.5}', "expected must be text"),
        ('{"id": 1, "x": NaN}', "canonical JSON"),
        ('{"id": "a"}', "given twice, first in line 1"),
    ],
)
def test_a_bad_row_names_its_line(tmp_path: Path, line: str, problem: str) -> None:
    path = write(tmp_path, "q.jsonl", '{"id": "a"}\n' + line)
    with pytest.raises(BadDataset) as caught:
        dataset.read(path, "q")
    assert caught.value.message.startswith(f"{path}:2: ")
    assert problem in caught.value.message


@pytest.mark.parametrize(
    "name", ["rows.parquet", "missing.jsonl", "empty.jsonl", "broken.jsonl.gz", "latin.csv"]
)
def test_a_file_that_holds_no_samples_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, "empty.jsonl", "\n")
    write(tmp_path, "broken.jsonl.gz", "not gzip")
    (tmp_path / "latin.csv").write_bytes(b"id\n\xe9\n")
    with pytest.raises(BadDataset):
        dataset.read(tmp_path / name, "x")


def test_a_csv_of_features_has_types_and_missing_values(tmp_path: Path) -> None:
    path = write(tmp_path, "c.csv", "id,plan,months,expected\na,basic,3,No\nb, ,,Yes\n")
    found = {sample.id: sample for sample in dataset.read(path, "c").samples}
    assert found["a"].features == {"plan": "basic", "months": 3.0}
    assert found["b"].features == {"plan": None, "months": None}
    assert [found["a"].expected, found["b"].expected] == ["No", "Yes"]
    assert dataset.feature_types(list(found.values())) == {"plan": "text", "months": "number"}


def test_a_csv_of_questions_splits_its_lists(tmp_path: Path) -> None:
    path = write(tmp_path, "q.csv", "id,query,relevant,answers\nq,why?,d1|d2,because | so\n")
    (sample,) = dataset.read(path, "q").samples
    assert (sample.relevant, sample.answers) == (("d1", "d2"), ("because", "so"))


def test_a_csv_row_of_the_wrong_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="row 2 has not 2 columns"):
        dataset.read(write(tmp_path, "q.csv", "id,query\nq,a,b\n"), "q")


def test_a_feature_of_two_types_is_refused(tmp_path: Path) -> None:
    rows = '{"id":1,"features":{"a":1}}\n{"id":2,"features":{"a":"x"}}\n'
    found = dataset.read(write(tmp_path, "q.jsonl", rows), "q")
    with pytest.raises(BadDataset, match="feature 'a'"):
        dataset.feature_types(found.samples)


@pytest.mark.parametrize(("expected", "label"), [(1, "1"), (True, "true"), ("Yes", "Yes")])
def test_labels_are_text(tmp_path: Path, expected: object, label: str) -> None:
    path = write(tmp_path, "q.jsonl", json.dumps({"id": 1, "expected": expected}))
    assert dataset.read(path, "q").samples[0].expected == label
