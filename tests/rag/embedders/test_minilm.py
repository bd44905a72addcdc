from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rag.embedders.minilm import MiniLM, load
from rag.errors import WeightsUnavailable

# Meaning shared without a word shared; the third text of each row is the stranger.
ORDERED = [
    ("How old is she?", "What is her age?", "Where does she live?"),
    ("The cat sat on the mat.", "A feline rested on a rug.", "Interest rates rose again."),
    ("I forgot my password.", "Cannot log in to my account.", "The train departs at noon."),
    ("He purchased a new automobile.", "He bought a car.", "He cooked pasta for dinner."),
    ("The film was terrible.", "I disliked the movie.", "The soup contains carrots."),
]


@pytest.fixture(scope="session")
def minilm(models: Path) -> MiniLM:
    embedder = load(models)
    embedder.embed(["convert now"])
    return embedder


@pytest.mark.parametrize(("text", "near", "far"), ORDERED)
def test_near_meanings_are_closer_than_far_ones(minilm: MiniLM, text: str, near: str, far: str) -> None:
    vectors = minilm.embed([text, near, far])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.25


def test_text_beyond_256_tokens_is_cut(minilm: MiniLM) -> None:
    kept, longer, shorter = minilm.embed(["word " * 254, "word " * 254 + "volcano " * 50, "word " * 253])
    assert np.array_equal(kept, longer)
    assert not np.array_equal(kept, shorter)


def test_a_second_opening_converts_nothing(minilm: MiniLM, models: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*") if path.name != ".lock"}
    assert np.array_equal(minilm.embed(["again"]), load(models).embed(["again"]))
    assert before == {path: path.stat().st_mtime_ns for path in models.rglob("*") if path.name != ".lock"}


@pytest.mark.usefixtures("minilm")
@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "sha256.json"])
def test_changed_weights_are_refused(models: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(models, tmp_path / "models")
    changed = next((tmp_path / "models").glob(f"minilm-*/{name}"))
    changed.write_bytes(changed.read_bytes()[:-1])
    with pytest.raises(WeightsUnavailable, match=r"delete the folder and try again"):
        load(tmp_path / "models").embed(["text"])


def test_two_processes_may_convert_at_once(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from rag.embedders.minilm import load\n"
        "print(float(load(pathlib.Path(sys.argv[1])).embed(['same text'])[0, 0]))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert printed[0] == printed[1] != ""
    assert sorted(path.name[:7] for path in tmp_path.iterdir()) == [".lock", "minilm-"]
