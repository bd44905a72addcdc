"""Journals get into the registry exactly once, whoever dies in between."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.controlplane import segments
from gateway.controlplane.ledger import Ledger
from gateway.dataplane.journal import Journal
from gateway.dataplane.table import Subject
from gateway.dataplane.usage import UsageRecord
from gateway.errors import LimitsUnavailable
from registry import traffic
from registry.clock import to_text
from registry.entities import Limits
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace
from tests.registry.conftest import workspace

__all__ = ["workspace"]

NOW = datetime(2026, 11, 23, 3, 4, 5, tzinfo=UTC)
MONTH = "2026-11-01T00:00:00.000000Z"
BUDGET = Limits(budget_microusd=10**9)
EXAMPLES = itertools.count()


def record(number: int, cost: int = 100, account: str = "key_1", at: datetime = NOW) -> UsageRecord:
    return UsageRecord(
        f"req_{number}", at=to_text(at), route="/v1/chat/completions", release="support", model="vllm/tiny",
        account=account, key_id=account, user="ab12", status=200, attempts=1, prompt_tokens=7,
        completion_tokens=2, cost_microusd=cost,
    )  # fmt: skip


def subject(name: str = "key_1") -> Subject:
    return Subject("key", name, BUDGET)


@dataclass
class Books:
    """A registry, a folder of journals, and a clock that stands."""

    workspace: Workspace
    now: list[datetime] = field(default_factory=lambda: [NOW])

    @property
    def folder(self) -> Path:
        return self.workspace.settings.home / "usage"

    @property
    def database(self) -> Path:
        return self.workspace.settings.home / "registry.db"

    def ledger(self) -> Ledger:
        return Ledger(self.workspace, self.folder, 30, lambda: self.now[0])

    def write(self, *records: UsageRecord, name: str = "usage_1") -> Path:
        """A journal of a process that is gone."""
        journal = Journal(self.folder, name)
        for each in records:
            journal.append(each)
        journal.close()
        return self.folder / f"{name}-000001.jsonl"

    def stored(self) -> tuple[int, int]:
        """Requests and micro-USD, by single records; they must be equal to the sums."""
        with self.workspace.reading() as connection:
            rows = traffic.usage(connection, by="key", since=NOW - timedelta(days=3650))
            sums = traffic.spendings(connection, "key", to_text(NOW))
        total = sum(row["requests"] for row in rows), sum(row["cost_microusd"] for row in rows)
        ever = [s for s in sums if s.period == "total"]
        assert total == (sum(s.requests for s in ever), sum(s.microusd for s in ever))
        return total


@pytest.fixture
def books(workspace: Workspace) -> Books:
    with workspace.reading():  # so that the database is there
        pass
    return Books(workspace)


def test_closed_journals_are_stored_and_deleted(books: Books) -> None:
    books.write(record(1), record(2))
    books.write(record(3, 50), name="usage_2")
    ledger = books.ledger()
    assert ledger.spent(subject(), MONTH) == 250
    assert ledger.drain() == 3
    assert (ledger.drain(), ledger.stored, ledger.problem, ledger.backlog_bytes()) == (0, 3, None, 0)
    assert books.stored() == (3, 250)
    assert ledger.spent(subject(), MONTH) == 250
    assert ledger.sums == {("key", "key_1", period): 250 for period in ("day", "month", "total")}


def test_a_journal_that_is_being_written_is_left_alone_and_still_counts(books: Books) -> None:
    lock = segments.hold(books.folder, "usage_1")
    journal = Journal(books.folder, "usage_1")
    journal.append(record(1))
    ledger = books.ledger()
    assert ledger.drain() == 0
    assert ledger.spent(subject(), MONTH) == 100
    assert ledger.spent(subject("key_2"), MONTH) == 0
    journal.append(record(2))
    assert ledger.spent(subject(), MONTH) == 200
    lock.close()
    assert ledger.drain() == 2
    assert ledger.spent(subject(), MONTH) == 200
    assert sorted(path.name for path in books.folder.iterdir()) == ["drain"]


SCRIPT = """
import os, signal, sys
from pathlib import Path
from gateway.controlplane import segments
from gateway.dataplane.journal import Journal
from registry.settings import RegistrySettings
from registry.workspace import open_workspace
from tests.gateway.test_ledger import Books, record
with open_workspace(RegistrySettings(home=Path(sys.argv[1]))) as workspace:
    books = Books(workspace)
    lock = segments.hold(books.folder, "usage_9")
    journal = Journal(books.folder, "usage_9")
    for number in range(3): journal.append(record(number))
