"""Scopes and names: what a key may ask for, and what it is told when there is no such thing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gateway.dataplane.auth import authenticate
from gateway.dataplane.table import Grant, Route, RouteTable, Target
from gateway.errors import InvalidKey, KeyNotAllowed, MissingKey, NotReady, UnknownModel
from tests.fakes.parts import CLIENT_KEY, DIGEST, table_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALL = Grant("key", ("*",))


@pytest.mark.parametrize(
    ("pattern", "model", "allowed"),
    [
        ("*", "support", True),
        ("*", "openai/gpt-4o", True),
        ("support", "support", True),
        ("support", "support@candidate", True),
        ("support", "support:3", True),
        ("support", f"support@{DIGEST}", True),
        ("support", "support2", False),
        ("support@candidate", "support@candidate", True),
        ("support@candidate", "support", False),
        ("sup*", "support@production", True),
        ("sup*", "sup/x", False),
        ("openai/*", "openai/gpt-4o", True),
        ("openai/*", "openai", False),
        ("openai/gpt-4o", "openai/gpt-4o", True),
        ("openai/gpt-4o", "openai/gpt-4o-mini", False),
        ("*/*", "vllm/x", True),
    ],
)
def test_a_pattern_covers_what_it_says(pattern: str, model: str, allowed: bool) -> None:
    assert Grant("key", (pattern,)).allows(model) is allowed


def test_a_release_without_production_names_its_aliases() -> None:
    table = RouteTable(aliases={("support", "candidate"): DIGEST})
    with pytest.raises(UnknownModel, match="nothing was promoted there yet; there is: support@candidate"):
        table.find("support", ALL)


def test_a_digest_that_no_alias_names_says_what_is_served() -> None:
    with pytest.raises(UnknownModel, match="only releases that an alias points at"):
        table_of({"support": Route(name="support")}).find(f"support@{DIGEST}", ALL)


def test_hints_never_name_what_the_key_may_not_see() -> None:
    table = table_of({"support": Route(name="support"), "suppers": Route(name="suppers")})
    with pytest.raises(UnknownModel, match=r"there is: support\b(?!.*suppers)"):
        table.find("suppor@x", Grant("key", ("support", "suppor")))
    with pytest.raises(KeyNotAllowed):
        table.find("suppers", Grant("key", ("support",)))


def test_a_target_that_is_not_ready_says_why() -> None:
    with pytest.raises(NotReady, match="'support' is not ready: its parts are loading"):
        Target(Route(name="support", problem="its parts are loading")).ready()


def test_production_lists_releases_of_one_kind() -> None:
    table = table_of({"b": Route(name="b", kind="prediction"), "a": Route(name="a", kind="prediction")})
    assert table.production("prediction") == ["a", "b"]
    assert table.production("chat") == []


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Basic x", CLIENT_KEY.encode()])
def test_no_bearer_key_is_missing(header: bytes | None) -> None:
    with pytest.raises(MissingKey):
        authenticate(header, table_of({}), NOW)


def test_keys_work_until_they_expire() -> None:
    table = table_of({})
    ((digest, grant),) = table.grants.items()
    header = b"bearer  " + CLIENT_KEY.encode()
    assert authenticate(header, table, NOW) is grant
    ends = RouteTable(grants={digest: Grant("key_1", ("*",), NOW)})
    assert authenticate(header, ends, NOW - timedelta(microseconds=1)).id == "key_1"
    with pytest.raises(InvalidKey):
        authenticate(header, ends, NOW)
    with pytest.raises(InvalidKey):
        authenticate(b"Bearer other", table, NOW)
