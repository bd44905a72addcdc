"""What was used is on disk before the answer ends, whatever happens to the process or the disk."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.controlplane import segments
from gateway.dataplane.journal import Journal
from gateway.dataplane.usage import UsageRecord
from registry.entities import UsageEntry

AT = "2026-11-23T03:04:05.000006Z"


def record(number: int, **more: object) -> UsageRecord:
    return UsageRecord(f"req_{number}", at=AT, account="key_1", **more)  # type: ignore[arg-type]  # fields by name


def ids(folder: Path) -> list[str]:
    """Of the records in every finished journal, oldest file first."""
    return [
        entry.request_id
        for path in segments.finished(folder)
        for entries in segments.batches(path)
        for entry in entries
    ]


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own that writes a journal."""
    head = (
        "import os, signal, sys, resource\nfrom pathlib import Path\n"
        "from gateway.controlplane import segments\nfrom gateway.dataplane.journal import Journal, stored\n"
        "from tests.gateway.test_journal import record\nfolder = Path(sys.argv[1])\n"
        "lock = segments.hold(folder, 'usage_child')\njournal = Journal(folder, 'usage_child')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", head + script, str(folder)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_what_was_appended_survives_kill_9(tmp_path: Path) -> None:
    done = run("for i in range(3): journal.append(record(i))\nos.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert ids(tmp_path) == ["req_0", "req_1", "req_2"]


def test_a_record_that_the_disk_took_half_is_written_whole_later(tmp_path: Path) -> None:
    done = run(
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "limit = int(2.5 * len(journal._encode(stored(record(0)))))  # a file takes two records and a half\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "for i in range(3): journal.append(record(i))\n"
        "print(journal.waiting, journal.problem)\njournal.append(record(3))\nprint(journal.waiting)\n"
        "journal.close()",
        tmp_path,
    )
    assert done.stdout == "1 the disk took only a part of a record\n0\n", done.stderr
    assert "usage records wait in memory" in done.stderr
    assert "the journal can be written again" in done.stderr
    assert ids(tmp_path) == ["req_0", "req_1", "req_2", "req_3"]


def test_records_wait_in_order_while_the_disk_takes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "usage"
    journal = Journal(folder, "usage_1")
    shutil.rmtree(folder)
    for number in range(3):
        journal.append(record(number))
    assert (journal.waiting, journal.full) == (3, False)
    assert "No such file" in str(journal.problem)
    assert len(caplog.messages) == 1
    folder.mkdir()
    journal.append(record(3))
    assert [journal.waiting, journal.problem] == [0, None]
    journal.close()
    assert ids(folder) == ["req_0", "req_1", "req_2", "req_3"]


def test_ten_thousand_records_that_wait_are_full(tmp_path: Path) -> None:
    folder = tmp_path / "usage"
    journal = Journal(folder, "usage_1")
    shutil.rmtree(folder)
    for number in range(9999):
        journal.append(record(number))
    full = [journal.full]
    journal.append(record(9999))
    full.append(journal.full)
    folder.mkdir()
    journal.flush()
    assert [*full, journal.full, journal.waiting] == [False, True, False, 0]
    journal.close()
    assert len(ids(folder)) == 10_000


def test_a_file_is_closed_when_it_is_asked_for_or_large(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "usage_1")
    journal.rotate()
    assert list(tmp_path.iterdir()) == []
    journal.append(record(1))
    assert [path.name for path in tmp_path.iterdir()] == ["usage_1-000001.open"]
    journal.rotate()
    journal.rotate()
    assert [path.name for path in tmp_path.iterdir()] == ["usage_1-000001.jsonl"]
    journal.append(record(2, user="u" * 8_000_000))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "usage_1-000001.jsonl",
        "usage_1-000002.jsonl",
    ]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
counts = st.integers(0, 2**53)


@given(
    st.builds(
        UsageRecord, request_id=texts, at=st.just(AT), team=texts, user=texts, model=texts, error=texts,
        prompt_tokens=counts, completion_tokens=counts, cost_microusd=st.none() | counts,
        estimated=st.booleans(), findings=st.lists(st.tuples(texts, texts), max_size=2),
    )
)  # fmt: skip
def test_what_is_read_is_what_was_appended(
    tmp_path_factory: pytest.TempPathFactory, noted: UsageRecord
) -> None:
    folder = tmp_path_factory.mktemp("usage")
    journal = Journal(folder, "usage_1")
    journal.append(noted)
    journal.close()
    (path,) = segments.finished(folder)
    assert list(segments.batches(path)) == [
        [
            UsageEntry(
                request_id=noted.request_id, at=AT, account="", team=noted.team, user=noted.user,
                model=noted.model, route="unknown", error=noted.error, prompt_tokens=noted.prompt_tokens,
                completion_tokens=noted.completion_tokens, estimated=noted.estimated,
                cost_microusd=noted.cost_microusd,
            )
        ]
    ]  # fmt: skip
