"""`gateway keys`, through its entry point, on a real registry."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from registry import traffic
from registry.clock import to_text, utc_now
from registry.entities import UsageEntry
from registry.workspace import open_workspace


@dataclass(frozen=True)
class CommandLine:
    """Runs `gateway …` in a folder of its own, in this process."""

    folder: Path
    call: Callable[[list[str]], tuple[int, str, str]]

    def text(self, *words: str, code: int = 0) -> str:
        """What it prints for people; errors too."""
        returned, out, error = self.call([*words])
        assert returned == code, out + error
        return out + error

    def json(self, *words: str, code: int = 0) -> Any:
        """What it prints for machines."""
        returned, out, error = self.call([*words, "--json"])
        assert returned == code, out + error
        assert len(out.splitlines()) == 1
        return json.loads(out)


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLUICEGATE_ACTOR", "ann")

    def call(words: list[str]) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gateway", *words])
        with pytest.raises(SystemExit) as left:
            main()
        out, error = capsys.readouterr()
        return int(left.value.code or 0), out, error

    return CommandLine(tmp_path, call)


def record(*entries: UsageEntry) -> None:
    """Store what was used, as the ledger does."""
    with open_workspace() as workspace, workspace.writing() as connection:
        traffic.record(connection, entries)


def used(number: int, account: str, **more: Any) -> UsageEntry:
    """One request of *account* just now."""
    values: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 2, "cost_microusd": 75, **more}
    return UsageEntry(f"req_{number}", to_text(utc_now()), account, **values)


def test_a_key_is_made_with_limits_and_its_secret_is_shown_once(line: CommandLine) -> None:
    made = line.json(
        "keys", "create", "--name", "web", "--models", "support,openai/*", "--routes", "/v1/*",
        "--team", "web", "--rpm", "100", "--tpm", "5000", "--concurrency", "4",
        "--budget-usd", "12.5", "--budget-period", "day",
    )  # fmt: skip
    secret = made.pop("key")
    assert secret.startswith(made["prefix"])
    assert {name: made[name] for name in ("name", "models", "routes", "team", "limits")} == {
        "name": "web",
        "models": ["support", "openai/*"],
        "routes": ["/v1/*"],
        "team": "web",
        "limits": {
            "rpm": 100, "tpm": 5000, "concurrency": 4, "budget_microusd": 12_500_000, "budget_period": "day",
        },
    }  # fmt: skip
    (listed,) = line.json("keys", "list")["keys"]
    nothing = {
        "kind": "key", "subject": made["id"], "period": "day", "start": "", "microusd": 0, "requests": 0,
        "tokens": 0, "unpriced": 0,
    }  # fmt: skip
    assert listed == made | {"state": "valid", "spent": nothing}
    shown = line.text("keys", "list")
    assert "100 rpm, 5000 tpm, 4 at once, $12.50 a day  $0.00 this day" in shown
    assert secret not in shown


def test_an_update_changes_one_limit_and_takes_another_away(line: CommandLine) -> None:
    key = line.json("keys", "create", "--name", "web", "--rpm", "100", "--tpm", "5000", "--budget-usd", "1")
    changed = line.json("keys", "update", key["id"], "--rpm", "7", "--tpm", "none", "--expires", "2999-01-01")
    assert changed["limits"] == key["limits"] | {"rpm": 7, "tpm": None}
    assert changed["expires_at"] == "2999-01-01T00:00:00.000000Z"
    assert line.json("keys", "update", key["id"], "--budget-usd", "none", "--expires", "never") == {
        **{name: value for name, value in changed.items() if name not in ("limits", "expires_at")},
        "limits": {
            "rpm": 7,
            "tpm": None,
            "concurrency": None,
            "budget_microusd": None,
            "budget_period": "month",
        },
        "expires_at": None,
    }
    assert line.text("keys", "update", key["id"], "--models", "a, b") == (
        f"{key['id']} (web): models a,b; limits 7 rpm\n"
    )


def test_a_rotated_key_shares_what_was_spent_with_the_one_before(line: CommandLine) -> None:
    old = line.json("keys", "create", "--name", "web", "--rpm", "5")
    record(used(1, old["id"]), used(2, old["id"], cost_microusd=None))
    new = line.json("keys", "rotate", old["id"], "--overlap", "36h")
    assert (new["account"], new["limits"], new["replaces"]["id"]) == (old["id"], old["limits"], old["id"])
    first, second = line.json("keys", "list")["keys"]
    assert first["state"].startswith("rotating until ")
    assert second["state"] == "valid"
    assert first["spent"] == second["spent"]
    assert {name: first["spent"][name] for name in ("microusd", "requests", "tokens", "unpriced")} == {
        "microusd": 75, "requests": 2, "tokens": 24, "unpriced": 1,
    }  # fmt: skip
    assert "$0.000075 and 1 unpriced this month" in line.text("keys", "list")
    again = line.json("keys", "rotate", old["id"], code=3)
    assert again["error"]["message"].endswith(f"rotate the key that followed it, {new['id']}")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--rpm", "0"), "rpm: 0 is not 1 to 10^12"),
        (("--rpm", "many"), "--rpm: 'many' is not a whole number above 0, or `none`"),
        (("--tpm", "-1"), "--tpm: '-1' is not a whole number"),
        (("--budget-usd", "0.0000001"), "--budget-usd: 0.0000001 has more than six decimals"),
        (("--budget-usd", "much"), "--budget-usd: 'much' is not an amount of dollars"),
        (("--budget-period", "day"), "--budget-period needs --budget-usd"),
        (("--routes", "v1"), "routes: name paths or patterns that begin with '/'"),
        (("--models", " ,"), "models: name at least one"),
        (("--team", "No Team"), "team 'No Team' is not"),
        (("--expires-days", "0"), "--expires-days 0: must be above 0"),
    ],
)
def test_a_wrong_option_names_itself_and_makes_no_key(
    line: CommandLine, words: tuple[str, ...], problem: str
) -> None:
    refused = line.json("keys", "create", "--name", "web", *words, code=3)
    assert refused["error"]["code"] == "bad_input"
    assert problem in refused["error"]["message"]
    assert line.json("keys", "list") == {"keys": []}


@pytest.mark.parametrize("overlap", ["", "24", "h", "-1h", "1.5h", "99999999999999d", "40000d"])
def test_an_overlap_is_a_time_span(line: CommandLine, overlap: str) -> None:
    key = line.json("keys", "create", "--name", "web")
    refused = line.json("keys", "rotate", key["id"], f"--overlap={overlap}", code=3)
    assert refused["error"]["message"].startswith("--overlap: ")
    assert len(line.json("keys", "list")["keys"]) == 1


def test_a_revoked_key_stays_listed(line: CommandLine) -> None:
    key = line.json("keys", "create", "--name", "web")
    assert line.text("keys", "revoke", key["id"]) == f"revoked {key['id']} (web)\n"
    assert line.json("keys", "list")["keys"][0]["state"] == "revoked"
    assert line.json("keys", "revoke", "key_none", code=3)["error"]["code"] == "not_found"
