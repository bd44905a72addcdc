from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.curate.dedupe import Index, Rarity, Shingles, jaccard, near_duplicates, similarity, words
from registry.errors import BadInput

WORDS = st.sampled_from(["how", "do", "I", "reset", "my", "password", "card", "now", "please", "the"])
TEXTS = st.lists(st.lists(WORDS, max_size=12).map(" ".join), max_size=20)
THRESHOLDS = st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


def by_every_pair(texts: list[str], threshold: float) -> list[int | None]:
    """What `near_duplicates` promises, by comparing all."""
    shingles = Shingles()
    sets = [shingles.of(text) for text in texts]
    kept: list[int] = []
    answer: list[int | None] = []
    for place, own in enumerate(sets):
        same = [k for k in kept if bool(sets[k]) == bool(own) and jaccard(own, sets[k]) >= threshold]
        answer.append(same[0] if same else None)
        if not same:
            kept.append(place)
    return answer


@given(TEXTS, THRESHOLDS)
def test_the_index_finds_exactly_what_comparing_every_pair_finds(texts: list[str], threshold: float) -> None:
    assert by_every_pair(texts, threshold) == near_duplicates(texts, threshold)


@given(st.text(max_size=60), st.text(max_size=60))
def test_similarity_is_symmetric_and_one_for_the_same_text(a: str, b: str) -> None:
    assert similarity(a, b) == similarity(b, a)
    assert 0 <= similarity(a, b) <= 1
    assert similarity(a, a) == 1.0


@given(st.lists(WORDS, min_size=3, max_size=30), st.sampled_from([" ", "  ", ", ", "\n", " - "]))
def test_case_punctuation_and_space_do_not_count(said: list[str], space: str) -> None:
    assert similarity(" ".join(said), space.join(said).upper() + "?!") == 1.0


@settings(max_examples=20)
@given(TEXTS, THRESHOLDS)
def test_removing_duplicates_twice_changes_nothing(texts: list[str], threshold: float) -> None:
    once = [t for t, repeat in zip(texts, near_duplicates(texts, threshold), strict=True) if repeat is None]
    assert [None] * len(once) == near_duplicates(once, threshold)


def test_one_changed_word_in_twenty_is_near_and_a_rewrite_is_not() -> None:
    text = " ".join(f"word{n}" for n in range(20))
    changed = text.replace("word7", "other")
    assert similarity(text, changed) == pytest.approx((19 + 17) / (20 + 19 + 3))
    assert near_duplicates([text, changed], 0.85) == [None, 0]
    assert near_duplicates([text, changed], 0.9) == [None, None]
    assert near_duplicates(["Where is my card?", "Can I get a refund?"], 0.5) == [None, None]


def test_texts_without_words_repeat_each_other_only_when_equal() -> None:
    assert near_duplicates(["", "???", "  ", "!!!", "???"], 0.5) == [None, None, 0, None, 1]


def test_chinese_is_compared_by_characters() -> None:
    assert words("我的卡在哪里?") == list("我的卡在哪里")
    assert near_duplicates(["我的卡在哪里?", "我的卡在哪里", "如何取消订单"], 0.9) == [None, 0, None]


def test_full_width_and_composed_letters_are_the_same_words() -> None:
    assert words("ＲＥＳＥＴ cafe\u0301 STRASSE") == ["reset", "café", "strasse"]


def test_the_earliest_of_a_group_is_kept_and_named() -> None:
    texts = ["a b c d", "x y z", "A B C D", "x, y, z", "a b c d!"]
    assert near_duplicates(texts) == [None, None, 0, 1, 0]


@pytest.mark.parametrize("threshold", [0.0, 0.49, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(BadInput, match=r"0\.5 to 1"):
        near_duplicates(["a"], threshold)


def test_the_search_is_far_from_comparing_every_pair() -> None:
    drawn = random.Random(5)
    vocabulary = [f"w{n}" for n in range(3000)]
    texts = ["please tell me how to " + " ".join(drawn.choices(vocabulary, k=20)) for _ in range(3000)]
    shingles, rarity = Shingles(), Rarity()
    sets = [shingles.of(text) for text in texts]
    for one in sets:
        rarity.count(one)
    index = Index(0.9, rarity)
    for number, one in enumerate(sets):
        index.add(number, one)
    most = max(len(places) for places in index._holders.values())
    assert most < 60, "a stock phrase may not make everybody a candidate"
    assert index.matches(sets[7]) == [(7, 1.0)]
