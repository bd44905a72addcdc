from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.documents import Passage
from rag.sentences import best, split

PROSE = st.lists(
    st.sampled_from(
        [
            "Dr.",
            "He left.",
            "e.g.",
            " ",
            "\n",
            "\n\n",
            "# Title\n",
            "- item",
            "？",
            "。",
            "...",
            "J.",
            '"',
            "word",
            "9.",
        ]
    )
    | st.text(max_size=6)
).map("".join)


@given(PROSE)
@settings(deadline=None)
def test_joined_sentences_are_the_text(text: str) -> None:
    assert text == "".join(split(text))


@given(PROSE)
@settings(deadline=None)
def test_no_sentence_of_a_text_is_blank(text: str) -> None:
    assert [sentence for sentence in split(text) if text.strip() and not sentence.strip()] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("One. Two? Three! Four… Five", ["One. ", "Two? ", "Three! ", "Four… ", "Five"]),
        ("Dr. Smith and Mrs. Jones met J. R. Hartley.", ["Dr. Smith and Mrs. Jones met J. R. Hartley."]),
        (
            "Use a mark, e.g. A or the U.S. Dollar. Next.",
            ["Use a mark, e.g. A or the U.S. Dollar. ", "Next."],
        ),
        ("It cost 3.50 dollars. then it rose.", ["It cost 3.50 dollars. then it rose."]),
        ('He said "Go." Then he went.', ['He said "Go." ', "Then he went."]),
        ("In 1990. 42 people came.", ["In 1990. ", "42 people came."]),
        ("今天天气好。明天呢？再见！", ["今天天气好。", "明天呢？", "再见！"]),
        ("first line\nsecond line\n\nnew paragraph", ["first line\nsecond line\n\n", "new paragraph"]),
        ("# Keys\nMake one.\n- first\n- second", ["# Keys\n", "Make one.\n", "- first\n", "- second"]),
        ("\n\n  Late start. End.", ["\n\n  Late start. ", "End."]),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, expected: list[str]) -> None:
    assert expected == split(text)


@pytest.mark.parametrize(
    "text", ["." * 200_000, "\n" * 200_000 + "a", '."' * 100_000, "a. " * 60_000, " " * 200_000]
)
def test_hostile_text_costs_no_more_than_its_length(text: str) -> None:
    started = time.process_time()
    assert text == "".join(split(text))
    assert time.process_time() - started < 5


def sentence(text: str, identity: str = "a#0") -> Passage:
    return Passage(identity, "a", "T", text, 0.5)


def test_the_best_sentences_come_first_with_their_own_score() -> None:
    said = [sentence("low"), sentence("high"), sentence("middle")]
    expected = [Passage("a#0", "a", "T", "high", 0.9), Passage("a#0", "a", "T", "middle", 0.4)]
    assert expected == best(said, [0.1, 0.9, 0.4], 2)


def test_a_sentence_said_twice_counts_once_with_its_higher_score() -> None:
    said = [sentence("same", "a#0"), sentence("other"), sentence("same", "a#1")]
    expected = [Passage("a#1", "a", "T", "same", 0.8), Passage("a#0", "a", "T", "other", 0.5)]
    assert expected == best(said, [0.3, 0.5, 0.8], 5)


def test_among_equal_scores_the_earlier_sentence_wins() -> None:
    assert [s.text for s in best([sentence("first"), sentence("second")], [0.5, 0.5], 2)] == [
        "first",
        "second",
    ]
