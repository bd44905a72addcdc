from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engines.log import BoundedLog

SECRET = "sk-engine-0123456789abcdef"


def written(folder: Path) -> bytes:
    files = sorted(folder.iterdir(), reverse=True)
    return b"".join(file.read_bytes() for file in files)


@given(
    words=st.lists(
        st.sampled_from([SECRET, "a line\n", "x" * 9000, " ", "Bearer tok-12345678\n"]), max_size=12
    ),
    cuts=st.lists(st.integers(0, 60_000), max_size=20),
)
def test_no_secret_is_written_whatever_pieces_it_comes_in(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    text = "".join(words).encode()
    log = BoundedLog(folder / "engine.log", 10_000_000, [SECRET, ""])
    edges = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    for start, end in pairwise(edges):
        log.write(text[start:end])
    log.close()
    log.close()
    expected = text.replace(SECRET.encode(), b"***").replace(b"tok-12345678", b"***")
    assert written(folder).rstrip(b"\n") == expected.rstrip(b"\n")


@given(pieces=st.lists(st.binary(max_size=3000), max_size=30))
def test_files_stay_within_their_bound(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = BoundedLog(folder / "engine.log", 4096)
    for piece in pieces:
        log.write(piece)
    log.close()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 4096
    assert {file.name for file in folder.iterdir()} <= {"engine.log", "engine.log.1"}


def test_a_disk_that_takes_no_more_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "logs" / "engine.log", 2048)
    log.write(b"x" * 900 + b"\n")
    (tmp_path / "logs" / "engine.log").unlink()
    (tmp_path / "logs").rmdir()
    log.write(b"y" * 900 + b"\n")
    assert (log.lost_bytes, log.tail()[-3:]) == (901, "yyy")
    log.close()


def test_the_tail_is_of_the_process_that_prints_now(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "engine.log", 4096, [SECRET])
    log.write(b"first\n")
    log.begin()
    log.write(f"second {SECRET}\nunfinished".encode())
    assert log.tail() == "second ***"
    log.close()
    assert (tmp_path / "engine.log").read_text() == "first\nsecond ***\nunfinished\n"
