from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rag.errors import IndexBroken
from rag.stores.memory import MemoryStore


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    MemoryStore.write(tmp_path, ["a", "b"], np.eye(2, dtype=np.float32))
    (tmp_path / "ids.json").write_text('["a"]')
    with pytest.raises(IndexBroken, match="names 1 of 2 vectors"):
        MemoryStore.open(tmp_path)


@pytest.mark.parametrize("name", ["ids.json", "vectors.npy"])
def test_a_cut_file_is_refused(tmp_path: Path, name: str) -> None:
    MemoryStore.write(tmp_path, ["a", "b"], np.eye(2, dtype=np.float32))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-3])
    with pytest.raises(IndexBroken, match="cannot be read"):
        MemoryStore.open(tmp_path)
