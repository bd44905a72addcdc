from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from evals.cache import FILE, base_key, code_digest, key_of_epoch, open_cache, sample_key
from evals.errors import CacheUnavailable
from evals.systems.base import Output

OUTPUT = Output(12.5, "text", ("d1", "d2"), "Yes", (0.25, 0.75), 3, 4)


def test_an_output_comes_back_whole_after_reopening(tmp_path: Path) -> None:
    with open_cache(tmp_path / "cache") as cache:
        cache.put({"k": OUTPUT})
    with open_cache(tmp_path / "cache") as cache:
        assert (cache.get("k"), cache.get("other")) == (OUTPUT, None)


def test_every_part_of_the_key_counts() -> None:
    parts = ("r", "chat", "c", "s", {"query": "x"}, 0)
    others = [
        ("R", *parts[1:]),
        ("r", "retrieval", *parts[2:]),
        ("r", "chat", "C", *parts[3:]),
        ("r", "chat", "c", "S", *parts[4:]),
        (*parts[:4], {"query": "y"}, 0),
        (*parts[:5], 1),
    ]
    keys = {
        key_of_epoch(sample_key(base_key(identity, system, code), sample, request), epoch)
        for identity, system, code, sample, request, epoch in [parts, *others]
    }
    assert len(keys) == 7


def test_another_plug_ins_code_counts(tmp_path: Path) -> None:
    plug_in = tmp_path / "mine.py"
    plug_in.write_text("a = 1")
    before = code_digest(plug_in)
    plug_in.write_text("a = 2")
    assert len({code_digest(), before, code_digest(plug_in)}) == 3


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like a file" * 20])
def test_a_damaged_cache_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(CacheUnavailable, match="--no-cache"), open_cache(tmp_path):
        pass


def test_an_output_nobody_can_read_is_asked_for_again(tmp_path: Path) -> None:
    with open_cache(tmp_path) as cache:
        cache.put({"k": OUTPUT})
        connection = sqlite3.connect(tmp_path / FILE)
        with connection:
            connection.execute("UPDATE outputs SET output = 'rubbish'")
        connection.close()
        assert cache.get("k") is None


def fill(folder: Path, start: int) -> None:
    with open_cache(folder) as cache:
        for i in range(start, start + 50):
            cache.put({str(i): Output(float(i))})


def test_processes_may_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(tmp_path, start)) for start in (0, 50)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    with open_cache(tmp_path) as cache:
        assert [cache.get(str(i)) for i in range(100)] == [Output(float(i)) for i in range(100)]
