"""`gateway prices`, through its entry point, on a real registry."""

from __future__ import annotations

import importlib.util
import json

import pytest

from .test_keys import CommandLine, line

__all__ = ["line"]
MINI = (
    "prices",
    "set",
    "openai/gpt-4o-mini",
    "--input",
    "0.15",
    "--output",
    "0.60",
    "--cached-input",
    "0.075",
)
TABLE = {
    "sample_spec": {"litellm_provider": "one of …", "input_cost_per_token": 0.0},
    "gpt-4o-mini": {
        "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1.5e-07,
        "output_cost_per_token": 6e-07, "cache_read_input_token_cost": 7.5e-08,
    },
    "text-embedding-3-small": {
        "litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": 2e-08,
    },
    "gpt-fine": {
        "litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-13,
        "output_cost_per_token": 1e-6,
    },
    "openai/gpt-image": {"litellm_provider": "openai", "mode": "image_generation"},
    "claude-x": {"litellm_provider": "anthropic", "input_cost_per_token": 3e-6, "output_cost_per_token": 0},
}  # fmt: skip


def test_a_price_is_kept_exactly_and_the_same_again_changes_nothing(line: CommandLine) -> None:
    made = line.json(*MINI, "--from", "2026-01-01")
    assert made == {
        "model": "openai/gpt-4o-mini", "effective_from": "2026-01-01T00:00:00.000000Z",
        "input_picousd": 150_000, "output_picousd": 600_000, "cached_input_picousd": 75_000,
        "input_usd_per_million": "0.15", "output_usd_per_million": "0.6",
        "cached_input_usd_per_million": "0.075",
        "withdrawn": False, "changed": True,
    }  # fmt: skip
    assert line.json(*MINI, "--from", "2026-01-01") == made | {"changed": False}
    text = "openai/gpt-4o-mini: $0.15 input, $0.60 output, $0.075 cached input, from 2026-01-01 (unchanged)\n"
    assert line.text(*MINI) == text


def test_each_price_says_whether_it_is_past_in_force_or_to_come(line: CommandLine) -> None:
    for day, amount in (("2024-01-01", "1"), ("2025-01-01", "2"), ("2999-01-01", "3")):
        line.json("prices", "set", "openai/x", "--input", amount, "--output", amount, "--from", day)
    assert line.text("prices", "list").splitlines() == [
        "MODEL     INPUT  OUTPUT  CACHED INPUT  FROM        STATE",
        "openai/x  $1.00  $1.00   as input      2024-01-01  past",
        "openai/x  $2.00  $2.00   as input      2025-01-01  in force",
        "openai/x  $3.00  $3.00   as input      2999-01-01  to come",
    ]
    for at, picousd in (("2024-06-01", 1), ("now", 2), ("2999-01-01T00:00:00Z", 3)):
        (price,) = line.json("prices", "list", "--at", at)["prices"]
        assert price["input_picousd"] == picousd * 10**6
    assert line.json("prices", "list", "--at", "2023-12-31")["prices"] == []


def test_a_removed_price_is_withdrawn_and_stays_in_the_list(line: CommandLine) -> None:
    line.json("prices", "set", "openai/x", "--input", "1", "--output", "1", "--from", "2026-01-01")
    line.json("prices", "remove", "openai/x")
    assert line.json("prices", "list", "--at", "now")["prices"] == []
    assert [price["state"] for price in line.json("prices", "list")["prices"]] == ["past", "withdrawn"]
    assert line.json("prices", "remove", "openai/x", code=3)["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ("openai/x", "--input", "0.0000001", "--output", "1"),
            "--input: 0.0000001 has more than six decimals",
        ),
        (("openai/x", "--input", "1", "--output", "-1"), "--output: -1 is not 0 to 10000"),
        (("gpt-4o", "--input", "1", "--output", "1"), "'gpt-4o' is not provider/model"),
        (("openai/x", "--input", "1", "--output", "1", "--from", "soon"), "--from: 'soon' is not a date"),
        (("openai/x", "--input", "1", "--output", "1", "--from", "2026-01-01T00:00:00"), "is not a date"),
    ],
)
def test_a_price_that_cannot_be_kept_is_refused(
    line: CommandLine, words: tuple[str, ...], problem: str
) -> None:
    assert problem in line.json("prices", "set", *words, code=3)["error"]["message"]
    assert line.json("prices", "list") == {"prices": []}


def test_models_have_the_names_here_that_their_providers_have_here(line: CommandLine) -> None:
    named = {
        "gemini/gemini-x": "gemini",
        "gemini-x": "vertex_ai-language-models",
        "vertex_ai/claude-x": "vertex_ai-anthropic_models",
        "anthropic.claude-x": "bedrock_converse",
        "together_ai/meta/llama-x": "together_ai",
        "openrouter/openai/gpt-x": "openrouter",
    }
    price = {"mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    table = {name: price | {"litellm_provider": provider} for name, provider in named.items()}
    (line.folder / "table.json").write_text(json.dumps(table))
    done = line.json("prices", "import", "*", "--table", "table.json")
    assert [one["model"] for one in done["prices"]] == [
        "bedrock/anthropic.claude-x", "gemini/gemini-x", "openrouter/openai/gpt-x", "together/meta/llama-x",
        "vertex_ai/claude-x", "vertex_ai/gemini-x",
    ]  # fmt: skip


def test_only_models_that_were_asked_for_are_imported(line: CommandLine) -> None:
    (line.folder / "table.json").write_text(json.dumps(TABLE))
    words = ("prices", "import", "openai/*", "--table", "table.json")
    would = line.json(*words, "--dry-run")
    assert line.json("prices", "list") == {"prices": []}
    done = line.json(*words)
    assert [
        (price["model"], price["input_picousd"], price["output_picousd"], price["cached_input_picousd"])
        for price in done["prices"]
    ] == [
        ("openai/gpt-4o-mini", 150_000, 600_000, 75_000),
        ("openai/text-embedding-3-small", 20_000, 0, None),
    ]
    assert set(done["skipped"]) == set(would["skipped"]) == {"openai/gpt-fine", "openai/gpt-image"}
    assert [price["model"] for price in would["prices"]] == [price["model"] for price in done["prices"]]
    assert line.json(*words)["prices"] == []
    assert (
        line.json("prices", "import", "vllm/*", "--table", "table.json", code=3)["error"]["code"]
        == "not_found"
    )


@pytest.mark.parametrize("content", [None, "{", "[]", b"\xff"])
def test_a_table_that_cannot_be_read_is_refused(line: CommandLine, content: str | bytes | None) -> None:
    if content is not None:
        (line.folder / "table.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused = line.json("prices", "import", "*", "--table", "table.json", code=3)
    assert refused["error"]["message"].startswith("table.json: ")


@pytest.mark.skipif(importlib.util.find_spec("litellm") is not None, reason="litellm is installed")
def test_without_litellm_the_extra_is_named(line: CommandLine) -> None:
    refused = line.json("prices", "import", "openai/*", code=3)
    assert (refused["error"]["code"], "sluicegate[litellm]" in refused["error"]["message"]) == (
        "missing_extra",
        True,
    )


@pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="litellm is not installed")
def test_litellms_own_table_is_read_without_importing_it(line: CommandLine) -> None:
    found = line.json("prices", "import", "openai/gpt-4o-mini", "--dry-run")
    assert [price["model"] for price in found["prices"]] == ["openai/gpt-4o-mini"]
    assert found["source"].startswith("litellm ")
