from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from rag.documents import Document
from rag.errors import BadCorpus
from rag.load import load


def lines(path: Path, *records: object) -> Path:
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_json_lines_become_documents_sorted_by_id(tmp_path: Path, name: str) -> None:
    path = lines(
        tmp_path / name,
        {"id": "b", "text": "Two."},
        {"id": "a", "text": "One.", "title": "First", "lang": "en"},
    )
    assert [Document("a", "One.", "First"), Document("b", "Two.", "")] == load(path)


def test_text_is_brought_to_one_canonical_form(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "c.jsonl", {"id": "a", "text": "\n cafe\u0301\r\nbar\rbaz \n", "title": "A\u030a"}
    )
    assert [Document("a", "café\nbar\nbaz", "Å")] == load(path)


def test_blank_lines_and_a_byte_order_mark_are_no_documents(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a", "text": "One."}\n\n  \n')
    assert [Document("a", "One.")] == load(path)


def test_a_folder_gives_its_prose_with_relative_ids_and_headings_as_titles(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "notes.txt").write_text("hidden")
    (tmp_path / "deep" / "keys.md").write_text("# Rotating keys\n\nMake a new one.")
    (tmp_path / "plain.txt").write_text("No heading here.")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    expected = [
        Document("deep/keys.md", "# Rotating keys\n\nMake a new one.", "Rotating keys"),
        Document("plain.txt", "No heading here.", "plain"),
    ]
    assert expected == load(tmp_path)
    assert [Document("plain.txt", "No heading here.", "plain")] == load(tmp_path / "plain.txt")


def test_a_repeated_id_names_both_lines(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "c.jsonl", {"id": "a", "text": "x"}, {"id": "b", "text": "y"}, {"id": "a", "text": "z"}
    )
    with pytest.raises(BadCorpus) as caught:
        load(path)
    assert f"{path}:3: id 'a' was already used at {path}:1" == caught.value.message


def test_ids_that_differ_only_in_unicode_form_are_the_same_id(tmp_path: Path) -> None:
    path = lines(tmp_path / "c.jsonl", {"id": "é", "text": "x"}, {"id": "e\u0301", "text": "y"})
    with pytest.raises(BadCorpus, match="already used"):
        load(path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"id": "a", "text": " \\n "}', "text of id 'a' is empty"),
        (b'{"id": "a"}', "text of id 'a' is missing or not text"),
        (b'{"id": "a", "text": "x", "title": 3}', "title of id 'a' is missing or not text"),
        (b'{"text": "x"}', "id is 1 to 512 printable characters"),
        (b'{"id": "", "text": "x"}', "id is 1 to 512 printable characters"),
        (b'{"id": "a\\nb", "text": "x"}', "id is 1 to 512 printable characters"),
        (b'{"id": 7, "text": "x"}', "id is 1 to 512 printable characters"),
        (b'{"id": "a", "text": "\\ud800"}', "half of a surrogate pair"),
        (b'["a"]', "expected a JSON object with id and text, got list"),
        (b'{"id": ', "not a JSON object"),
        (b'{"id": "a", "text": "\xff"}', "not UTF-8 at byte 21"),
        (b"[" * 100_000, "not a JSON object"),
    ],
)
def test_a_bad_line_is_named_with_its_problem(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"id": "first", "text": "fine"}\n' + line + b"\n")
    with pytest.raises(BadCorpus) as caught:
        load(path)
    assert caught.value.message.startswith(f"{path}:2: ")
    assert problem in caught.value.message


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("c.jsonl", b"", "holds no document"),
        ("c.csv", b"id,text", "is not a .jsonl"),
        ("c.jsonl.gz", b"plain", "not a whole gzip file"),
        ("c.jsonl.gz", gzip.compress(b'{"id": "a", "text": "b"}', mtime=0)[:-9], "not a whole gzip file"),
        ("c.txt", b"\xff\xfe", "not UTF-8 at byte 0"),
    ],
)
def test_a_file_that_is_no_corpus_is_refused(tmp_path: Path, name: str, data: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadCorpus, match=problem):
        load(tmp_path / name)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match=r"nowhere.jsonl: cannot be read"):
        load(tmp_path / "nowhere.jsonl")
    with pytest.raises(BadCorpus, match="nowhere does not exist"):
        load(tmp_path / "nowhere")


def test_an_empty_folder_holds_no_document(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match="holds no document"):
        load(tmp_path)
