"""What a request cost is told by its id, to whom it belongs, wherever its record is at that moment."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from registry.clock import from_text, utc_now
from registry.ids import sortable_id
from registry.workspace import Workspace
from tests.fakes.stand import until
from tests.fakes.upstream import MODEL, Fault, Upstream
from tests.fakes.whole import DIRECT, Whole, whole
from tests.registry.conftest import database_url, server, workspace

__all__ = ["database_url", "server", "workspace"]


@pytest.fixture
def gate(workspace: Workspace, up: Upstream, tmp_path: Path) -> Iterator[Whole]:
    up.faults.clear()
    with whole(workspace, up, tmp_path) as running:
        yield running


def is_stored(gate: Whole) -> bool:
    return not list((gate.workspace.settings.home / "usage").glob("*.jsonl")) and not list(
        (gate.workspace.settings.home / "usage").glob("*.open")
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_request_is_told_what_it_cost_at_once_and_later(gate: Whole, stream: bool) -> None:
    began = utc_now()
    asked = gate.chat(stream=stream)
    identity = asked.headers["x-request-id"]
    at_once = gate.ask("GET", f"/v1/generations/{identity}")
    assert at_once.status == 200
    made = at_once.body.pop("created_at")
    assert began <= from_text(made) <= utc_now()
    tokens = at_once.body["tokens"]
    cost = tokens["prompt"] * 2 + tokens["completion"] * 6
    assert tokens["prompt"] > 0 and tokens["completion"] > 0
    assert at_once.body == {
        "id": identity,
        "object": "generation",
        "route": "/v1/chat/completions",
        "release": "vllm/*",
        "digest": None,
        "model": DIRECT,
        "status": 200,
        "error": None,
        "tokens": {"prompt": tokens["prompt"], "completion": tokens["completion"], "cached": 0},
        "rows": 0,
        "estimated": False,
        "cost_usd": f"0.{cost:06d}",
    }
    if not stream:
        assert asked.headers["x-sluicegate-cost-usd"] == at_once.body["cost_usd"]
    until(lambda: is_stored(gate))
    later = gate.ask("GET", f"/v1/generations/{identity}")
    assert (later.status, later.body) == (200, at_once.body | {"created_at": made})


def test_it_is_found_while_nobody_drains_the_journal(gate: Whole) -> None:
    with (gate.workspace.settings.home / "usage" / "drain").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        identity = gate.chat().headers["x-request-id"]
        until(lambda: list((gate.workspace.settings.home / "usage").glob("*.jsonl")))
        assert gate.ask("GET", f"/v1/generations/{identity}").status == 200


def test_ids_of_answers_that_were_made_of_the_requests_are_understood(gate: Whole) -> None:
    body = {"model": DIRECT, "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
    message = gate.ask("POST", "/v1/messages", body)
    response = gate.ask("POST", "/v1/responses", {"model": DIRECT, "input": "Hello"})
    for asked in (message, response):
        found = gate.ask("GET", f"/v1/generations/{asked.body['id']}")
        assert (found.status, found.body["id"]) == (200, asked.headers["x-request-id"])


def test_a_request_that_failed_after_it_cost_says_so(gate: Whole, up: Upstream) -> None:
    up.faults.append(Fault(cut_after=300))
    asked = gate.chat(stream=True)
    assert b'"error"' in asked.body
    found = gate.ask("GET", f"/v1/generations/{asked.headers['x-request-id']}").body
    assert (found["status"], found["error"], found["estimated"]) == (200, "upstream_broken", True)


def test_another_accounts_request_is_as_unknown_as_none(gate: Whole) -> None:
    identity = gate.chat().headers["x-request-id"]
    foreign = gate.ask("GET", f"/v1/generations/{identity}", key="other")
    none = sortable_id("req", utc_now())
    unknown = gate.ask("GET", f"/v1/generations/{none}", key="other")
    for answer, named in ((foreign, identity), (unknown, none)):
        assert answer.status == 404
        assert answer.headers["retry-after"] == "1"
        assert answer.body["error"] == {
            "message": f"no request '{named}' of this account used anything; "
            "its id is the answer's x-request-id",
            "type": "invalid_request_error",
            "param": None,
            "code": "generation_not_found",
        }
    gone = sortable_id("req", datetime(2026, 1, 1, tzinfo=UTC))
    assert "retry-after" not in gate.ask("GET", f"/v1/generations/{gone}").headers


@pytest.mark.parametrize(
    "name", ["", "x" * 5000, "req_%00", "%C3%A9", "../../etc", "resp_", "req_1' OR 1=1--"]
)
def test_no_id_trips_it(gate: Whole, name: str) -> None:
    answer = gate.ask("GET", f"/v1/generations/{name}".replace(" ", "%20"))
    assert answer.status == 404, answer


def test_a_request_that_used_nothing_is_not_on_record(gate: Whole) -> None:
    refused = gate.ask("POST", "/v1/chat/completions", {"model": "nonesuch", "messages": []})
    assert refused.status == 404
    assert gate.ask("GET", f"/v1/generations/{refused.headers['x-request-id']}").status == 404


def test_while_the_registry_is_away_what_is_not_in_a_journal_is_unavailable(
    tmp_path: Path, up: Upstream
) -> None:
    from registry.settings import RegistrySettings
    from registry.workspace import open_workspace

    settings = RegistrySettings(home=tmp_path / "home")
    with open_workspace(settings) as opened, whole(opened, up, tmp_path) as gate:
        old = gate.chat().headers["x-request-id"]
        until(lambda: is_stored(gate))
        database = settings.home / "registry.db"
        database.rename(database.with_suffix(".away"))
        new = gate.chat().headers["x-request-id"]
        assert gate.ask("GET", f"/v1/generations/{new}").status == 200
        away = gate.ask("GET", f"/v1/generations/{old}")
        assert (away.status, away.body["error"]["code"]) == (503, "records_unavailable")
        assert away.headers["retry-after"] == "1"
        said = gate.ask("POST", "/v1/feedback", {"request_id": new, "score": 1})
        assert (said.status, said.body["error"]["code"]) == (503, "records_unavailable")
        database.with_suffix(".away").rename(database)
        assert gate.ask("GET", f"/v1/generations/{old}").status == 200


def test_the_openai_client_finds_what_it_asked(gate: Whole) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{gate.url}/v1", api_key=gate.keys["app"], max_retries=0, timeout=10)
    with client:
        messages = [{"role": "user", "content": "Hello"}]
        done = client.chat.completions.create(model=DIRECT, messages=messages)  # type: ignore[arg-type]
        assert done._request_id is not None
        raw = client.get(f"/generations/{done._request_id}", cast_to=object)
    assert json.loads(json.dumps(raw))["model"].endswith(MODEL)
