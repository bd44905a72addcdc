from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rag import sentences
from rag.chunk import chunk, pack
from rag.documents import Chunk, Document
from registry.entities import Chunker

WORDS = st.sampled_from(
    ["He left.", "Word", "x" * 70, "a, b; c", "\n\n", " ", "    ", "？", "Dr. No.", "# T\n"]
)
TEXTS = st.lists(WORDS | st.text(max_size=20), min_size=1, max_size=60).map(" ".join)
SIZES = st.integers(50, 300)


@given(TEXTS, SIZES)
@settings(deadline=None)
def test_joined_chunks_without_overlap_are_the_text(text: str, size: int) -> None:
    assert text == "".join(pack(text, Chunker(max_chars=size)))


@given(TEXTS, SIZES, st.integers(0, 5))
@settings(deadline=None)
def test_no_chunk_is_blank_or_longer_than_allowed(text: str, size: int, overlap: int) -> None:
    chunks = pack(text, Chunker(max_chars=size, overlap_sentences=overlap))
    assert [part for part in chunks if text.strip() and not 0 < len(part.strip()) <= size] == []


@given(TEXTS, SIZES, st.integers(0, 5))
@settings(deadline=None)
def test_every_chunk_brings_something_new_in_order(text: str, size: int, overlap: int) -> None:
    end = 0
    for part in pack(text, Chunker(max_chars=size, overlap_sentences=overlap)):
        begin = max(start for start in range(end + 1) if text.startswith(part, start))
        assert begin + len(part) > end
        end = begin + len(part)
    assert len(text) == end


@given(TEXTS, SIZES)
@settings(deadline=None)
def test_a_sentence_that_fits_is_never_cut(text: str, size: int) -> None:
    ends, position = set(), 0
    for part in pack(text, Chunker(max_chars=size)):
        position += len(part)
        ends.add(position)
    position = 0
    for sentence in sentences.split(text):
        inside = {end for end in ends if position < end < position + len(sentence)}
        assert not inside or len(sentence.strip()) > size
        position += len(sentence)


def test_sentences_are_packed_as_long_as_they_fit() -> None:
    text = "One is twenty long. Two is twenty long. Three is a little longer than twenty. Four."
    expected = ["One is twenty long. Two is twenty long. ", "Three is a little longer than twenty. Four."]
    assert expected == pack(text, Chunker(max_chars=50))


def test_overlap_repeats_the_last_sentences() -> None:
    text = "Alpha is first here. Beta is second. Gamma is third. Delta is the fourth."
    expected = [
        "Alpha is first here. Beta is second. ",
        "Beta is second. Gamma is third. ",
        "Gamma is third. Delta is the fourth.",
    ]
    assert expected == pack(text, Chunker(max_chars=50, overlap_sentences=1))


def test_a_long_sentence_is_cut_at_spaces_and_a_long_word_anywhere() -> None:
    text = "word " * 11 + "x" * 120
    expected = ["word " * 10, "word ", "x" * 50, "x" * 50, "x" * 20]
    assert expected == pack(text, Chunker(max_chars=50))


def test_chunks_are_numbered_within_their_document() -> None:
    documents = [Document("a", "One. " * 12, "T"), Document("b", "Two.")]
    expected = [
        Chunk("a#0", "a", "T", "One. " * 10),
        Chunk("a#1", "a", "T", "One. " * 2),
        Chunk("b#0", "b", "", "Two."),
    ]
    assert expected == chunk(documents, Chunker(max_chars=50))
