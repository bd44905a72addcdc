from __future__ import annotations

import numpy as np

from rag.embedders.hashing import HashingEmbedder
from registry.ids import digest_bytes

AXES = [
    (128, 0.2234), (264, 0.4881), (279, -0.3417), (338, -0.2883), (395, 0.2883),
    (441, -0.2234), (634, 0.2018), (706, -0.4149), (958, -0.2883), (1007, 0.2883),
]  # fmt: skip


def test_vectors_are_the_same_on_every_machine(hashing: HashingEmbedder) -> None:
    vector = hashing.embed(["Rotate the key, then rotate the lock."])[0]
    axes = [(int(axis), round(float(vector[axis]), 4)) for axis in np.flatnonzero(vector)]
    assert axes == AXES


def test_the_digest_does_not_move(hashing: HashingEmbedder) -> None:
    assert digest_bytes(b'{"algorithm":"hashing-1","dimension":1024,"ngrams":[1,2]}') == hashing.digest


def test_letter_case_and_marks_do_not_matter(hashing: HashingEmbedder) -> None:
    upper, lower = hashing.embed(["ROTATE, the Key!", "rotate the key"])
    assert np.array_equal(upper, lower)


def test_word_order_matters_a_little(hashing: HashingEmbedder) -> None:
    asked, same, turned = hashing.embed(["dog bites man", "a dog bites man", "man bites dog"])
    assert asked @ same > asked @ turned > 0.3
