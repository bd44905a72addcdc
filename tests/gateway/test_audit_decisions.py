"""What the gateway refuses, cuts and redacts is in the audit chain: once, bounded, and without names."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app import Gateway
from gateway.controlplane import decisions
from gateway.controlplane.decisions import Decisions, of_counts
from gateway.dataplane.usage import UsageRecord
from gateway.errors import STATUS
from gateway.settings import GatewaySettings
from registry import audit_export, audit_keep, audit_verify, tables
from registry.clock import to_text
from tests.fakes.server import serving
from tests.gateway.test_ledger import NOW, Books, books, record
from tests.registry.conftest import workspace

__all__ = ["books", "workspace"]


def refusal(number: int, code: str = "rate_limit_exceeded", **more: Any) -> UsageRecord:
    """A request that used nothing."""
    values: dict[str, Any] = {"key_id": "key_1", "account": "key_1", "release": "support", "user": "ab12"}
    return UsageRecord(f"req_{number}", at=to_text(NOW), error=code, status=429, **(values | more))


def decided(books: Books, **more: Any) -> list[dict[str, Any]]:
    """Every decision in the chain, oldest first; the chain must hold."""
    with books.workspace.reading() as connection:
        assert audit_verify.verify(connection, every_signature=True)["problems"] == []
        found: list[dict[str, Any]] = audit_export.listing(connection, target="requests/*", **more)["records"]
    return found[::-1]


def test_a_request_that_was_cut_is_in_the_chain_once_however_often_its_journal_is_read(books: Books) -> None:
    cut = record(1)
    cut.error, cut.session = "guardrail_blocked", "cd34"
    path = books.write(record(2), cut)
    kept = path.read_bytes()
    ledger = books.ledger()
    assert ledger.drain() == 2
    path.write_bytes(kept + kept)
    assert (ledger.drain(), ledger.problem) == (0, None)
    (one,) = decided(books, unseal=True)
    assert one["kind"] == "decision"
    assert (one["action"], one["actor"], one["target"]) == ("request.cut", "gateway", "requests/support")
    assert one["body"] == {
        "minute": "2026-11-23T03:04", "code": "guardrail_blocked", "count": 1, "requests": ["req_1"],
        "key": "key_1", "account": "key_1", "digest": "", "status": 200,
        "sealed": {"user": "ab12", "session": "cd34"},
    }  # fmt: skip
    assert books.stored() == (2, 200)


def test_what_failed_is_no_decision(books: Books) -> None:
    failed = record(1)
    failed.error = "upstream_timeout"
    books.write(failed)
    ledger = books.ledger()
    ledger.decisions.note(refusal(2, "upstream_timeout"), journaled=False)
    ledger.drain(1.0)
    assert decided(books) == []


def test_refusals_of_one_minute_are_one_record_for_each_key_and_reason(books: Books) -> None:
    ledger = books.ledger()
    for number in range(100):
        ledger.decisions.note(refusal(number), journaled=False)
    ledger.decisions.note(
        refusal(100, "invalid_api_key", key_id="", account="", release="", user=""), journaled=False
    )
    ledger.drain()
    assert decided(books) == []  # their minute is not over
    books.now[0] = NOW + timedelta(minutes=1)
    ledger.drain()
    ledger.drain()
    first, second = decided(books)
    assert first["body"] == {
        "minute": "2026-11-23T03:04", "code": "invalid_api_key", "count": 1, "requests": ["req_100"],
        "key": "unknown", "account": "", "digest": "", "guards": {},
    }  # fmt: skip
    assert (first["target"], first["subject"]) == ("requests/unknown", None)
    assert (second["body"]["count"], second["body"]["requests"]) == (100, [f"req_{n}" for n in range(8)])
    assert second["subject"].startswith("sub_")


def test_what_guardrails_did_is_counted_by_rule(books: Books) -> None:
    ledger = books.ledger()
    for number in range(3):
        changed = refusal(
            number, "", findings=[("email", "redact"), ("email", "redact"), ("secret", "block")]
        )
        ledger.decisions.note(changed, journaled=True)
    ledger.drain(1.0)
    (one,) = decided(books)
    assert (one["action"], one["body"]["code"], one["body"]["count"]) == ("request.guard", "", 3)
    assert one["body"]["guards"] == {"email:redact": 6, "secret:block": 3}


def test_a_flood_of_users_fills_nothing(books: Books) -> None:
    ledger = books.ledger()
    for number in range(5000):
        ledger.decisions.note(refusal(number, user=f"{number:016x}"), journaled=False)
    assert ledger.decisions.waiting == 1001
    ledger.drain(1.0)
    found = decided(books, limit=10_000)
    assert sum(one["body"]["count"] for one in found) == 5000
    assert [one["body"]["count"] for one in found if one["body"]["key"] == "other"] == [4000]


def test_decisions_wait_while_the_registry_is_gone(books: Books) -> None:
    ledger = books.ledger()
    ledger.drain()
    ledger.decisions.note(refusal(1), journaled=False)
    away = books.database.rename(books.database.with_suffix(".away"))
    ledger.drain(1.0)
    assert (ledger.problem is not None, ledger.decisions.waiting) == (True, 1)
    away.rename(books.database)
    ledger.drain(1.0)
    assert (ledger.problem, ledger.decisions.waiting) == (None, 0)
    assert [one["body"]["count"] for one in decided(books)] == [1]


def test_names_are_sealed_and_erasure_leaves_the_chain_whole(books: Books) -> None:
    ledger = books.ledger()
    ledger.decisions.note(refusal(1, user="0123456789abcdef"), journaled=False)
    ledger.drain(1.0)
    with books.workspace.reading() as connection:
        texts = connection.execute(tables.audit.select()).mappings().all()
    assert not any("0123456789abcdef" in str(dict(row)) for row in texts)
    with books.workspace.writing() as connection:
        audit_keep.erase(connection, "user:0123456789abcdef", reason="asked", actor="ann", now=NOW)
    (one,) = decided(books, unseal=True)
    assert (one["state"], isinstance(one["body"]["sealed"], str)) == ("erased", True)


def test_every_code_of_a_decision_is_one_the_gateway_answers_with() -> None:
    assert STATUS.keys() >= decisions.POLICY


@given(
    st.lists(st.tuples(st.sampled_from(["", *sorted(decisions.POLICY)]), st.integers(0, 3), st.booleans()))
)
def test_no_decision_is_lost_or_counted_twice(requests: list[tuple[str, int, bool]]) -> None:
    counting = Decisions()
    for number, (code, user, journaled) in enumerate(requests):
        taken = counting.take(None) if number % 3 == 0 else {}
        counting.note(refusal(number, code, user=str(user)), journaled=journaled)
        counting.give_back(taken)
    expected = sum(1 for code, _, journaled in requests if code and not journaled)
    about = of_counts(counting.take(None))
    total = sum(msgspec.convert(entry.body["count"], int) for entry, _, _ in about)
    assert (total, counting.waiting) == (expected, 0)


@pytest.mark.parametrize("code", ["", "rate_limit_exceeded"])
def test_noting_costs_a_request_a_few_microseconds(code: str) -> None:
    counting = Decisions()
    each = refusal(1, code)
    start = time.process_time()
    for _ in range(2000):
        counting.note(each, journaled=False)
    assert (time.process_time() - start) / 2000 < 100e-6


def test_a_gateway_that_stops_leaves_its_refusals_in_the_chain(books: Books) -> None:
    """A request without a key, to a real server."""
    with serving(Gateway(GatewaySettings(), books.workspace)) as url, pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{url}/v1/models", headers={"authorization": "Bearer nonsense"}), timeout=10)
    refused.value.close()
    (one,) = decided(books)
    assert (one["action"], one["target"], one["subject"]) == ("request.refuse", "requests/unknown", None)
    assert (one["body"]["code"], one["body"]["key"], one["body"]["count"]) == (
        "invalid_api_key",
        "unknown",
        1,
    )
    assert one["body"]["requests"] == [refused.value.headers["x-request-id"]]
