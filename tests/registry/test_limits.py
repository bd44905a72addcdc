from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import db, limits
from registry.entities import LimitRule, Limits
from registry.errors import BadInput, NotFound
from registry.workspace import Workspace

numbers = st.none() | st.integers(1, 10**12)
some_limits = st.builds(
    Limits,
    rpm=numbers,
    tpm=numbers,
    concurrency=numbers,
    budget_microusd=st.integers(0, 10**15),
    budget_period=st.sampled_from(["day", "month", "total"]),
)


@given(some_limits)
def test_what_is_stored_is_what_was_set(given_limits: Limits) -> None:
    assert limits.from_json(limits.to_json(given_limits)) == given_limits


def test_no_limit_is_stored_as_nothing() -> None:
    assert (limits.to_json(Limits()), limits.from_json("{}")) == ("{}", Limits())


def test_a_rule_takes_the_place_of_the_one_before_and_gateways_hear_of_it(workspace: Workspace) -> None:
    with workspace.writing() as connection:
        before = db.revision(connection)
        first, second = LimitRule("team", "web", Limits(rpm=5)), LimitRule("team", "web", Limits(tpm=9))
        everyone = LimitRule("user", "*", Limits(budget_microusd=0))
        assert [limits.set_rule(connection, rule) for rule in (first, first, second, everyone)] == [
            True, False, True, True,
        ]  # fmt: skip
        assert limits.list_rules(connection) == [second, everyone]
        assert db.revision(connection) == before + 3
        limits.remove_rule(connection, "team", "web")
        assert (limits.list_rules(connection), db.revision(connection)) == ([everyone], before + 4)
        with pytest.raises(NotFound, match="team 'web' has no limits"):
            limits.remove_rule(connection, "team", "web")


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (LimitRule("key", "web", Limits(rpm=1)), "kind 'key' is none of"),  # type: ignore[arg-type]
        (LimitRule("team", "", Limits(rpm=1)), "1 to 200 characters"),
        (LimitRule("user", "u" * 201, Limits(rpm=1)), "1 to 200 characters"),
        (LimitRule("team", "web", Limits()), "at least one of rpm, tpm, concurrency and budget"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(workspace: Workspace, rule: LimitRule, problem: str) -> None:
    with pytest.raises(BadInput, match=problem), workspace.writing() as connection:
        limits.set_rule(connection, rule)


@pytest.mark.parametrize("wrong", [{"rpm": 0}, {"tpm": -1}, {"concurrency": 10**13}, {"budget_microusd": -1}])
def test_limits_have_a_range(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        Limits(**wrong)  # type: ignore[arg-type]
