from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.curate.dedupe import similarity, words
from evals.curate.leakage import Leak, Text, leaks
from evals.curate.pseudonyms import Pseudonyms
from evals.dataset import Sample
from registry.errors import BadInput

LONG = "my new card has not arrived although you sent it to me more than two weeks ago so where is it"
QUERIES = {
    "long": LONG,
    "short": "Where is my card?",
    "tiny": "hello there",
    "free": "an utterly different matter of exchange rates at weekends",
}


def samples(queries: dict[str, str] | None = None) -> list[Sample]:
    return [Sample(name, f"sha256:{name}", text) for name, text in (queries or QUERIES).items()]


def found(*texts: Text, **options: Any) -> list[Leak]:
    return leaks(samples(), texts, **options)


def test_equal_texts_leak_whatever_their_case_and_punctuation() -> None:
    texts: list[Text] = [("a:1", "WHERE is my card"), ("a:2", {"question": LONG.title() + "!", "label": 3})]
    assert found(*texts) == [Leak("long", "exact", 1.0, "a:2", 1), Leak("short", "exact", 1.0, "a:1", 1)]


def test_a_query_inside_an_example_is_contained_but_two_words_are_not() -> None:
    prompt = f"Example 1. Q: Where is my card? A: on its way.\nExample 2. Q: {LONG}. Say hello there."
    assert found(("p", prompt)) == [
        Leak("long", "contained", 1.0, "p", 1),
        Leak("short", "contained", 1.0, "p", 1),
    ]


def test_thirteen_words_in_a_row_leak_and_twelve_do_not() -> None:
    said = words(LONG)
    thirteen = "before it " + " ".join(said[4:17]) + " and after it something else is said here"
    twelve = "before it " + " ".join(said[4:16]) + " and after it something else is said here"
    assert found(("t", thirteen)) == [Leak("long", "ngram", 1 / (len(said) - 12), "t", 1)]
    assert found(("t", twelve)) == []


def test_a_near_duplicate_is_found_by_its_similarity() -> None:
    near = LONG.replace("two", "three").replace("new ", "")
    alike = similarity(LONG, near)
    assert 0.6 < alike < 0.8
    assert found(("t", near), near=alike) == [Leak("long", "near", alike, "t", 1)]
    assert found(("t", near), near=alike + 0.01) == []


def test_the_worst_place_is_named_and_all_are_counted() -> None:
    texts: list[Text] = [("a", f"so {LONG} yes"), ("b", LONG), ("c", "nothing"), ("d", LONG)]
    assert found(*texts) == [Leak("long", "exact", 1.0, "b", 3)]


def test_features_leak_when_all_are_equal_numbers_by_value() -> None:
    rows = [
        Sample(f"r{n}", "sha256:x", features={"plan": "A", "months": float(n), "fee": None}) for n in range(3)
    ]
    training: list[Text] = [
        ("t.csv:2", {"plan": "a ", "months": "1", "fee": "", "churn": "Yes"}),
        ("t.csv:3", {"plan": "A", "months": "2.5", "fee": "", "churn": "No"}),
        ("t.csv:4", {"plan": "A", "months": "2"}),
        ("reg:7", {"id": 7, "features": {"plan": "A", "months": 0, "fee": None}, "expected": "No"}),
    ]
    assert leaks(rows, training) == [
        Leak("r0", "exact", 1.0, "reg:7", 1),
        Leak("r1", "exact", 1.0, "t.csv:2", 1),
    ]


LETTERS = st.sampled_from("abcdefgh")
ASKED = st.lists(LETTERS, min_size=1, max_size=40).map(" ".join)
SAID = st.lists(LETTERS, max_size=60).map(" ".join)


@given(st.lists(ASKED, min_size=1, max_size=6), st.lists(SAID, max_size=6))
def test_what_leaks_is_what_the_definition_says(queries: list[str], texts: list[str]) -> None:
    def grams(said: list[str]) -> set[tuple[str, ...]]:
        return {tuple(said[i : i + 13]) for i in range(len(said) - 12)}

    def leaked(query: str, text: str) -> bool:
        asked, said = words(query), words(text)
        inside = len(asked) >= 4 and any(
            said[i : i + len(asked)] == asked for i in range(len(said) - len(asked) + 1)
        )
        near = bool(said) and similarity(query, text) >= 0.8
        return asked == said or inside or bool(grams(asked) & grams(said)) or near

    named = {f"q{place}": query for place, query in enumerate(queries)}
    expected = [name for name, query in named.items() if any(leaked(query, text) for text in texts)]
    numbered: list[Text] = [(str(place), text) for place, text in enumerate(texts)]
    assert expected == [leak.id for leak in leaks(samples(named), numbered)]


def test_rows_without_anything_to_look_for_are_refused() -> None:
    with pytest.raises(BadInput, match="nothing to look for"):
        leaks([Sample("a", "sha256:a")], [("t", "text")])
    with pytest.raises(BadInput, match=r"0\.5 to 1"):
        found(("t", "x"), near=0.1)


def test_pseudonyms_do_not_hide_a_leak() -> None:
    raw = "Please send the code again to ann@x.org or call +49 30 1234567"
    own = samples(
        {"a": Pseudonyms(bytes(range(32))).text(raw), "b": "Please send the code again to ann@x.org"}
    )
    assert leaks(own, [("t", raw)]) == [Leak("a", "exact", 1.0, "t", 1), Leak("b", "contained", 1.0, "t", 1)]
