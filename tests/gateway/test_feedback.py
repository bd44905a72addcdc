"""What people say of an answer is kept once, belongs to the account that asked, and names its release."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.telemetry import Telemetry
from registry import audit_verify, feedback
from registry.entities import Feedback
from registry.errors import BadInput
from registry.workspace import Workspace
from tests.fakes.stand import until
from tests.fakes.upstream import Upstream
from tests.fakes.whole import DIRECT, Whole, whole
from tests.registry.conftest import database_url, server, workspace

__all__ = ["database_url", "server", "workspace"]


@pytest.fixture
def gate(workspace: Workspace, up: Upstream, tmp_path: Path) -> Iterator[Whole]:
    with whole(workspace, up, tmp_path) as running:
        yield running


def stored(gate: Whole) -> list[dict[str, Any]]:
    with gate.workspace.reading() as connection:
        return list(feedback.every(connection))


def say(gate: Whole, body: dict[str, Any], key: str = "app", **headers: str) -> tuple[int, Any]:
    answer = gate.ask("POST", "/v1/feedback", body, key, **headers)
    return answer.status, answer.body


def test_feedback_is_kept_with_the_release_it_is_about(gate: Whole) -> None:
    identity = gate.chat().headers["x-request-id"]
    said = {"request_id": identity, "score": -1, "name": "thumbs", "comment": "Too long.", "user": "ann"}
    status, answer = say(gate, said)
    assert status == 201
    (row,) = stored(gate)
    assert row.pop("created_at") == row.pop("updated_at")
    assert len(row["user"]) == 16 and "ann" not in row["user"]
    assert row == {
        "id": answer["id"], "request_id": identity, "row": None, "name": "thumbs", "user": row["user"],
        "account": row["account"], "release": "vllm/*", "digest": "", "model": DIRECT, "score": -1.0,
        "label": None, "comment": "Too long.",
    }  # fmt: skip
    assert answer == {
        "id": row["id"], "object": "feedback", "request_id": identity, "row": None, "name": "thumbs",
        "release": "vllm/*", "digest": "",
    }  # fmt: skip


def test_saying_it_again_changes_it_and_what_is_left_out_stays(gate: Whole) -> None:
    identity = gate.chat().headers["x-request-id"]
    first = say(gate, {"generation_id": identity, "score": 1, "comment": "Good."})
    again = say(gate, {"generation_id": identity, "score": 1, "comment": "Good."})
    later = say(gate, {"request_id": identity, "label": "billing"})
    assert (first[0], again[0], later[0]) == (201, 200, 200)
    assert first[1]["id"] == again[1]["id"] == later[1]["id"]
    (row,) = stored(gate)
    assert (row["score"], row["label"], row["comment"]) == (1.0, "billing", "Good.")
    others = [
        say(gate, {"request_id": identity, "score": 0}, x_sluicegate_user="bob"),
        say(gate, {"request_id": identity, "score": 0, "name": "helpful"}),
    ]
    assert [status for status, _ in others] == [201, 201]
    assert len(stored(gate)) == 3


def test_nobody_judges_another_accounts_answer(gate: Whole) -> None:
    identity = gate.chat().headers["x-request-id"]
    status, answer = say(gate, {"request_id": identity, "score": 1}, key="other")
    assert (status, answer["error"]["code"]) == (404, "generation_not_found")
    assert stored(gate) == []


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"score": 1}, "request_id"),
        ({"request_id": "req_1", "generation_id": "req_1", "score": 1}, "request_id"),
        ({"request_id": 7, "score": 1}, "request_id"),
        ({"request_id": "ID"}, "score"),
        ({"request_id": "ID", "score": None}, "score"),
        ({"request_id": "ID", "score": -0.5}, "score"),
        ({"request_id": "ID", "score": 1.01}, "score"),
        ({"request_id": "ID", "score": 10**400}, "score"),
        ({"request_id": "ID", "score": True}, "score"),
        ({"request_id": "ID", "score": "1"}, "score"),
        ({"request_id": "ID", "comment": ""}, "comment"),
        ({"request_id": "ID", "comment": "x" * 2001}, "comment"),
        ({"request_id": "ID", "comment": "a\0b"}, "comment"),
        ({"request_id": "ID", "label": "x" * 1001}, "label"),
        ({"request_id": "ID", "label": 3}, "label"),
        ({"request_id": "ID", "score": 1, "name": "Thumbs Up"}, "name"),
        ({"request_id": "ID", "score": 1, "row": -1}, "row"),
        ({"request_id": "ID", "score": 1, "row": 10**30}, "row"),
        ({"request_id": "ID", "score": 1, "text": "x"}, "text"),
    ],
)
def test_what_says_nothing_sensible_is_refused_by_name(
    small: Whole, said: dict[str, Any], param: str
) -> None:
    identity = small.chat().headers["x-request-id"]
    body = {key: identity if value == "ID" else value for key, value in said.items()}
    status, answer = say(small, body)
    assert (status, answer["error"]["param"]) == (400, param), answer
    assert answer["error"]["message"].startswith(param)


@pytest.fixture(scope="module")
def small(up: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    from registry.settings import RegistrySettings
    from registry.workspace import open_workspace

    folder = tmp_path_factory.mktemp("feedback")
    with open_workspace(RegistrySettings(home=folder / "home")) as opened, whole(opened, up, folder) as gate:
        yield gate


def test_a_row_is_one_that_was_predicted(small: Whole) -> None:
    identity = small.chat().headers["x-request-id"]
    status, answer = say(small, {"request_id": identity, "label": "Yes", "row": 0})
    assert status == 400
    assert answer["error"]["message"] == f"row: 0 is none of the 0 that request {identity} predicted"


def test_comments_are_in_no_log_and_no_metric(
    small: Whole, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    identity = small.chat().headers["x-request-id"]
    assert say(small, {"request_id": identity, "comment": "Zanzibar", "score": 0.2})[0] == 201
    assert say(small, {"request_id": identity, "comment": "Zanzibar", "score": 7})[0] == 400
    metrics = small.ask("GET", "/metrics", key=None).body.decode()
    assert 'sluicegate_feedback_total{name="user",release="vllm/*",sign="negative"}' in metrics
    out, err = capfd.readouterr()
    assert "Zanzibar" not in metrics + caplog.text + out + err


def test_names_that_clients_choose_make_a_bounded_number_of_series() -> None:
    from gateway.dataplane.usage import UsageRecord
    from tests.gateway.test_variants import _State

    telemetry = Telemetry(_State())
    for number in range(2_000):
        telemetry.emit(UsageRecord(str(number), release="support", feedback=(f"n{number}", "positive")))
    lines = [
        line
        for line in telemetry.render().decode().splitlines()
        if line.startswith("sluicegate_feedback_total")
    ]
    assert len(lines) == 501
    assert 'sluicegate_feedback_total{name="other",release="other",sign="positive"} 1500.0' in lines


def test_the_registry_lists_and_exports_it(
    small: Whole, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import csv
    import io
    import json

    from typer.testing import CliRunner

    from registry.cli import application

    identity = small.chat().headers["x-request-id"]
    say(small, {"request_id": identity, "label": "=HYPERLINK()", "comment": "a,b\n", "name": "truth"})
    home = small.workspace.settings.home
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(home))
    runner = CliRunner()
    one = runner.invoke(application, ["feedback", "export", "--json", "--name", "truth"])
    (row,) = [json.loads(line) for line in one.stdout.splitlines()]
    assert (row["request_id"], row["label"], row["comment"]) == (identity, "=HYPERLINK()", "a,b\n")
    two = runner.invoke(application, ["feedback", "export", "--csv", "--name", "truth"])
    (cells,) = list(csv.DictReader(io.StringIO(two.stdout)))
    assert (cells["label"], cells["comment"], cells["score"]) == ("'=HYPERLINK()", "a,b\n", "")
    three = runner.invoke(application, ["feedback", "list", "--name", "truth"])
    assert identity in three.stdout and "a,b" not in three.stdout
    wrong = runner.invoke(application, ["feedback", "export"])
    assert isinstance(wrong.exception, BadInput)


def test_pages_show_everything_once(small: Whole) -> None:
    identity = small.chat().headers["x-request-id"]
    for number in range(5):
        assert say(small, {"request_id": identity, "score": 1, "name": f"page-{number}"})[0] == 201
    seen: list[str] = []
    before = None
    while True:
        with small.workspace.reading() as connection:
            page = feedback.listing(connection, before=before, limit=2)
        seen += [one["id"] for one in page["feedback"]]
        before = page["next"]
        if before is None:
            break
    with small.workspace.reading() as connection:
        assert seen == [one["id"] for one in feedback.every(connection)][::-1]


def test_an_erased_person_said_nothing(gate: Whole) -> None:
    from registry.errors import NotFound
    from registry.verbs import Session, audit

    identity = gate.chat().headers["x-request-id"]
    say(gate, {"request_id": identity, "comment": "I am Ann of 3 Oak Street"}, x_sluicegate_user="ann")
    say(gate, {"request_id": identity, "score": 1}, x_sluicegate_user="bob")
    (ann,) = [row["user"] for row in stored(gate) if row["comment"]]
    answer = audit.erase(Session(gate.workspace), f"user:{ann}", reason="asked on 3 March")
    assert answer["feedback"] == 1
    assert [row["comment"] for row in stored(gate)] == [None]
    with pytest.raises(NotFound):
        audit.erase(Session(gate.workspace), f"user:{ann}", reason="again")
    with pytest.raises(NotFound):
        audit.erase(Session(gate.workspace), "user:", reason="everybody without a name")
    with gate.workspace.reading() as connection:
        assert audit_verify.verify(connection)["problems"] == []


def test_it_is_kept_as_long_as_usage(gate: Whole) -> None:
    from datetime import timedelta

    from registry.clock import utc_now

    identity = gate.chat().headers["x-request-id"]
    say(gate, {"request_id": identity, "score": 1})
    with gate.workspace.writing() as connection:
        assert feedback.prune(connection, utc_now() - timedelta(days=1)) == 0
        assert feedback.prune(connection, utc_now() + timedelta(days=1)) == 1
    until(lambda: stored(gate) == [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from([None, 0, 1]),
            st.sampled_from(["", "u"]),
            st.floats(0, 1) | st.none(),
            st.sampled_from([None, "x", "y"]),
        ),
        max_size=12,
    )
)
def test_the_last_word_on_each_thing_is_what_is_kept(small: Whole, said: list[Any]) -> None:
    from registry.clock import utc_now
    from registry.entities import UsageEntry
    from registry.ids import sortable_id

    now = utc_now()
    entry = UsageEntry(sortable_id("req", now), "", "key_1", rows=2)
    kept: dict[Any, list[Any]] = {}
    with small.workspace.writing() as connection:
        for name, row, user, score, label in said:
            if score is None and label is None:
                continue
            feedback.give(connection, entry, Feedback(name, row, user, score, label), now=now)
            known = kept.setdefault((name, row, user), [None, None])
            kept[name, row, user] = [
                known[0] if score is None else score,
                known[1] if label is None else label,
            ]
    with small.workspace.reading() as connection:
        rows = [one for one in feedback.every(connection) if one["request_id"] == entry.request_id]
    assert {(r["name"], r["row"], r["user"]): [r["score"], r["label"]] for r in rows} == kept
    assert len(rows) == len(kept)
