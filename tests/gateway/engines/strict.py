"""
The command line of `vllm serve`, as strict as vLLM 0.32's own parser.

`vllm-0.32-flags.txt` was written from that parser: one flag a line, what follows it, and its choices or type.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

_FLAGS = Path(__file__).with_name("vllm-0.32-flags.txt")
_JSON = {
    "--speculative-config": {
        "method", "model", "num_speculative_tokens", "revision", "prompt_lookup_min", "prompt_lookup_max",
        "draft_tensor_parallel_size",
    },
    "--structured-outputs-config": {"backend", "disable_any_whitespace", "disable_additional_properties"},
    "--lora-modules": {"name", "path", "base_model_name"},
}  # fmt: skip
Values = dict[str, list[str]]


class Refused(Exception):
    """vLLM would exit with 2 and this message."""


def flags() -> dict[str, tuple[str, str]]:
    """Flag → (`switch`, `one`, `many` or `maybe`; its choices joined by commas, its type, or nothing)."""
    rows = [line.split(" ", 2) for line in _FLAGS.read_text().splitlines()]
    return {row[0]: (row[1], row[2] if len(row) > 2 else "") for row in rows}


def parse(argv: Sequence[str]) -> tuple[str, Values]:
    """
    The model, and the values of each flag, of `serve MODEL --flag …`.

    Raises:
        Refused: another command, an unknown flag, a missing or unwanted value, one that is no choice.
    """
    if len(argv) < 2 or argv[0] != "serve" or argv[1].startswith("-"):
        raise Refused("usage: serve MODEL …")
    known, found, rest = flags(), Values(), list(argv[2:])
    while rest:
        flag = rest.pop(0)
        if flag not in known:
            raise Refused(f"unrecognized arguments: {flag}")
        kind, domain = known[flag]
        values: list[str] = []
        while rest and not rest[0].startswith("--") and (kind == "many" or (kind != "switch" and not values)):
            values.append(rest.pop(0))
        if (kind in ("one", "many") and not values) or flag in found:
            raise Refused(f"argument {flag}: expected one argument, once")
        for value in values:
            _check(flag, value, domain)
        found[flag] = values
    return argv[1], found


def _check(flag: str, value: str, domain: str) -> None:
    if domain in ("int", "float"):
        try:
            {"int": int, "float": float}[domain](value)
        except ValueError:
            raise Refused(f"argument {flag}: invalid {domain} value: {value!r}") from None
    elif domain and value not in domain.split(","):
        raise Refused(f"argument {flag}: invalid choice: {value!r}")
    if flag in _JSON:
        unknown = set(json.loads(value)) - _JSON[flag]
        if unknown:
            raise Refused(f"argument {flag}: unexpected keyword {min(unknown)}")
