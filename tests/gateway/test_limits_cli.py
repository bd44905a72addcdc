"""`gateway limits`, through its entry point, on a real registry."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gateway.dataplane.exchange import pseudonym

from .test_keys import CommandLine, line, record, used

__all__ = ["line"]
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "limits-and-budgets.md"


def test_limits_are_set_as_a_whole_listed_and_removed(line: CommandLine) -> None:
    first = line.json("limits", "set", "--team", "web", "--rpm", "100", "--tpm", "9")
    assert first["limits"] == {
        "rpm": 100, "tpm": 9, "concurrency": None, "budget_microusd": None, "budget_period": "month",
    }  # fmt: skip
    assert line.text("limits", "set", "--team", "web", "--rpm", "5") == "team web: 5 rpm\n"
    assert line.text("limits", "set", "--team", "web", "--rpm", "5") == "team web: 5 rpm (unchanged)\n"
    line.json("limits", "set", "--user", "*", "--budget-usd", "1", "--budget-period", "day")
    assert line.text("limits", "list").splitlines() == [
        "KIND  SUBJECT  LIMITS       SPENT",
        "team  web      5 rpm        $0.00 this month",
        "user  *        $1.00 a day  each its own",
    ]
    assert line.json("limits", "remove", "--user", "*") == {"kind": "user", "subject": "*"}
    assert [rule["subject"] for rule in line.json("limits", "list")["limits"]] == ["web"]
    assert line.json("limits", "remove", "--user", "*", code=3)["error"]["code"] == "not_found"


def test_what_a_subject_spent_is_that_of_its_own_period(line: CommandLine) -> None:
    for words in (("--team", "web"), ("--user", "bob"), ("--model", "support"), ("--session", "s1")):
        line.json("limits", "set", *words, "--budget-usd", "3", "--budget-period", "total")
    record(used(1, "key_1", team="web", user=pseudonym("bob"), release="support"))
    spent = {rule["kind"]: rule["spent"]["microusd"] for rule in line.json("limits", "list")["limits"]}
    assert spent == {"team": 75, "user": 75, "model": 75, "session": 0}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--rpm", "1"), "name exactly one of team, user, session and model"),
        (("--team", "a", "--user", "b", "--rpm", "1"), "name exactly one of team, user, session and model"),
        (("--team", "a"), "team 'a': give at least one of rpm, tpm, concurrency and budget"),
        (("--team", "", "--rpm", "1"), "team: the name must have 1 to 200 characters"),
    ],
)
def test_limits_of_nobody_or_of_nothing_are_refused(
    line: CommandLine, words: tuple[str, ...], problem: str
) -> None:
    assert problem in line.json("limits", "set", *words, code=3)["error"]["message"]
    assert line.json("limits", "list") == {"limits": []}


def test_every_command_of_the_how_to_works(line: CommandLine) -> None:
    text = HOW_TO.read_text()
    (declared,) = re.findall(r"```yaml\n(.+?)```", text, re.DOTALL)
    (line.folder / "gateway.yaml").write_text(re.sub(r"(expires_at: )\d{4}", r"\g<1>2999", declared))
    rotate = re.findall(r"`(gateway keys rotate .+?)`", text)
    blocks = re.findall(r"```\n(gateway .+?)```", text, re.DOTALL)
    commands = [shlex.split(command)[1:] for command in [*"".join(blocks).splitlines(), *rotate]]
    assert len(commands) > 10
    key_id = ""
    for words in commands:
        code = int(words[:2] == ["config", "diff"])
        line.text(*(key_id if word == "KEY_ID" else word for word in words), code=code)
        key_id = key_id or line.json("keys", "list")["keys"][0]["id"]
    secrets = (line.folder / "new-keys.json").read_text()
    assert re.findall(r'"(\w+)": "sk-sg-', secrets) == ["ci"]
    line.json("config", "apply", "gateway.yaml", "--prune")
    assert line.json("config", "diff", "gateway.yaml")["equal"]
