"""`gateway usage`, through its entry point, on a real registry."""

from __future__ import annotations

from datetime import timedelta

import pytest

from registry.clock import to_text, utc_now

from .test_keys import CommandLine, line, record, used

__all__ = ["line"]


def test_money_and_tokens_are_summed_by_what_was_asked_for(line: CommandLine) -> None:
    key = line.json("keys", "create", "--name", "web")["id"]
    long_ago = to_text(utc_now() - timedelta(days=40))
    record(
        used(1, key, team="web", model="openai/x", release="support", status=200),
        used(2, key, team="web", model="vllm/y", release="vllm/*", cost_microusd=None, status=200),
        used(3, "key_gone", model="openai/x", release="support", cost_microusd=1_000_000, status=200),
        used(4, key, cost_microusd=5)._replace(at=long_ago),
    )
    assert line.text("usage").splitlines() == [
        f"{'KEY':36}  REQUESTS  FAILED  PROMPT  CACHED  COMPLETION  USD       UNPRICED",
        f"{'key_gone':36}  1         0       10      0       2           1.000000  0",
        f"{f'{key} (web)':36}  2         0       20      0       4           0.000075  1",
        f"{'total':36}  3         0       30      0       6           1.000075  1",
    ]
    assert line.text("usage", "--by", "model", "--team", "web").splitlines() == [
        "MODEL     REQUESTS  FAILED  PROMPT  CACHED  COMPLETION  USD       UNPRICED",
        "openai/x  1         0       10      0       2           0.000075  0",
        "vllm/y    1         0       10      0       2           0.000000  1",
        "total     2         0       20      0       4           0.000075  1",
    ]
    all_time = line.json("usage", "--since", "2000-01-01", "--by", "day", "--key", key)
    assert [group["day"] for group in all_time["groups"]] == [long_ago[:10], to_text(utc_now())[:10]]
    assert all_time["total"]["cost_microusd"] == 80
    assert line.json("usage", "--until", "2000-01-01", "--since", "1999-01-01")["groups"] == []


@pytest.mark.parametrize(
    "words", [("--since", "soon"), ("--since", "xd"), ("--until", "7d"), ("--key", "key_none")]
)
def test_a_wrong_option_is_refused(line: CommandLine, words: tuple[str, ...]) -> None:
    assert line.json("usage", *words, code=3)["error"]["code"] in ("bad_input", "not_found")
