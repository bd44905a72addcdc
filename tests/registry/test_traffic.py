from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from registry import db, traffic
from registry.clock import from_text, to_text
from registry.entities import SubjectKind, UsageEntry
from registry.errors import BadInput
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace

from .conftest import NOW

KINDS: tuple[SubjectKind, ...] = ("key", "team", "user", "session", "model")


def entry(number: int, at: datetime = NOW, **more: Any) -> UsageEntry:
    values: dict[str, Any] = {
        "account": "key_a", "key_id": "key_a", "team": "web", "release": "support", "model": "openai/x",
        "route": "/v1/chat/completions", "status": 200, "prompt_tokens": 10, "completion_tokens": 2,
        "cost_microusd": 7,
    }  # fmt: skip
    return UsageEntry(f"req_{number}", to_text(at), **{**values, **more})


entries = st.lists(
    st.builds(
        entry,
        st.integers(0, 30),
        st.timedeltas(timedelta(days=-30), timedelta(days=2)).map(lambda span: NOW + span),
        account=st.sampled_from(["key_a", "key_b"]),
        team=st.sampled_from(["", "web"]),
        user=st.sampled_from(["", "u1", "u2"]),
        session=st.sampled_from(["", "s"]),
        release=st.sampled_from(["support", "openai/*", ""]),
        prompt_tokens=st.integers(0, 9),
        completion_tokens=st.integers(0, 9),
        cost_microusd=st.none() | st.integers(0, 10**12),
    ),
    unique_by=lambda one: one.request_id,
)


def summed(connection: Connection, at: str) -> dict[tuple[str, str, str], tuple[int, int, int, int]]:
    return {
        (one.kind, one.subject, one.period): (one.microusd, one.requests, one.tokens, one.unpriced)
        for kind in KINDS
        for one in traffic.spendings(connection, kind, at)
    }


def by_hand(found: Sequence[UsageEntry], at: str) -> dict[tuple[str, str, str], tuple[int, ...]]:
    sums: dict[tuple[str, str, str], Counter[str]] = {}
    for one in found:
        names = {
            "key": one.account, "team": one.team, "user": one.user, "session": one.session,
            "model": one.model if one.release == "openai/*" else one.release,
        }  # fmt: skip
        tokens = one.prompt_tokens + one.completion_tokens
        amounts = {
            "microusd": one.cost_microusd or 0, "requests": 1, "tokens": tokens,
            "unpriced": int(one.cost_microusd is None and tokens > 0),
        }  # fmt: skip
        for period, digits in (("day", 10), ("month", 7), ("total", 0)):
            for kind, name in names.items():
                if name and one.at[:digits] == at[:digits]:
                    sums.setdefault((kind, name, period), Counter()).update(amounts)
    order = ("microusd", "requests", "tokens", "unpriced")
    return {key: tuple(total[name] for name in order) for key, total in sums.items()}


@settings(max_examples=25, deadline=None)
@given(entries, st.data())
def test_sums_equal_the_records_however_often_batches_are_delivered(
    found: list[UsageEntry], data: st.DataObject
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        open_workspace(RegistrySettings(home=Path(folder) / "home")) as workspace,
    ):
        cut = data.draw(st.integers(0, len(found)))
        with workspace.writing() as connection:
            stored = [traffic.record(connection, batch) for batch in (found[:cut], found, found[cut:], found)]
        assert stored == [cut, len(found) - cut, 0, 0]
        with workspace.reading() as connection:
            for at in ("2026-02-01T00:00:00.000000Z", "2026-03-01T12:00:00.000000Z"):
                assert summed(connection, at) == by_hand(found, at)
            since = from_text("2026-01-01T00:00:00Z")
            rows = traffic.usage(connection, by="key", since=since)
            costs = Counter[str]()
            for one in found:
                costs[one.account] += one.cost_microusd or 0
            assert {row["key"]: row["cost_microusd"] for row in rows} == costs


@pytest.mark.parametrize("known", [0, 299, 555])
def test_of_many_records_only_those_that_are_new_are_stored(workspace: Workspace, known: int) -> None:
    """More than one statement takes, in several sizes of statements."""
    many = [entry(number) for number in range(556)]
    with workspace.writing() as connection:
        assert traffic.record(connection, many[known : known + 1]) == 1
        assert traffic.record(connection, many) == 555
        assert traffic.spent(connection, "key", "key_a", "2026-03-01T00:00:00.000000Z") == 556 * 7
        assert len(traffic.stored(connection, [one.request_id for one in many])) == 556


