from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.documents import Chunk, Document, chunks_from_lines, titled, to_lines

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.builds(Chunk, TEXT, TEXT, TEXT, TEXT)))
def test_chunks_survive_being_written(chunks: list[Chunk]) -> None:
    assert chunks == chunks_from_lines(to_lines(chunks))


def test_lines_are_canonical() -> None:
    assert '{"id":"a","text":"é","title":""}\n'.encode() == to_lines([Document("a", "é")])


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("Super_Bowl_50", " It began. ", "Super Bowl 50: It began."),
        ("", "It began.\n", "It began."),
        ("_", "x", "x"),
    ],
)
def test_what_is_embedded_has_its_title_in_front(title: str, text: str, expected: str) -> None:
    assert expected == titled(title, text) == Chunk("a#0", "a", title, text).embedded_text