"""


def killed(books: Books, script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + script, str(books.workspace.settings.home)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_what_a_killed_process_noted_is_taken_up(books: Books) -> None:
    killed(books, "    os.kill(os.getpid(), signal.SIGKILL)\n")
    ledger = books.ledger()
    assert ledger.spent(subject(), MONTH) == 300
    assert ledger.drain() == 3
    assert books.stored() == (3, 300)
    assert [path.name for path in books.folder.iterdir()] == ["drain"]


def test_a_kill_between_storing_and_deleting_counts_nothing_twice(books: Books) -> None:
    killed(
        books,
        "    journal.close()\n"
        "    Path.unlink = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    books.ledger().drain()\n",
    )
    assert books.stored() == (3, 300)
    assert (books.folder / "usage_9-000001.jsonl").exists()
    ledger = books.ledger()
    assert ledger.spent(subject(), MONTH) == 300
    assert ledger.drain() == 0
    assert ledger.spent(subject(), MONTH) == 300
    assert books.stored() == (3, 300)


def test_usage_stays_while_the_database_is_gone_and_no_new_one_is_made(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = books.ledger()
    books.write(record(1))
    ledger.drain()
    away = books.database.with_name("away.db")
    books.database.rename(away)
    books.write(record(2), name="usage_2")
    for _ in range(3):
        assert ledger.drain() == 0
    assert ledger.problem == f"{books.database} is gone; restore it"
    assert ledger.backlog_bytes() > 0
    assert not books.database.exists()
    assert ledger.spent(subject(), MONTH) == 200
    with pytest.raises(LimitsUnavailable, match="what this user has spent is not known now"):
        ledger.spent(Subject("user", "ab12", BUDGET), MONTH)
    later = books.ledger()  # after a restart it knows no less
    assert later.spent(subject(), MONTH) == 200
    assert later.spent(subject("key_2"), MONTH) == 0
    away.rename(books.database)
    assert ledger.drain() == 1
    assert books.stored() == (2, 200)
    assert [message[:20] for message in caplog.messages] == ["usage stays in " + str(books.folder)[:5],
                                                             "the registry takes u"]  # fmt: skip


def test_a_registry_that_was_never_read_knows_nobody_s_money(tmp_path: Path) -> None:
    with open_workspace(RegistrySettings(home=tmp_path / "home"), later=True) as workspace:
        ledger = Books(workspace).ledger()
        with pytest.raises(LimitsUnavailable):
            ledger.spent(subject(), MONTH)
        assert ledger.drain() == 0
        assert not (tmp_path / "home" / "registry.db").exists()


def test_a_database_that_was_replaced_is_the_one_that_is_written(books: Books) -> None:
    ledger = books.ledger()
    books.write(record(1))
    ledger.drain()
    copy = books.database.with_name("copy.db")
    with books.workspace.writing() as connection:  # nothing may be left in the write-ahead log
        connection.exec_driver_sql("SELECT 1")
    books.workspace.engine.dispose()
    shutil.copy(books.database, copy)
    ledger.drain()
    copy.replace(books.database)
    books.write(record(2), name="usage_2")
    assert ledger.drain() == 1
    with open_workspace(books.workspace.settings) as fresh:
        assert Books(fresh).stored() == (2, 200)


def test_a_torn_line_is_skipped_and_said(books: Books, caplog: pytest.LogCaptureFixture) -> None:
    path = books.write(record(1), record(2), record(3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:50] + b"\n\xff\xfe\n" + lines[2] + lines[1][:-9])
    ledger = books.ledger()
    assert ledger.spent(subject(), MONTH) == 200
    assert ledger.drain() == 2
    assert caplog.messages == [
        f"usage_1-000001.jsonl, line {number}: not a usage record, skipped" for number in (2, 3, 5)
    ]


def test_a_record_no_database_takes_is_set_aside_and_the_rest_is_stored(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    absurd = record(2)
    absurd.prompt_tokens = 10**30
    books.write(record(1), absurd, record(3))
    ledger = books.ledger()
    assert ledger.drain() == 2
    assert (ledger.problem, ledger.backlog_bytes(), books.stored()) == (None, 0, (2, 200))
    aside = books.folder / "refused.json-lines"
    assert b'"req_2"' in aside.read_bytes()
    assert caplog.messages == [f"usage of request req_2 cannot be stored; it is kept in {aside}"]


def test_a_journal_that_cannot_be_read_does_not_hold_up_the_others(books: Books) -> None:
    books.folder.mkdir()
    (books.folder / "usage_0-000001.jsonl").mkdir()
    books.write(record(1))
    ledger = books.ledger()
    assert ledger.drain() == 1
    assert ledger.problem is not None
    assert "usage_0-000001.jsonl" in ledger.problem


def test_two_processes_never_drain_at_once(books: Books) -> None:
    books.write(record(1))
    ledger = books.ledger()
    with (books.folder / "drain").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert ledger.drain() == 0
        release = threading.Timer(0.05, other.close)
        release.start()
        assert ledger.drain(wait_s=10) == 1
        release.join()


def test_old_records_are_pruned_and_their_sums_stay(books: Books) -> None:
    ledger = books.ledger()
    books.write(record(1, at=NOW - timedelta(days=29, hours=23)), record(2))
    ledger.drain()
    books.now[0] += timedelta(days=1)
    ledger.drain()
    with books.workspace.reading() as connection:
        rows = traffic.usage(connection, by="day", since=NOW - timedelta(days=400))
    assert [row["day"] for row in rows] == ["2026-11-23"]
    assert ledger.spent(subject(), "1970-01-01T00:00:00.000000Z") == 0  # of a month that began in 1970
    ever = Subject("key", "key_1", Limits(budget_microusd=1, budget_period="total"))
    assert ledger.spent(ever, "1970-01-01T00:00:00.000000Z") == 200


def test_locks_that_were_left_behind_are_removed_but_no_held_one(books: Books) -> None:
    with segments.hold(books.folder, "usage_1"):
        segments.hold(books.folder, "usage_2").close()
        assert segments.finished(books.folder) == []
        assert [path.name for path in books.folder.iterdir()] == ["usage_1.lock"]


def test_a_lock_that_was_removed_while_it_was_taken_is_taken_again(books: Books) -> None:
    books.folder.mkdir()
    path = books.folder / "usage_1.lock"
    with path.open("a") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        taken: list[IO[str]] = []
        thread = threading.Thread(target=lambda: taken.append(segments.hold(books.folder, "usage_1")))
        thread.start()
        path.unlink()
        first.close()
    thread.join(5)
    with taken[0] as lock:
        assert os.fstat(lock.fileno()).st_ino == path.stat().st_ino


entries = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=25)


@given(entries, st.integers(1, 9), st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_spent_is_exact_at_every_moment(
    books: Books, numbers: list[tuple[int, int]], size: int, data: st.DataObject
) -> None:
    """Whatever was drained, delivered again or still waits: each request counts once."""
    example = next(EXAMPLES)
    ledger = books.ledger()
    expected: dict[str, dict[int, int]] = {}
    for start in range(0, len(numbers), size):
        part = numbers[start : start + size]
        records = []
        for number, who in part:
            account = f"key_{example}_{who}"
            noted = record(number, number * 7, account)
            noted.request_id = f"req_{example}_{who}_{number}"
            expected.setdefault(account, {})[number] = number * 7
            records.append(noted)
        books.write(*records, name=f"usage_{example}_{start}")
        if data.draw(st.booleans()):
            ledger.drain()
        for account, known in expected.items():
            assert ledger.spent(subject(account), MONTH) == sum(known.values())
    ledger.drain()
    for account, known in expected.items():
        assert ledger.spent(subject(account), MONTH) == sum(known.values())
