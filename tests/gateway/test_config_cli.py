"""`gateway config`, through its entry point, on a real registry."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from gateway.cli.declaration import DeclaredPrice, plan_prices
from registry import db, prices
from registry.entities import Price
from registry.workspace import open_workspace

from .test_keys import CommandLine, line

__all__ = ["line"]
DECLARED = """
prices:
  - {model: openai/gpt-4o-mini, input: 0.15, output: 0.60, cached_input: 0.075, effective_from: 2026-01-01}
  - {model: openai/gpt-4o-mini, input: "0.10", output: 0.4, effective_from: 2999-01-01T00:00:00Z}
  - {model: ollama/*, input: 0, output: 0}
limits:
  - {team: web, rpm: 600, budget_usd: 50}
  - {user: "*", rpm: 30}
keys:
  - {name: web, models: [support], team: web, tpm: 10000}
  - {name: ci, expires_at: 2999-01-01}
"""


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
models = st.sampled_from(["openai/x", "openai/*"])
days = st.integers(-3, 3).map(lambda day: NOW + timedelta(days=day))
stored = st.builds(
    lambda model, at, usd: Price(model, at, (usd or 0) * 10**6, 0, withdrawn=usd is None),
    models, days, st.none() | st.integers(0, 2),
)  # fmt: skip
declarations = st.lists(
    st.builds(DeclaredPrice, models, st.integers(0, 2), st.just(0), effective_from=st.none() | days),
    unique_by=lambda one: (one.model, one.effective_from),
)


@pytest.fixture
def declared(line: CommandLine) -> CommandLine:
    (line.folder / "gateway.yaml").write_text(DECLARED)
    return line


def actions(answer: Any, name: str = "changes") -> list[tuple[str, str, str]]:
    return [(change["action"], change["kind"], change["name"]) for change in answer[name]]


def keys(line: CommandLine) -> list[Any]:
    """All keys by name: those made at once have no other order."""
    return sorted(line.json("keys", "list")["keys"], key=lambda key: key["name"])


def everything() -> list[Any]:
    """All that a configuration can change, as the database has it."""
    with open_workspace() as workspace, workspace.reading() as connection:
        tables = ("prices", "limits", "api_keys")
        return [connection.execute(text(f"SELECT * FROM {table} ORDER BY 1")).all() for table in tables]  # noqa: S608


def test_what_is_applied_is_there_and_applied_again_changes_nothing(declared: CommandLine) -> None:
    new = [
        ("add", "price", "ollama/*"),
        ("add", "price", "openai/gpt-4o-mini"),
        ("change", "price", "openai/gpt-4o-mini"),
        ("add", "limits", "team web"),
        ("add", "limits", "user *"),
        ("add", "key", "web"),
        ("add", "key", "ci"),
    ]
    before = everything()
    assert actions(declared.json("config", "diff", "gateway.yaml", code=1)) == new
    assert actions(declared.json("config", "apply", "gateway.yaml", "--dry-run")) == new
    assert everything() == before
    done = declared.json("config", "apply", "gateway.yaml")
    assert (actions(done), sorted(done["keys"])) == (new, ["ci", "web"])
    assert declared.json("config", "diff", "gateway.yaml") == {"equal": True, "changes": []}
    stored = everything()
    again = declared.json("config", "apply", "gateway.yaml", "--prune")
    assert (again["changes"], again["keys"], everything()) == ([], {}, stored)
    ci, web = keys(declared)
    assert (web["models"], web["team"], web["limits"]["tpm"]) == (["support"], "web", 10_000)
    assert ci["expires_at"] == "2999-01-01T00:00:00.000000Z"


def test_what_was_changed_by_hand_is_brought_back(declared: CommandLine) -> None:
    declared.json("config", "apply", "gateway.yaml")
    declared.json("prices", "set", "openai/gpt-4o-mini", "--input", "9", "--output", "9")
    declared.json("limits", "set", "--team", "web", "--rpm", "1")
    _, web = keys(declared)
    declared.json("keys", "update", web["id"], "--models", "*", "--rpm", "5")
    assert actions(declared.json("config", "diff", "gateway.yaml", code=1)) == [
        ("change", "price", "openai/gpt-4o-mini"),
        ("change", "limits", "team web"),
        ("change", "key", "web"),
    ]
    declared.json("config", "apply", "gateway.yaml")
    assert declared.json("config", "diff", "gateway.yaml")["equal"]
    prices = declared.json("prices", "list", "--at", "now")["prices"]
    assert [price["input_usd_per_million"] for price in prices] == ["0", "0.15"]
    assert keys(declared)[1]["limits"] == web["limits"]


def test_what_is_not_declared_is_drift_and_goes_only_when_asked(declared: CommandLine) -> None:
    declared.json("config", "apply", "gateway.yaml")
    declared.json("prices", "set", "openai/gpt-4o", "--input", "1", "--output", "1")
    declared.json("limits", "set", "--model", "support", "--rpm", "1")
    declared.json("keys", "create", "--name", "hand-made")
    extra = [
        ("remove", "price", "openai/gpt-4o"),
        ("remove", "limits", "model support"),
        ("remove", "key", "hand-made"),
    ]
    assert actions(declared.json("config", "diff", "gateway.yaml", code=1)) == extra
    kept = declared.json("config", "apply", "gateway.yaml")
    assert (kept["changes"], actions(kept, "undeclared")) == ([], extra)
    assert "(kept: not declared; --prune removes it)" in declared.text("config", "apply", "gateway.yaml")
    assert actions(declared.json("config", "apply", "gateway.yaml", "--prune")) == extra
    assert declared.json("config", "diff", "gateway.yaml")["equal"]
    assert [key["state"] for key in keys(declared)][1] == "revoked"
    assert [price["model"] for price in declared.json("prices", "list", "--at", "now")["prices"]] == [
        "ollama/*",
        "openai/gpt-4o-mini",
    ]


def test_a_section_that_is_left_out_is_left_alone(line: CommandLine) -> None:
    line.json("keys", "create", "--name", "hand-made")
    line.json("limits", "set", "--model", "support", "--rpm", "1")
    (line.folder / "gateway.yaml").write_text("limits: []\n")
    assert actions(line.json("config", "diff", "gateway.yaml", code=1)) == [
        ("remove", "limits", "model support")
    ]
    (line.folder / "gateway.yaml").write_text("")
    assert line.json("config", "diff", "gateway.yaml")["equal"]


def ordered(found: list[Price]) -> list[Price]:
    """As the registry lists them: of two for one moment the one set last is later."""
    return sorted(found, key=lambda price: (price.model, price.effective_from))


@given(declarations, st.lists(stored), st.booleans(), st.integers(0, 4))
def test_from_now_on_prices_are_as_declared_whenever_the_file_is_applied_again(
    wanted: list[DeclaredPrice], found: list[Price], prune: bool, later: int
) -> None:
    before = ordered(found)
    changes = plan_prices(wanted, before, NOW)
    made = [change.target for change in changes if prune or change.action != "remove"]
    after = ordered([*before, *(price for price in made if isinstance(price, Price))])
    again = plan_prices(wanted, after, NOW + timedelta(days=later))
    assert [change for change in again if prune or change.action != "remove"] == []
    should = ordered([one.price for one in wanted])
    for day in range(5):
        at = NOW + timedelta(days=day)
        right = {price.model: price.input_picousd for price in prices.current(should, at)}
        there = {price.model: price.input_picousd for price in prices.current(after, at)}
        assert {model: there.get(model) for model in (there if prune else right)} == right


def test_a_rotated_key_is_still_the_declared_one(declared: CommandLine) -> None:
    declared.json("config", "apply", "gateway.yaml")
    _, web = keys(declared)
    declared.json("keys", "rotate", web["id"])
    assert declared.json("config", "diff", "gateway.yaml")["equal"]


def test_pruning_ends_both_keys_of_a_rotation(declared: CommandLine) -> None:
    old = declared.json("keys", "create", "--name", "hand-made")
    declared.json("keys", "rotate", old["id"])
    declared.json("config", "apply", "gateway.yaml", "--prune")
    assert declared.json("config", "diff", "gateway.yaml")["equal"]
    states = [key["state"] for key in declared.json("keys", "list")["keys"] if key["name"] == "hand-made"]
    assert states == ["revoked", "revoked"]


def test_a_key_that_is_declared_to_have_expired_is_revoked_and_not_made_again(line: CommandLine) -> None:
    (line.folder / "gateway.yaml").write_text("keys:\n  - {name: web, expires_at: 2026-01-01}\n")
    assert line.json("config", "diff", "gateway.yaml")["equal"]
    old = line.json("keys", "create", "--name", "web")
    line.json("keys", "rotate", old["id"])
    assert actions(line.json("config", "apply", "gateway.yaml")) == [("change", "key", "web")] * 2
    assert [key["state"] for key in line.json("keys", "list")["keys"]] == ["revoked", "revoked"]
    assert line.json("config", "diff", "gateway.yaml")["equal"]


def test_new_keys_go_into_a_file_of_their_owner_and_nowhere_else(declared: CommandLine) -> None:
    words = ("config", "apply", "gateway.yaml", "--keys-out", "keys.json")
    shown = declared.text(*words)
    path = declared.folder / "keys.json"
    secrets = json.loads(path.read_text())
    assert (sorted(secrets), stat.S_IMODE(path.stat().st_mode)) == (["ci", "web"], 0o600)
    assert not any(secret in shown for secret in secrets.values())
    assert declared.json(*words, code=3)["error"]["code"] == "conflict"
    path.unlink()
    assert declared.json(*words)["keys"] == []
    assert not path.exists()


def test_a_file_that_cannot_be_applied_as_a_whole_changes_nothing(declared: CommandLine) -> None:
    for _ in range(2):
        declared.json("keys", "create", "--name", "ci")
    before, revision = everything(), _revision()
    refused = declared.json("config", "apply", "gateway.yaml", "--keys-out", "keys.json", code=3)
    assert "keys: 'ci' names 2 keys" in refused["error"]["message"]
    assert (everything(), _revision(), (declared.folder / "keys.json").exists()) == (before, revision, False)


def _revision() -> int:
    with open_workspace() as workspace, workspace.reading() as connection:
        return db.revision(connection)


def test_a_file_is_checked_without_a_registry(declared: CommandLine) -> None:
    counts = {"prices": 3, "limits": 2, "keys": 2}
    assert (
        declared.json("config", "validate", "gateway.yaml") == {"ok": True, "file": "gateway.yaml"} | counts
    )
    assert not (declared.folder / "home").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("limits:\n  - {team: a, rmp: 3}", ":2: limits[0].rmp: unknown key; did you mean 'rpm'?"),
        ("limits:\n  - {team: a, rpm: 3}\n  - {rpm: 3}", ":3: limits[1]: name exactly one of team"),
        ("limits:\n  - {team: a}", ":2: limits[0]: give at least one of"),
        ("limits:\n  - {team: a, rpm: 3}\n  - {team: a, rpm: 4}", "limits: team a is declared twice"),
        ("keys:\n  - {name: Big Name}", ":2: keys[0]: key name 'Big Name' is not"),
        ("keys:\n  - {name: a, secret: sk-sg-x}", ":2: keys[0].secret: unknown key"),
        ("keys:\n  - {name: a, budget_period: day}", ":2: keys[0]: budget_period needs budget_usd"),
        ("keys:\n  - {name: a, expires_at: soon}", ":2: keys[0]: expires_at: 'soon' is not a date"),
        ("prices:\n  - {model: a/b, input: 1}", "prices[0]: key 'output' is missing"),
        ("prices:\n  - {model: a/b, input: 1e-9, output: 1}", ":2: prices[0]: input: 1e-9"),
        ("prices:\n  - {model: a/b, input: .nan, output: 1}", ":2: prices[0]: input: nan is not 0 to"),
        ("prices:\n  - {model: b, input: 1, output: 1}", ":2: prices[0]: 'b' is not provider/model"),
        ("price: []", ":1: price: unknown key; did you mean 'prices'?"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(line: CommandLine, content: str, problem: str) -> None:
    (line.folder / "gateway.yaml").write_text(content)
    refused = line.json("config", "validate", "gateway.yaml", code=3)
    assert refused["error"]["code"] == "bad_input"
    assert problem in refused["error"]["message"]