def test_a_record_twice_in_one_batch_counts_once(workspace: Workspace) -> None:
    with workspace.writing() as connection:
        revision = db.revision(connection)
        assert traffic.record(connection, [entry(1), entry(1), entry(2)]) == 2
        assert traffic.record(connection, []) == 0
        assert traffic.spent(connection, "key", "key_a", "2026-03-01T00:00:00.000000Z") == 14
        assert traffic.stored(connection, ["req_1", "req_2", "req_3"]) == {"req_1", "req_2"}
        assert db.revision(connection) == revision


def test_a_batch_that_fails_halfway_changes_nothing(workspace: Workspace) -> None:
    def interrupted() -> None:
        with workspace.writing() as connection:
            traffic.record(connection, [entry(1)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with workspace.reading() as connection:
        assert traffic.stored(connection, ["req_1"]) == set()
        assert traffic.spendings(connection, "key", to_text(NOW)) == []


def test_a_month_that_begins_with_a_day_is_not_taken_for_it(workspace: Workspace) -> None:
    first = "2026-03-01T00:00:00.000000Z"
    with workspace.writing() as connection:
        traffic.record(connection, [entry(1), entry(2, NOW + timedelta(days=4))])
        spent = [
            traffic.spent(connection, "key", "key_a", first, period) for period in ("day", "month", None)
        ]
        assert spent == [7, 14, 14]
        assert traffic.spent(connection, "key", "key_a", "1970-01-01T00:00:00.000000Z") == 14
        assert traffic.spent(connection, "key", "other", first) == 0


def test_usage_is_grouped_filtered_and_ordered(workspace: Workspace) -> None:
    day = timedelta(days=1)
    found = [
        entry(1),
        entry(
            2,
            account="key_b",
            team="",
            cost_microusd=None,
            cached_tokens=4,
            status=502,
            error="upstream_error",
        ),
        entry(3, NOW + day, release="vllm/*", model="vllm/y", cost_microusd=100),
        entry(4, NOW + 2 * day, prompt_tokens=0, completion_tokens=0, cost_microusd=None, status=429),
    ]
    with workspace.writing() as connection:
        traffic.record(connection, found)
        names = (
            "requests",
            "failed",
            "prompt_tokens",
            "cached_tokens",
            "completion_tokens",
            "cost_microusd",
            "unpriced",
        )

        def sums(by: str, **more: Any) -> list[tuple[Any, ...]]:
            rows = traffic.usage(connection, by=by, **{"since": NOW, **more})
            return [(row[by], *(row[name] for name in names)) for row in rows]

        assert sums("key") == [("key_a", 3, 1, 20, 0, 4, 107, 0), ("key_b", 1, 1, 10, 4, 2, 0, 1)]
        assert [row[:2] for row in sums("day")] == [("2026-03-01", 2), ("2026-03-02", 1), ("2026-03-03", 1)]
        assert sums("team", since=NOW + day, until=NOW + 2 * day) == [("web", 1, 0, 10, 0, 2, 100, 0)]
        assert sums("model", only={"release": "support", "key": "key_a"}) == [
            ("openai/x", 2, 1, 10, 0, 2, 7, 0)
        ]
        for wrong in ({"by": "colour"}, {"by": "key", "only": {"colour": "red"}}):
            with pytest.raises(
                BadInput, match="cannot be grouped by 'colour'; choose key, team, model, release, day"
            ):
                traffic.usage(connection, since=NOW, **wrong)


def test_old_records_go_and_their_sums_stay(workspace: Workspace) -> None:
    with workspace.writing() as connection:
        traffic.record(connection, [entry(1), entry(2, NOW + timedelta(days=1))])
        assert traffic.prune(connection, NOW + timedelta(hours=1)) == 1
        assert traffic.stored(connection, ["req_1", "req_2"]) == {"req_2"}
        assert traffic.spent(connection, "team", "web", "1970-01-01T00:00:00.000000Z") == 14
