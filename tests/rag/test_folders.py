from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rag.folders import made_aside


def shown(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock")


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "final"
    with made_aside(final, tmp_path) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "file").write_text("done")
        assert not final.exists()
    assert shown(tmp_path) == ["deep", "deep/final", "deep/final/inner", "deep/final/inner/file"]


def test_nothing_remains_when_the_work_fails(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        with made_aside(folder / "final", folder) as aside:
            (aside / "file").write_text("half")
            (aside / "file").mkdir()

    with pytest.raises(FileExistsError):
        fail(tmp_path)
    assert shown(tmp_path) == []


def test_the_first_to_finish_wins(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with made_aside(final, tmp_path) as slow:
        (slow / "by").write_text("slow")
        with made_aside(final, tmp_path) as fast:
            (fast / "by").write_text("fast")
        assert slow.is_dir()
    assert shown(tmp_path) == ["final", "final/by"]
    assert (final / "by").read_text() == "fast"


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, signal, pathlib\n"
        "from rag.folders import made_aside\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "with made_aside(here / 'final', here) as aside:\n"
        "    (aside / 'file').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(shown(tmp_path)) == 2
    with made_aside(tmp_path / "other", tmp_path) as aside:
        assert [aside.name] == shown(tmp_path)
    assert shown(tmp_path) == ["other"]


def test_a_full_disk_is_not_taken_for_another_process(tmp_path: Path) -> None:
    (tmp_path / "final").write_text("a file in the way")
    with pytest.raises(NotADirectoryError), made_aside(tmp_path / "final", tmp_path):
        pass
    assert shown(tmp_path) == ["final"]
    assert (tmp_path / "final").is_file()
